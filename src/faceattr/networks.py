"""Networks as ordered, named stages: the base, its head, and conv stacks (small CNNs, VGG16, AlexNet). Builders take the
plain keys of `conf/model/*.yaml`, `image_size` as [height, width] and the number of `outputs`. The layers of a conv stack
are numbered as in torchvision's `features`, so that its weights fit by name.
"""

import copy
import functools
import inspect
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from faceattr.errors import FaceattrError

FIXED = (nn.AdaptiveAvgPool2d, nn.Flatten)
"""Modules without weights or chance."""


class HeightNorm(nn.BatchNorm1d):
    """Batch norm of each row of [B, C, H, W] over images, columns and channels: what Keras's `axis=1` does to
    channels-last images. In that memory layout nothing is copied."""

    def forward(self, x: Tensor) -> Tensor:
        rows = x.permute(0, 2, 3, 1)
        return super().forward(rows.flatten(2)).reshape(rows.shape).permute(0, 3, 1, 2)


class Network(nn.Module):
    """`features`, then `head`; every parameter is in exactly one of the ordered stages, the last of which is `head`.

    `stages` gives the stage of names inside `features` (a module's name covers what lies below it), in the order in
    which the stages run. `head` holds the keys of `model.head`. `published` is library/name of weights for this
    architecture. Raises FaceattrError: an image size that the features cannot take, an unknown head key.
    """

    def __init__(
        self, features: nn.Module, stages: dict, image_size: list, outputs: int, head: dict, published: str = ""
    ) -> None:
        super().__init__()
        keys = list(inspect.signature(build_head).parameters)[2:]
        unknown = [str(key) for key in head if key not in keys]
        if unknown:
            raise FaceattrError(f"model.head has no key {', '.join(unknown)}; its keys: {', '.join(keys)}")
        shape = _output_shape(features, image_size, published or "this model")
        self.features, self.head = features, build_head(shape, outputs, **head)
        self.image_size, self.published = tuple(image_size), published
        self._stage_by_name = {f"features.{name}": stage for name, stage in stages.items()} | {"head": "head"}
        self.stage_names = list(dict.fromkeys(self._stage_by_name.values()))

    def stage_of(self, qualified_name: str) -> str | None:
        """The stage of a parameter, buffer or submodule; None for a module that spans several, or an unknown name."""
        name = qualified_name
        while name and name not in self._stage_by_name:
            name = name.rpartition(".")[0]
        return self._stage_by_name.get(name)

    def forward(self, x: Tensor, begin: int = 0, end: int | None = None) -> Tensor:
        """Images [B, 3, H, W] → logits [B, outputs]; or only what `chain[begin:end]` does, on that part's own input."""
        if begin == 0 and end is None:
            return self.head(self.features(x))
        for name in self.chain[begin:end]:
            x = self.get_submodule(name)(x)
        return x

    @functools.cached_property
    def chain(self) -> tuple[str, ...]:
        """Names of modules that are this network when they run one after another: where it can be cut.

        A backbone that is no `nn.Sequential` counts as a chain of its children if an image shows that it is one.
        """
        names = tuple(f"features.{name}" for name in _links(self.features))
        if not isinstance(self.features, nn.Sequential) and not self._is_chain(names):
            names = ("features",)
        return (*names, *(f"head.{name}" for name, _ in self.head.named_children()))

    def _is_chain(self, names: Sequence[str]) -> bool:
        if any(True for _ in self.features.parameters(recurse=False)):  # a class token, a position embedding
            return False
        alone = copy.deepcopy(self).eval()
        images = torch.rand(1, 3, *self.image_size, device=next(self.parameters()).device)
        with torch.inference_mode():
            expected, x = alone.features(images), images
            try:
                for name in names:
                    x = alone.get_submodule(name)(x)
            except Exception:  # a child that is not called in this order fails in its own way
                return False
        return torch.equal(x, expected)

    def cut(self, start: int) -> int:
        """How many modules at the front of `chain` compute the same in every epoch while the stages from `start` on train.

        That is more than the frozen stages: the pooling in the head learns nothing either.
        """
        for position, name in enumerate(self.chain):
            inside = [
                self.stage_names.index(s) for n, s in self._stage_by_name.items() if f"{n}.".startswith(f"{name}.")
            ]
            last = max(inside, default=len(self.stage_names) - 1)  # the head's modules have no entry of their own
            if last >= start and not (start > 0 and isinstance(self.get_submodule(name), FIXED)):
                return position
        return len(self.chain)


