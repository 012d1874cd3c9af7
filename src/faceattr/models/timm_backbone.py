"""Any timm backbone as a network: its pooled features, then our head; stages are timm's parameter groups.

timm is imported inside the functions, because the import takes seconds and other models do not need it.
"""

import re
from collections.abc import Sequence
from typing import Annotated, Any

from torch import nn

from faceattr.config.key_annotation import Key
from faceattr.errors import FaceattrError
from faceattr.models.staged_network import Network


def from_timm(
    *,
    name: Annotated[str, Key("Name of a timm model, such as vit_tiny_patch16_224.")],
    image_size: list,
    num_logits: int,
    head: dict,
) -> Network:
    """Any timm backbone by name: its pooled features, then our head. The stages stem, stage1, … are timm's groups.

    Raises FaceattrError: an unknown name, or an image size that the backbone does not accept.
    """
    try:
        backbone = timm_backbone(name, image_size)
    except (RuntimeError, AssertionError) as error:  # an unknown model or tag, or an invalid size
        raise FaceattrError(f"model.name={name} at model.image_size={list(image_size)}: {error}") from error
    return Network(backbone, _timm_stages(backbone), image_size, num_logits, head, f"timm/{name}")


def timm_backbone(name: str, image_size: Sequence[int], pretrained: bool = False, *, num_classes: int = 0) -> nn.Module:
    """A timm model, by default without its classifier. It is built for `image_size` if its architecture depends on the size."""
    import timm

    config = timm.get_pretrained_cfg(name)
    size: dict[str, Any] = {"img_size": tuple(image_size)} if config and config.fixed_input_size else {}
    return timm.create_model(name, pretrained=pretrained, num_classes=num_classes, **size)


def _timm_stages(backbone: nn.Module) -> dict[str, str]:
    """Name of a parameter or module → its stage. A module without parameters is in the stage of the module before it."""
    stages = {name: f"stage{i}" if i else "stem" for i, names in enumerate(_timm_groups(backbone)) for name in names}
    by_id = {id(parameter): stages[name] for name, parameter in backbone.named_parameters()}
    modules, previous = {}, "stem"
    for name, module in backbone.named_modules():
        module_stages = {by_id[id(parameter)] for parameter in module.parameters()} or {previous}
        if len(module_stages) == 1:
            modules[name] = previous = module_stages.pop()
    return stages | modules


def _timm_groups(backbone: nn.Module) -> list[list[str]]:
    """Names of parameters in timm's coarse groups, in order; by the backbone's children if timm has no groups for it."""
    from timm.models import group_parameters

    try:
        matcher = backbone.group_matcher(coarse=True)  # type: ignore[operator]
        return [names for _, names in sorted(group_parameters(backbone, matcher).items())]
    except (AttributeError, AssertionError, NotImplementedError):
        groups: dict[str, list[str]] = {}
        for name, _ in backbone.named_parameters():
            groups.setdefault(re.match(r"\w+(\.\d+)?", name)[0], []).append(name)  # type: ignore[index]
        return list(groups.values())
