"""Config: the checks of a composed config against the schema, and the one place that builds objects from `_target_`.

The keys of an open group (`data`, `model`, `optim`, `logger`) are checked against the signature of the function that its
`_target_` names, so that a new data set or model needs no schema. Nothing here imports torch: composing stays quick.
"""

import difflib
import inspect
from dataclasses import make_dataclass
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from faceattr.config.instantiate import target_function
from faceattr.config.schema import CHOICES, CLOSED, NOT_NEGATIVE, POSITIVE, SHARED
from faceattr.errors import FaceattrError


def validate(cfg: DictConfig) -> DictConfig:
    """`cfg` with every interpolation resolved and every key, type and choice checked; paths made absolute.

    Raises a FaceattrError that names the key and what would be right.
    """
    if corrects_nothing(cfg):
        raise FaceattrError("quirks=corrected: nothing here was published. Give a study's preset too: experiment=…")
    for entry in cfg.get("published") or ():
        if not OmegaConf.is_dict(entry) or set(entry) != {"metric", "split", "value", "n", "source"}:
            raise FaceattrError(f"published: {entry} must have metric, split, value, n and source")
    missing = sorted(OmegaConf.missing_keys(cfg))
    if missing:
        raise FaceattrError(f"Required and not given: {', '.join(missing)}. Give it as {missing[0]}=…")
    cfg = DictConfig(OmegaConf.to_container(cfg, resolve=True))
    for group, shared in SHARED.items():
        if group in cfg:
            cfg[group] = _checked_against_signature(cfg[group], group, shared)
    for group, closed in CLOSED.items():
        node = OmegaConf.select(cfg, group) if group else cfg
        if unknown := [str(name) for name in node or () if name not in closed]:
            raise FaceattrError(unknown_key(f"{group}.{unknown[0]}".lstrip("."), sorted(closed)))
    for key, choices in CHOICES.items():
        value = OmegaConf.select(cfg, key)
        if value is None:
            continue
        spelled = "off" if value is False and "off" in choices else str(value).lower()  # YAML reads off as false
        if spelled not in choices:
            raise FaceattrError(f"{key}={value}: choose one of {', '.join(choices)}.")
        OmegaConf.update(cfg, key, spelled)
    for key in POSITIVE:
        value = OmegaConf.select(cfg, key)
        if value is not None and value <= 0:
            raise FaceattrError(f"{key}={value}: must be greater than 0.")
    for key in NOT_NEGATIVE:
        value = OmegaConf.select(cfg, key)
        if value is not None and value < 0:
            raise FaceattrError(f"{key}={value}: must be 0 or more.")
    for key in ("evaluate.precision", "evaluate.recall"):
        value = OmegaConf.select(cfg, key)
        if value is not None and not 0 < value <= 1:
            raise FaceattrError(f"{key}={value}: a share, above 0 and at most 1.")
    if "model" in cfg and (len(cfg.model.image_size) != 2 or min(cfg.model.image_size) < 1):
        raise FaceattrError(f"model.image_size={cfg.model.image_size}: give [height, width], e.g. [128,128].")
    for key in ("data.root", "model.weights", "ckpt", "compare"):
        if OmegaConf.select(cfg, key):
            OmegaConf.update(cfg, key, str(Path(OmegaConf.select(cfg, key)).expanduser().absolute()))
    return cfg


def corrects_nothing(cfg: DictConfig) -> bool:
    """Whether the command line asks for a study without its quirks, and there is no study."""
    choices = HydraConfig.get().runtime.choices if HydraConfig.initialized() else {}
    return choices.get("quirks") == "corrected" and not cfg.get("published")


def _checked_against_signature(node: DictConfig, group: str, shared: Any) -> DictConfig:
    """`node` with the types that the shared keys and the target's own parameters declare."""
    function = target_function(node, group)
    parameters = inspect.signature(function).parameters
    given_by_code = {"params", "num_logits"}
    types: dict[str, Any] = {name: _simple(f.type) for name, f in shared.__dataclass_fields__.items()}
    for name, parameter in parameters.items():
        if name not in given_by_code and parameter.kind is not parameter.VAR_KEYWORD:
            types.setdefault(name, _simple(parameter.annotation))
    open_ended = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    unknown = [str(name) for name in node if name not in types and name != "_target_"]
    if unknown and not open_ended:
        raise FaceattrError(unknown_key(f"{group}.{unknown[0]}", list(types)))
    schema = OmegaConf.structured(make_dataclass(group.title(), [(k, types[str(k)]) for k in node if k in types]))
    try:
        typed = OmegaConf.merge(schema, {name: value for name, value in node.items() if name in types})
    except OmegaConfBaseException as error:
        key = f"{group}.{error.full_key or error.key}"
        raise FaceattrError(f"{key}: {str(error.msg or error).splitlines()[0]}") from error
    return OmegaConf.create({**node, **OmegaConf.to_container(typed)})  # type: ignore[dict-item]


def _simple(annotation: Any) -> Any:
    """The annotation where OmegaConf can check it, else Any."""
    probe = annotation if annotation is not inspect.Parameter.empty else Any
    try:
        OmegaConf.structured(make_dataclass("Probe", [("x", probe)]))
    except Exception:
        return Any
    return probe


def unknown_key(key: str, known: list[str]) -> str:
    """The message for a key that is not there: the nearest one, and all there are."""
    group, _, name = key.rpartition(".")
    near = difflib.get_close_matches(name, known, n=1)
    hint = f" Did you mean {group + '.' if group else ''}{near[0]}?" if near else ""
    where = f"Keys of {group}" if group else "Keys"
    return f"{key}: no such key.{hint}\n{where}: {', '.join(sorted(known))}"