def _links(module: nn.Module, prefix: str = "") -> Iterator[str]:
    """Names of the children, with those of an `nn.Sequential` in its place."""
    for name, child in module.named_children():
        if isinstance(child, nn.Sequential) and len(child):
            yield from _links(child, f"{prefix}{name}.")
        else:
            yield prefix + name


def cnn(
    *,
    image_size: list,
    outputs: int,
    head: dict,
    blocks: list,
    padding: str = "same",
    norm: str | None = None,
    norm_over: str = "channels",
    init: str = "he",
    pretrained_weights: str | None = None,
) -> Network:
    """A plain stack: blocks of 3x3 convs (their output channels are listed), each block ending in a 2x2 max-pool.

    `norm` puts batch norm `before_relu`, `after_relu` or nowhere, `norm_over` channels or height (`HeightNorm`); `init` is
    `he` or Keras's `glorot`.
    `pretrained_weights` names torchvision's weights for the same stack (`VGG16_Weights.IMAGENET1K_V1`).
    """
    _choice("model.padding", padding, ("same", "valid"))
    _choice("model.norm", norm, (None, "before_relu", "after_relu"))
    _choice("model.norm_over", norm_over, ("channels", "height"))
    if not blocks or not all(isinstance(block, Sequence) and block for block in blocks):
        raise FaceattrError(f"model.blocks={blocks} must list each block's conv channels, such as [[32], [64, 64]]")
    channels, rows, layers = 3, image_size[0], []
    for block in blocks:
        convs = []
        for width in block:
            rows -= 0 if padding == "same" else 2
            over = rows if norm_over == "height" else None
            convs += _conv(channels, width, padding=1 if padding == "same" else 0, norm=norm, rows=over)
            channels = width
        layers.append([*convs, nn.MaxPool2d(2)])
        rows //= 2
    return _stacked(layers, init, pretrained_weights, image_size=image_size, outputs=outputs, head=head)


def alexnet(*, image_size: list, outputs: int, head: dict) -> Network:
    """AlexNet as in study S1: batch norm after each ReLU, the second conv 11x11, no pool after convs 2 to 4."""
    layers = [
        [*_conv(3, 96, kernel=11, stride=4, padding=0, norm="after_relu"), nn.MaxPool2d(2)],
        _conv(96, 256, kernel=11, padding=5, norm="after_relu"),
        _conv(256, 384, norm="after_relu"),
        _conv(384, 384, norm="after_relu"),
        [*_conv(384, 256, norm="after_relu"), nn.MaxPool2d(2)],
    ]
    return _stacked(layers, "glorot", image_size=image_size, outputs=outputs, head=head)


def alexnet_imagenet(
    *, image_size: list, outputs: int, head: dict, pretrained_weights: str = "AlexNet_Weights.IMAGENET1K_V1"
) -> Network:
    """The conv part of torchvision's AlexNet, layer for layer; a stage per conv."""
    layers = [
        [*_conv(3, 64, kernel=11, stride=4, padding=2), nn.MaxPool2d(3, 2)],
        [*_conv(64, 192, kernel=5, padding=2), nn.MaxPool2d(3, 2)],
        _conv(192, 384),
        _conv(384, 256),
        [*_conv(256, 256), nn.MaxPool2d(3, 2)],
    ]
    return _stacked(layers, "he", pretrained_weights, image_size=image_size, outputs=outputs, head=head)


def _conv(
    channels: int,
    width: int,
    *,
    kernel: int = 3,
    stride: int = 1,
    padding: int = 1,
    norm: str | None = None,
    rows: int | None = None,
) -> list[nn.Module]:
    """Conv, ReLU and, where `norm` has it, batch norm: over channels, or over height where the output's `rows` are given."""
    conv, relu = nn.Conv2d(channels, width, kernel, stride, padding), nn.ReLU(inplace=True)
    if norm is None:
        return [conv, relu]
    normed: nn.Module = nn.BatchNorm2d(width) if rows is None else HeightNorm(rows)
    return [conv, normed, relu] if norm == "before_relu" else [conv, relu, normed]


