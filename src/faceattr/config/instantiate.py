"""Call the function that `_target_` names: the only place that does. Nothing inside a node is ever called."""

from collections.abc import Mapping
from typing import Any, TypeVar

from omegaconf import DictConfig, OmegaConf

from faceattr.config.allowed_targets import target_function
from faceattr.config.key_annotation import declared_keys
from faceattr.config.schema import SHARED
from faceattr.config.validate_keys import validate_group
from faceattr.errors import FaceattrError

Settings = TypeVar("Settings")


def instantiate(node: Mapping[str, Any], group: str, *, drop: tuple[str, ...] = (), **arguments: Any) -> Any:
    """What `node._target_` returns for the node's keys, less those in `drop`, plus `arguments`.

    Keys that all options of the group share go to a function that takes them, and to no other.
    """
    function = target_function(node, group)
    shared = set(declared_keys(SHARED[group])) if group in SHARED else set()
    left_out = {"_target_", *drop} | (shared - set(declared_keys(function)))
    keys = {name: value for name, value in validate_group(node, group).items() if name not in left_out}
    try:
        return function(**keys, **arguments)
    except (TypeError, ValueError, ImportError) as error:
        raise FaceattrError(f"{group} ({node['_target_']}): {error}") from error


def group_settings(group: Mapping[str, Any], schema: type[Settings]) -> Settings:
    """The keys of `schema`, a dataclass of schema.py, that a config group holds; what it lacks is at its default.

    Other keys of the group (those of a source, a model or an optimizer) are left out.
    """
    plain = OmegaConf.to_container(group) if isinstance(group, DictConfig) else group
    assert isinstance(plain, Mapping)
    keys = declared_keys(schema)
    return schema(**{str(name): value for name, value in plain.items() if name in keys})
