"""Call the function that `_target_` names: the only place that does. Nothing inside a node is ever called."""

from typing import Any

from omegaconf import DictConfig

from faceattr.config.key import parameters
from faceattr.config.schema import SHARED
from faceattr.config.targets import target_function
from faceattr.config.validate import validate_group
from faceattr.errors import FaceattrError


def instantiate(node: DictConfig, group: str, *, drop: tuple[str, ...] = (), **arguments: Any) -> Any:
    """What `node._target_` returns for the node's keys, less those in `drop`, plus `arguments`.

    Keys that all options of the group share go to a function that takes them, and to no other.
    """
    function = target_function(node, group)
    shared = set(parameters(SHARED[group])) if group in SHARED else set()
    left_out = {"_target_", *drop} | (shared - set(parameters(function)))
    keys = {name: value for name, value in validate_group(node, group).items() if name not in left_out}
    try:
        return function(**keys, **arguments)
    except (TypeError, ValueError, ImportError) as error:
        raise FaceattrError(f"{group} ({node['_target_']}): {error}") from error
