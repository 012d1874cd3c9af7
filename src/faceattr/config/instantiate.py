"""Build objects from `_target_`: the only place that does, and only from a list of allowed modules."""

import os
import pkgutil
from collections.abc import Callable, Mapping
from typing import Any

from hydra.utils import instantiate as hydra_instantiate
from omegaconf import DictConfig, OmegaConf

from faceattr.config.schema import SHARED
from faceattr.errors import FaceattrError

ALLOWED_TARGETS = (
    "faceattr.data.sources.",
    "faceattr.models.",
    "faceattr.models.timm_backbone.",
    "torch.optim.",
    "pytorch_lightning.loggers.",
)


def target_function(node: Mapping[str, Any], key: str) -> Callable[..., Any]:
    """What `node._target_` names.

    Only what lies in `ALLOWED_TARGETS`, by its path and by where it is defined, is given: a checkpoint carries a config,
    and a stranger's must not run code. The environment variable FACEATTR_ALLOW (packages, comma-separated) adds to it.
    """
    if node.get("_target_") is None:
        raise FaceattrError(f"{key}: has no _target_; conf/{key}/_base.yaml is a base for the others, not an option.")
    target = str(node["_target_"])
    own = [f"{name.strip()}." for name in os.environ.get("FACEATTR_ALLOW", "").split(",") if name.strip()]
    allowed = (*ALLOWED_TARGETS, *own)
    try:
        found: Any = pkgutil.resolve_name(target) if target.startswith(allowed) else None
    except Exception as error:
        raise FaceattrError(f"{key}._target_={target} cannot be imported: {error}") from error
    if not f"{getattr(found, '__module__', None)}.".startswith(allowed):
        raise FaceattrError(
            f"{key}._target_={target} is not allowed. Targets lie in {', '.join(allowed)}\n"
            "To use a package of your own, name it in the environment variable FACEATTR_ALLOW."
        )
    return found


def instantiate(node: DictConfig, key: str, *, drop: tuple[str, ...] = (), **arguments: Any) -> Any:
    """Build what `node` describes, less the keys in `drop`, plus `arguments`: the only call site of Hydra's instantiate."""
    _refuse_nested_targets(node, key)
    target_function(node, key)
    kept = OmegaConf.create({name: value for name, value in node.items() if name not in drop})
    build = hydra_instantiate(kept, _partial_=True, _convert_="all")  # partial: OmegaConf would copy `arguments`
    try:
        return build(**arguments)
    except (TypeError, ValueError, ImportError) as error:
        raise FaceattrError(f"{key} ({node['_target_']}): {error}") from error


def _refuse_nested_targets(node: Any, key: str) -> None:
    for name, value in node.items() if OmegaConf.is_dict(node) else enumerate(node):
        if OmegaConf.is_config(value):
            if OmegaConf.is_dict(value) and "_target_" in value:
                raise FaceattrError(f"{key}.{name}._target_: only a group itself may have a _target_.")
            _refuse_nested_targets(value, f"{key}.{name}")


def shared_keys(group: str) -> tuple[str, ...]:
    """Names of the keys that every option of an open group shares."""
    return tuple(SHARED[group].__dataclass_fields__)
