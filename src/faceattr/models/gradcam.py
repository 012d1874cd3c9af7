"""Grad-CAM (Selvaraju et al. 2017): where in an image lies what speaks for a class, as the network's last map of features
has it; for conv stacks, and for timm's backbones with channels first, channels last or tokens."""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import cv2
import numpy as np
import torch
from matplotlib import colormaps
from torch import Tensor, nn
from torch.nn.functional import interpolate

from faceattr.errors import FaceattrError
from faceattr.models.network import Network
from faceattr.models.task import Task

BATCH = 8
"""So many images go through the network at once: the features of a large one take tens of megabytes an image."""

Step = Callable[[Tensor], Tensor]


def heatmaps(network: Network, task: Task, inputs: Tensor, classes: Tensor) -> np.ndarray:
    """Float32 [B, H, W] from 0 to 1: where in the images lies what speaks for `classes` [B], one each.

    `inputs` [B, 3, H, W] are scaled as the network takes them; what speaks for a class is `Task.class_score`, without
    temperature. Each map is stretched to a maximum of 1: it compares places in an image, not images. It is 0 where nothing
    speaks for the class. The network is left as it was.
    Raises FaceattrError for a network in which no layer keeps height and width.
    """
    trunk, rest = _halves(network.features)
    as_map = functools.partial(
        _as_map, size=inputs.shape[-2:], num_prefix_tokens=getattr(network.features, "num_prefix_tokens", 0)
    )

    def score(features: Tensor, classes: Tensor) -> Tensor:
        return task.class_score(network.head(rest(features)), classes)

    maps = []
    with _evaluating(network):
        probe = inputs[:2].clone().requires_grad_()
        layer = _last_map(network.features, trunk, lambda found: score(found, classes[:2]), as_map, probe)
        output: list[Tensor] = []
        hook = layer.register_forward_hook(lambda _module, _inputs, out: output.append(out))
        try:
            for part, chosen in zip(inputs.split(BATCH), classes.split(BATCH), strict=True):
                output.clear()
                scores = score(trunk(part.clone().requires_grad_()), chosen)
                (slopes,) = torch.autograd.grad(scores.sum(), output[-1])
                activation, slope = as_map(output[-1]), as_map(slopes)
                assert activation is not None and slope is not None, "the layer gave a map for the probe"
                heat = (activation * slope.mean((2, 3), keepdim=True)).sum(1, keepdim=True).relu()
                heat = interpolate(heat.detach().float(), inputs.shape[-2:], mode="bilinear", align_corners=False)
                maps.append(heat.cpu())
        finally:
            hook.remove()
    heat_of = torch.cat(maps)[:, 0].numpy()
    return heat_of / np.maximum(heat_of.max((1, 2), keepdims=True), np.finfo(np.float32).tiny)


def overlay(pixels: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """The image, uint8 [H, W, 3], dimmed where `heat` [H, W] is low, tinted where it is high, and a line round what is above
    half: it reads in grey as well."""
    share = heat[..., None]
    tint = colormaps["inferno"](heat)[..., :3] * 255
    shown = (pixels * (0.5 + 0.15 * share) + tint * 0.35 * share).astype(np.uint8)
    inside, cross = (heat > 0.5).astype(np.uint8), np.ones((3, 3), np.uint8)
    shown[cv2.dilate(inside, cross) > inside] = 0
    shown[cv2.erode(inside, cross) < inside] = 255
    return shown


def _halves(features: nn.Module) -> tuple[Step, Step]:
    """What computes the last map, and what makes of it the head's input: timm's own parts; of a conv stack what is before its
    last max-pool, and the rest. Stacks that pool before ReLU (`conv_stacks`) do so as published here: it is equal."""
    if hasattr(features, "forward_features"):
        return features.forward_features, features.forward_head  # type: ignore[return-value]
    layers = list(features.children())
    if [type(layer) for layer in layers[-2:]] == [nn.MaxPool2d, nn.ReLU]:
        layers[-2:] = layers[:-3:-1]
    end = len(layers) - isinstance(layers[-1], nn.MaxPool2d)
    return nn.Sequential(*layers[:end]), nn.Sequential(*layers[end:])


def _last_map(
    features: nn.Module, trunk: Step, score: Step, as_map: Callable[[Tensor], Tensor | None], inputs: Tensor
) -> nn.Module:
    """The last of the trunk's modules to put out a map, as wide as the very last one, on which the evidence depends.

    Where only a class token is read, it does not depend on the patches that the last block puts out.
    """
    maps: list[tuple[nn.Module, Tensor, int]] = []

    def note(module: nn.Module, _: Any, out: Any) -> None:
        if isinstance(out, Tensor) and len(out) == len(inputs) and (seen := as_map(out)) is not None:
            maps.append((module, out, seen.shape[1]))

    hooks = [module.register_forward_hook(note) for module in features.modules()]
    try:
        found = trunk(inputs)
    finally:
        for hook in hooks:
            hook.remove()
    if not maps:
        raise FaceattrError("No Grad-CAM: in this network no layer's output has a height and width above 1.")
    modules, outputs = zip(*((module, out) for module, out, width in maps if width == maps[-1][2]), strict=True)
    gradients = torch.autograd.grad(score(found).sum(), outputs, materialize_grads=True)
    read = [m for m, slope in zip(modules, map(as_map, gradients), strict=True) if slope is not None and slope.any()]
    return (read or modules)[-1]


def _as_map(out: Tensor, size: torch.Size, num_prefix_tokens: int) -> Tensor | None:
    """A layer's output as [B, C, h, w]: given so, or [B, h, w, C], or [B, num_prefix_tokens + h·w, C].
    None where it has not about the shape `size` of the image: sides may be rounded, or cut by convs without padding."""

    def fits(h: int, w: int) -> bool:
        return min(h, w) > 1 and abs(h * size[1] - w * size[0]) < sum(size)

    if out.ndim == 4:
        return out if fits(*out.shape[2:]) else out.permute(0, 3, 1, 2) if fits(*out.shape[1:3]) else None
    if out.ndim != 3 or out.shape[1] <= num_prefix_tokens:
        return None
    h = round(((out.shape[1] - num_prefix_tokens) * size[0] / size[1]) ** 0.5) or 1
    w, left = divmod(out.shape[1] - num_prefix_tokens, h)
    return out[:, num_prefix_tokens:].mT.unflatten(2, (h, w)) if not left and fits(h, w) else None


@contextmanager
def _evaluating(network: nn.Module) -> Iterator[None]:
    """In evaluation mode, with gradients, whoever asks; afterwards each module is in the mode that it was in."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        with torch.inference_mode(False), torch.enable_grad():
            yield
    finally:
        for module, mode in modes:
            module.training = mode
