"""Any timm backbone as a network of ours: stages by timm's own grouping, pooled features, our head.

timm itself is imported inside the functions: that takes seconds, and the other models do without.
"""

import re
from collections.abc import Sequence
from typing import Annotated, Any

from torch import nn

from faceattr.config.key import Key
from faceattr.errors import FaceattrError
from faceattr.models.network import Network


def from_timm(
    *,
    name: Annotated[str, Key("Name of a timm model, such as vit_tiny_patch16_224.")],
    image_size: list,
    num_logits: int,
    head: dict,
) -> Network:
    """Any timm backbone by name: its pooled features, then our head; stages stem, stage1, … by timm's own grouping."""
    try:
        backbone = timm_backbone(name, image_size)
    except (RuntimeError, AssertionError) as error:  # no such model or weights; a size that it refuses
        raise FaceattrError(f"model.name={name} at model.image_size={list(image_size)}: {error}") from error
    return Network(backbone, _timm_stages(backbone), image_size, num_logits, head, f"timm/{name}")


def timm_backbone(name: str, image_size: Sequence[int], pretrained: bool = False) -> nn.Module:
    """A timm model without its classifier, built for `image_size` where its architecture depends on it."""
    import timm

    config = timm.get_pretrained_cfg(name)
    size: dict[str, Any] = {"img_size": tuple(image_size)} if config and config.fixed_input_size else {}
    return timm.create_model(name, pretrained=pretrained, num_classes=0, **size)


def _timm_stages(backbone: nn.Module) -> dict[str, str]:
    """Names of parameters and modules → stage. A module without parameters goes with the one registered before it."""
    stages = {name: f"stage{i}" if i else "stem" for i, names in enumerate(_timm_groups(backbone)) for name in names}
    by_id = {id(parameter): stages[name] for name, parameter in backbone.named_parameters()}
    modules, last = {}, "stem"
    for name, module in backbone.named_modules():
        inside = {by_id[id(parameter)] for parameter in module.parameters()} or {last}
        if len(inside) == 1:
            modules[name] = last = inside.pop()
    return stages | modules


def _timm_groups(backbone: nn.Module) -> list[list[str]]:
    """Names of parameters, grouped by timm's own coarse order; by the backbone's children where timm has none."""
    from timm.models import group_parameters

    try:
        matcher = backbone.group_matcher(coarse=True)  # type: ignore[operator]
        return [names for _, names in sorted(group_parameters(backbone, matcher).items())]
    except (AttributeError, AssertionError, NotImplementedError):
        groups: dict[str, list[str]] = {}
        for name, _ in backbone.named_parameters():
            groups.setdefault(re.match(r"\w+(\.\d+)?", name)[0], []).append(name)  # type: ignore[index]
        return list(groups.values())