def _stacked(blocks: list[list[nn.Module]], init: str, published: str | None = None, **keys: Any) -> Network:
    """Blocks of layers → a network with stages block1, …; layers are numbered on through the blocks.

    Where ReLU meets max-pool the two change places: equal in value, a fraction of the work.
    """
    _choice("model.init", init, ("he", "glorot"))
    for block in blocks:
        if isinstance(block[-1], nn.MaxPool2d) and isinstance(block[-2], nn.ReLU):
            block[-2:] = block[-1], block[-2]
    numbered = [(f"block{number}", layer) for number, block in enumerate(blocks, 1) for layer in block]
    features = nn.Sequential(*(layer for _, layer in numbered))
    _initialise(features, init)
    stages = {str(index): stage for index, (stage, _) in enumerate(numbered)}
    return Network(features, stages, published=f"torchvision/{published}" if published else "", **keys)


def build_head(
    shape: Sequence[int],
    outputs: int,
    *,
    pool: str = "avg",
    pool_size: int = 1,
    hidden: Sequence[int] = (),
    batch_norm: bool = False,
    dropout: float | Sequence[float] = 0.0,
    input_dropout: float = 0.0,
) -> nn.Sequential:
    """Pool, hidden layers (linear, ReLU, batch norm, dropout, in the studies' order) and the output layer `out`.

    `shape` is that of the features without the batch: [C, H, W], or [C] where they are pooled already. `pool` is
    `avg` (to `pool_size` x `pool_size`) or `flatten`; `dropout` one rate or one per hidden layer, `input_dropout` acts
    before the first layer. Weights start as in Keras (Glorot uniform, zero bias).
    """
    _choice("model.head.pool", pool, ("avg", "flatten"))
    if isinstance(hidden, int):
        raise FaceattrError(f"model.head.hidden={hidden} must be a list, such as [{hidden}]")
    rates = [dropout] * len(hidden) if isinstance(dropout, int | float) else dropout
    if len(rates) != len(hidden):
        raise FaceattrError(f"model.head.dropout={rates}: one rate, or one for each of the {len(hidden)} hidden layers")
    head = nn.Sequential()
    if len(shape) == 3:
        if pool == "avg":
            head.add_module("pool", nn.AdaptiveAvgPool2d(pool_size))
            shape = (shape[0], pool_size, pool_size)
        head.add_module("flatten", nn.Flatten())
    if input_dropout:
        head.add_module("drop0", nn.Dropout(input_dropout))
    width = torch.Size(shape).numel()
    for number, (units, rate) in enumerate(zip(hidden, rates, strict=True), 1):
        head.add_module(f"fc{number}", nn.Linear(width, units))
        head.add_module(f"relu{number}", nn.ReLU(inplace=True))
        if batch_norm:
            head.add_module(f"norm{number}", nn.BatchNorm1d(units))
        if rate:
            head.add_module(f"drop{number}", nn.Dropout(rate))
        width = units
    head.add_module("out", nn.Linear(width, outputs))
    _initialise(head, "glorot")
    return head


def _initialise(module: nn.Module, init: str) -> None:
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            if init == "he":
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            else:
                nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]


def _output_shape(module: nn.Module, image_size: Sequence[int], name: str) -> Sequence[int]:
    """The shape of `module`'s output without the batch, found on the meta device: nothing is computed or changed."""
    if len(image_size) != 2 or min(image_size) < 1:
        raise FaceattrError(f"model.image_size={image_size} must be [height, width] in pixels")
    tensors = {key: t.to("meta") for named in (module.named_parameters(), module.named_buffers()) for key, t in named}
    try:
        with torch.no_grad():
            images = torch.empty(2, 3, *image_size, device="meta")
            return torch.func.functional_call(module, tensors, (images,)).shape[1:]
    except Exception as error:  # each architecture has its own way to refuse a size
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise FaceattrError(f"{name} does not run on model.image_size={list(image_size)}: {reason}") from error


def _choice(key: str, value: str | None, choices: Sequence[str | None]) -> None:
    if value not in choices:
        raise FaceattrError(f"{key}={value} must be one of {', '.join(str(c or 'null') for c in choices)}")
