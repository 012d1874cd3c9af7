"""The config that a checkpoint stores is data from a stranger: it is checked here, before Hydra or any builder sees it.

Hydra follows a `defaults` list, OmegaConf resolves `${…}`, and a `_target_` names code. None of that is taken from a file:
a stored config holds plain values, one allowed `_target_` per open group, and no path that is written to.
"""

import math
from collections.abc import Mapping
from typing import Any

from faceattr.config.allowed_targets import target_function
from faceattr.errors import FaceattrError

GROUPS = ("data", "faces", "model", "finetune", "augment", "optim", "trainer", "logger")
WITH_TARGET = ("data", "model", "optim", "logger")
"""Groups whose `_target_` names the function that they are built by."""
REFUSED_KEYS = ("defaults", "hydra")
MAX_DEPTH, MAX_VALUES, MAX_TEXT = 8, 100_000, 100_000
"""Bounds of a stored config: levels, values in all, characters of a text."""
DRAWN_BY_CODE = "faceattr.data.sources.sample.load"
"""The source that writes into `data.root`."""
OWN_FOLDER = "${hydra:runtime.output_dir}"
OWN_MLFLOW = "${oc.env:MLFLOW_TRACKING_URI,'sqlite:///mlflow.db'}"
"""As conf/logger/mlflow.yaml has it: a checkpoint names no server."""


def check_stored_config(config: dict[str, Any], source: str) -> None:
    """Refuse a config, plain containers as the checkpoint `source` holds them, that could write or run anything.

    Raises FaceattrError: the key, and why it is refused.
    """
    for group in GROUPS:
        if config.get(group) is not None and not isinstance(config[group], dict):
            raise FaceattrError(f"{source}: its config has {group}={str(config[group])[:80]}, which is no group.")
    _check_values(config, "", source, [0])
    _check_name("name", config.get("name", "run"), source)
    for key, value in (config.get("logger") or {}).items():
        if key not in ("_target_", "save_dir", "tracking_uri") and isinstance(value, str) and value:
            _check_name(f"logger.{key}", value, source)
    for group in WITH_TARGET:
        if "_target_" in (config.get(group) or {}):
            _check_target(config[group], group, source)


def with_own_paths(config: Mapping[str, Any]) -> dict[str, Any]:
    """`config` with the paths that a run writes to as conf/ has them, whatever the checkpoint says: a logger writes into
    the run's folder or this machine's MLflow store, the generated sample is drawn into the cache, no data are downloaded, and
    the face detector is the cache's."""
    safe = dict(config)
    data = safe.get("data") or {}
    replaced: dict[str, Any] = {"download": False} if "download" in data else {}
    if data.get("_target_") == DRAWN_BY_CODE:
        replaced["root"] = "${oc.env:FACEATTR_CACHE,'~/.cache/faceattr'}/sample"
    if data:
        safe["data"] = data | replaced
    if safe.get("faces"):
        safe["faces"] = safe["faces"] | {"weights": None}
    if safe.get("logger"):
        safe["logger"] = safe["logger"] | {"save_dir": OWN_FOLDER}
        if "tracking_uri" in safe["logger"]:
            safe["logger"]["tracking_uri"] = OWN_MLFLOW
    return safe


def _check_values(node: Any, key: str, source: str, count: list[int]) -> None:
    """Plain values only: no `defaults`, `hydra` or `${…}`, a `_target_` in an open group only. `count` is of all values so far."""
    count[0] += 1
    if count[0] > MAX_VALUES or key.count(".") > MAX_DEPTH:
        raise FaceattrError(f"{source}: its config is too large or too deep (at {key[:80]}).")
    if isinstance(node, dict):
        for name, value in node.items():
            inside = f"{key}.{name}".lstrip(".")
            if not isinstance(name, str | int) or isinstance(name, bool):
                raise FaceattrError(f"{source}: its config has a key that is no name, below {key or 'the top'}.")
            target = name == "_target_" and key in WITH_TARGET
            if (
                name in REFUSED_KEYS
                or (isinstance(name, str) and name.startswith("_") and not target)
                or "${" in str(name)
            ):
                raise FaceattrError(f"{source}: its config has {inside[:120]}, which a checkpoint may not set.")
            _check_values(value, inside, source, count)
    elif isinstance(node, list | tuple):
        for place, value in enumerate(node):
            _check_values(value, f"{key}.{place}", source, count)
    elif isinstance(node, str):
        if "${" in node or len(node) > MAX_TEXT:
            reason = (
                "text of a checkpoint is taken as it stands, without ${…}" if "${" in node else "the text is too long"
            )
            raise FaceattrError(f"{source}: its config has {key}={node[:80]!r}: {reason}.")
    elif isinstance(node, float):
        if not math.isfinite(node):
            raise FaceattrError(f"{source}: its config has {key}={node}: numbers must be finite.")
    elif node is not None and not isinstance(node, bool | int):
        raise FaceattrError(f"{source}: its config has a value of type {type(node).__name__} at {key[:80]}.")


def _check_name(key: str, name: Any, source: str) -> None:
    """What names a run or a logger's files becomes part of a path."""
    if not isinstance(name, str) or not is_path_component(name):
        raise FaceattrError(f"{source}: its config has {key}={str(name)[:80]!r}; it must be a name, not a path.")


def is_path_component(name: str) -> bool:
    """Whether `name` is the name of one file or folder: nothing in it leads elsewhere."""
    return 0 < len(name) <= 200 and name not in (".", "..") and not set(name) & set("/\\\0\n\r") and name.isprintable()


def _check_target(group: Mapping[str, Any], key: str, source: str) -> None:
    try:
        target_function(group, key)
    except FaceattrError as error:
        raise FaceattrError(f"{source}: {error}") from error
