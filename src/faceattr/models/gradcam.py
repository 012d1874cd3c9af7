"""Grad-CAM (Selvaraju et al. 2017): which parts of an image raise a network's score for a class.

Works on the last feature map of conv stacks and of timm's backbones, with channels first, channels last or tokens.
"""

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
from faceattr.models.staged_network import Network
from faceattr.models.task import Task

BATCH = 8
"""Images that go through the network at once: the features of a large network take tens of megabytes per image."""

TensorFunction = Callable[[Tensor], Tensor]
ToMap = Callable[[Tensor], Tensor | None]


def heatmaps(network: Network, task: Task, inputs: Tensor, classes: Tensor) -> np.ndarray:
    """Float32 [B, H, W] from 0 to 1: how much each part of an image raises the score of its class.

    inputs: scaled images [B, 3, H, W], on the network's device.
    classes: the class of each image [B]. Its score is `Task.class_score`, without temperature.

    Each map is scaled to a maximum of 1, so maps compare parts of one image, not images. A map is 0 if no part raises the
    score. The network is not changed.
    Raises FaceattrError: no layer of the network has an output with height and width.
    """
    trunk, pooling = _split_features(network.features)
    prefix_tokens = getattr(network.features, "num_prefix_tokens", 0)
    to_map = functools.partial(_to_map, size=inputs.shape[-2:], num_prefix_tokens=prefix_tokens)

    def score(features: Tensor, classes: Tensor) -> Tensor:
        return task.class_score(network.head(pooling(features)), classes)

    maps, outputs = [], []
    with _eval_mode(network):
        example = inputs[:2].clone().requires_grad_()
        layer = _last_map_layer(network.features, trunk, lambda features: score(features, classes[:2]), to_map, example)
        hook = layer.register_forward_hook(lambda _module, _inputs, output: outputs.append(output))
        try:
            for images, labels in zip(inputs.split(BATCH), classes.split(BATCH), strict=True):
                outputs.clear()
                scores = score(trunk(images.clone().requires_grad_()), labels)
                (gradient,) = torch.autograd.grad(scores.sum(), outputs[-1])
                maps.append(_weighted_sum(to_map(outputs[-1]), to_map(gradient), inputs.shape[-2:]))
        finally:
            hook.remove()
    heat = torch.cat(maps)[:, 0].numpy()
    return heat / np.maximum(heat.max((1, 2), keepdims=True), np.finfo(np.float32).tiny)


def overlay(pixels: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """The image, uint8 [H, W, 3], with its heatmap [H, W]: darker where `heat` is low, coloured where it is high.

    A line surrounds the parts above 0.5, so that the overlay can be read in greyscale.
    """
    share = heat[..., None]
    colour = colormaps["inferno"](heat)[..., :3] * 255
    image = (pixels * (0.5 + 0.15 * share) + colour * 0.35 * share).astype(np.uint8)
    high, kernel = (heat > 0.5).astype(np.uint8), np.ones((3, 3), np.uint8)
    image[cv2.dilate(high, kernel) > high] = 0
    image[cv2.erode(high, kernel) < high] = 255
    return image


def _weighted_sum(features: Tensor | None, gradient: Tensor | None, size: torch.Size) -> Tensor:
    """Float32 [B, 1, *size] on the CPU, from [B, C, h, w]: channels weighted by their mean gradient (equations 1 and 2)."""
    assert features is not None and gradient is not None, "the layer's output was a map for the example"
    heat = (features * gradient.mean((2, 3), keepdim=True)).sum(1, keepdim=True).relu()
    return interpolate(heat.detach().float(), size, mode="bilinear", align_corners=False).cpu()


def _split_features(features: nn.Module) -> tuple[TensorFunction, TensorFunction]:
    """The part that computes the last feature map, and the part from there to the head's input.

    timm's backbones have both as methods. A conv stack is divided before its last max-pool. `conv_stacks` puts max-pool
    before ReLU; here the published order is restored, which computes the same.
    """
    if hasattr(features, "forward_features"):
        return features.forward_features, features.forward_head  # type: ignore[return-value]
    layers = list(features.children())
    if [type(layer) for layer in layers[-2:]] == [nn.MaxPool2d, nn.ReLU]:
        layers[-2:] = layers[:-3:-1]
    end = len(layers) - isinstance(layers[-1], nn.MaxPool2d)
    return nn.Sequential(*layers[:end]), nn.Sequential(*layers[end:])


def _last_map_layer(
    features: nn.Module, trunk: TensorFunction, score: TensorFunction, to_map: ToMap, inputs: Tensor
) -> nn.Module:
    """The last module of the trunk whose output is a map that the score depends on, with the last map's number of channels.

    A score that depends on the class token only does not depend on the patch tokens of the last block.
    """
    maps: list[tuple[nn.Module, Tensor, int]] = []

    def record(module: nn.Module, _: Any, output: Any) -> None:
        if isinstance(output, Tensor) and len(output) == len(inputs) and (as_map := to_map(output)) is not None:
            maps.append((module, output, as_map.shape[1]))

    hooks = [module.register_forward_hook(record) for module in features.modules()]
    try:
        trunk_output = trunk(inputs)
    finally:
        for hook in hooks:
            hook.remove()
    if not maps:
        raise FaceattrError("No Grad-CAM: in this network no layer's output has a height and width above 1.")
    channels = maps[-1][2]
    modules, outputs = zip(*((module, output) for module, output, width in maps if width == channels), strict=True)
    gradients = torch.autograd.grad(score(trunk_output).sum(), outputs, materialize_grads=True)
    used = [m for m, grad in zip(modules, map(to_map, gradients), strict=True) if grad is not None and grad.any()]
    return (used or modules)[-1]


def _to_map(output: Tensor, size: torch.Size, num_prefix_tokens: int) -> Tensor | None:
    """A layer's output as a map [B, C, h, w], from [B, C, h, w], [B, h, w, C] or [B, num_prefix_tokens + h·w, C].

    None if it has no height and width with about the aspect ratio of the image `size`. Not exactly that ratio, because
    sides are rounded, or reduced by convs without padding.
    """

    def fits(h: int, w: int) -> bool:
        return min(h, w) > 1 and abs(h * size[1] - w * size[0]) < sum(size)

    if output.ndim == 4:
        return output if fits(*output.shape[2:]) else output.permute(0, 3, 1, 2) if fits(*output.shape[1:3]) else None
    if output.ndim != 3 or output.shape[1] <= num_prefix_tokens:
        return None
    num_patches = output.shape[1] - num_prefix_tokens
    h = round((num_patches * size[0] / size[1]) ** 0.5) or 1
    w, remainder = divmod(num_patches, h)
    return output[:, num_prefix_tokens:].mT.unflatten(2, (h, w)) if not remainder and fits(h, w) else None


@contextmanager
def _eval_mode(network: nn.Module) -> Iterator[None]:
    """Eval mode with gradients enabled, also inside `no_grad` or `inference_mode`. Restores each module's mode at the end."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        with torch.inference_mode(False), torch.enable_grad():
            yield
    finally:
        for module, mode in modes:
            module.training = mode
