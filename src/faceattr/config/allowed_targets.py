"""Which function a `_target_` may name: a checkpoint carries a config, and a stranger's must not run other code."""

import inspect
import os
import pkgutil
import re
from collections.abc import Callable, Mapping
from typing import Any

from faceattr.errors import FaceattrError

ALLOWED = {
    "data": r"faceattr\.data\.sources\.[a-z]\w*\.load",
    "model": r"faceattr\.models\.(conv_stacks\.[a-z]\w*|timm_backbone\.from_timm)",
    "optim": r"torch\.optim\.[A-Z]\w*",
    "logger": r"pytorch_lightning\.loggers\.[A-Z]\w*",
}
"""Pattern of the paths that each group may name."""
IN_WORDS = {
    "data": "`load` of a module in faceattr.data.sources",
    "model": "a function of faceattr.models.conv_stacks, or faceattr.models.timm_backbone.from_timm",
    "optim": "an optimizer of torch.optim",
    "logger": "a logger of pytorch_lightning.loggers",
}


def target_function(node: Mapping[str, Any], group: str) -> Callable[..., Any]:
    """The function or class that `node._target_` names, if the group may name it.

    The environment variable FACEATTR_ALLOW (packages, comma-separated) allows what those packages define too. Raises
    FaceattrError for any other path, and for a name that was defined elsewhere than its path says (`csv.io.open`).
    """
    target = node.get("_target_")
    if target is None:
        raise FaceattrError(f"{group}: has no _target_, the function that makes it.")
    packages = [name.strip() for name in os.environ.get("FACEATTR_ALLOW", "").split(",") if name.strip()]
    own_packages = [package for package in packages if str(target).startswith(f"{package}.")]
    home = own_packages[0] if own_packages else str(target).rpartition(".")[0]
    refused = FaceattrError(
        f"{group}._target_={target} is not allowed. It may be {IN_WORDS[group]}.\n"
        "To use a package of your own, name it in the environment variable FACEATTR_ALLOW."
    )
    if not own_packages and not re.fullmatch(ALLOWED[group], str(target)):
        raise refused
    try:
        function: Any = pkgutil.resolve_name(str(target))
    except Exception as error:  # whatever an import of the user's own package raises
        raise FaceattrError(f"{group}._target_={target} cannot be imported: {error}") from error
    if not callable(function) or not f"{getattr(function, '__module__', None)}.".startswith(f"{home}."):
        raise refused
    if not own_packages and inspect.isclass(function) != (group in ("optim", "logger")):
        raise refused  # nothing that is installed today; a later release of theirs may define it
    return function
