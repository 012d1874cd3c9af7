"""Networks as ordered, named stages: the base, its head, and conv stacks (small CNNs, VGG16, AlexNet).

Builders take the plain keys of `conf/model/*.yaml`, `image_size` as [height, width] and the number of `outputs`. The
layers of a conv stack are numbered as in torchvision's `features`, so that its weights fit by name. Totals of the
studies' networks are tested against the published ones.
"""

import inspect
from collections.abc import Iterator, Sequence
from itertools import chain

import torch
from torch import Tensor, nn

from faceattr.errors import FaceattrError


class Network(nn.Module):
    """`features`, then `head`; every parameter is in exactly one of the ordered stages, the last of which is `head`.

    `stages` gives the stage of names inside `features` (a module's name covers what lies below it), in the order in
    which the stages run. `published` says where weights for this architecture come from (see weights.py).
    """

    def __init__(
        self,
        features: nn.Module,
        head: nn.Module,
        stages: dict[str, str],
        image_size: Sequence[int],
        published: str | None = None,
    ) -> None:
        super().__init__()
        self.features = features
        self.head = head
        self.image_size = tuple(image_size)
        self.published = published
        self._stage_by_name = {f"features.{name}": stage for name, stage in stages.items()} | {"head": "head"}
        self.stage_names = list(dict.fromkeys(self._stage_by_name.values()))

    def stage_of(self, qualified_name: str) -> str | None:
        """The stage of a parameter, buffer or submodule; None for a module that spans several, or an unknown name."""
        name = qualified_name
        while name and name not in self._stage_by_name:
            name = name.rpartition(".")[0]
        return self._stage_by_name.get(name)

    @property
    def stages(self) -> dict[str, dict[str, nn.Parameter]]:
        """Stage → its parameters by qualified name, in order."""
        stages: dict[str, dict[str, nn.Parameter]] = {stage: {} for stage in self.stage_names}
        for name, parameter in self.named_parameters():
            stage = self.stage_of(name)
            assert stage is not None, f"{name} is in no stage"
            stages[stage][name] = parameter
        return stages

    def forward(self, x: Tensor) -> Tensor:
        """Images [B, 3, H, W] → logits [B, outputs]."""
        logits: Tensor = self.head(self.features(x))
        return logits

    def forward_until(self, stage: str, x: Tensor) -> Tensor:
        """Runs the stages before `stage`: what may be kept while they are frozen."""
        for module in self._cut(stage)[0]:
            x = module(x)
        return x

    def forward_from(self, stage: str, x: Tensor) -> Tensor:
        """Runs `stage` and all after it on the output of `forward_until(stage, ...)`; gives the logits."""
        for module in self._cut(stage)[1]:
            x = module(x)
        return x

    def _cut(self, stage: str) -> tuple[list[nn.Module], list[nn.Module]]:
        if stage not in self.stage_names:
            raise FaceattrError(f"Unknown stage {stage!r}; this network's stages: {', '.join(self.stage_names)}")
        steps: list[tuple[str | None, nn.Module]] = [(self.stage_names[0], self.features)]
        if isinstance(self.features, nn.Sequential):
            steps = [(self.stage_of(f"features.{name}"), module) for name, module in self.features.named_children()]
        elif stage not in (self.stage_names[0], "head"):
            raise FaceattrError(f"A timm backbone runs as a whole: it can be cut at head, not at {stage!r}")
        before = self.stage_names[: self.stage_names.index(stage)]
        steps.append(("head", self.head))
        return [m for name, m in steps if name in before], [m for name, m in steps if name not in before]


class Head(nn.Sequential):
    """Pool, hidden layers (linear, ReLU, batch norm, dropout, in the studies' order) and the output layer.

    `shape` is that of the features without the batch: [C, H, W], or [C] where they are pooled already. `pool` is
    `avg` (to `pool_size` x `pool_size`) or `flatten`; `dropout` one rate or one per hidden layer, `input_dropout` acts
    before the first layer. Weights start as in Keras (Glorot uniform, zero bias).
    """

    def __init__(
        self,
        shape: Sequence[int],
        outputs: int,
        *,
        pool: str = "avg",
        pool_size: int = 1,
        hidden: Sequence[int] = (),
        batch_norm: bool = False,
        dropout: float | Sequence[float] = 0.0,
        input_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        _choice("model.head.pool", pool, ("avg", "flatten"))
        if isinstance(hidden, int):
            raise FaceattrError(f"model.head.hidden={hidden} must be a list, such as [{hidden}]")
        rates = [float(dropout)] * len(hidden) if isinstance(dropout, int | float) else list(dropout)
        if len(rates) != len(hidden):
            raise FaceattrError(
                f"model.head.dropout={rates} needs one rate, or one for each of the {len(hidden)} hidden layers"
            )
        if len(shape) == 3:
            if pool == "avg":
                self.add_module("pool", nn.AdaptiveAvgPool2d(pool_size))
                shape = (shape[0], pool_size, pool_size)
            self.add_module("flatten", nn.Flatten())
        self._add_dropout("drop0", input_dropout)
        width = torch.Size(shape).numel()
        for number, (units, rate) in enumerate(zip(hidden, rates, strict=True), 1):
            self.add_module(f"fc{number}", nn.Linear(width, units))
            self.add_module(f"relu{number}", nn.ReLU(inplace=True))
            if batch_norm:
                self.add_module(f"norm{number}", nn.BatchNorm1d(units))
            self._add_dropout(f"drop{number}", rate)
            width = units
        self.add_module("out", nn.Linear(width, outputs))
        _initialise(self, "glorot")

    def _add_dropout(self, name: str, rate: float) -> None:
        if not 0 <= rate < 1:
            raise FaceattrError(f"model.head: a dropout rate lies in [0, 1), not {rate}")
        if rate:
            self.add_module(name, nn.Dropout(rate))


def cnn(
    *,
    image_size: list,
    outputs: int,
    head: dict,
    blocks: list,
    padding: str = "same",
    norm: str | None = None,
    init: str = "he",
    pretrained_weights: str | None = None,
) -> Network:
    """A plain stack: blocks of 3x3 convs (their output channels are listed), each block ending in a 2x2 max-pool.

    `norm` puts batch norm `before_relu`, `after_relu` or nowhere; `init` is `he` or Keras's `glorot`.
    `pretrained_weights` names torchvision's weights for the same stack (`VGG16_Weights.IMAGENET1K_V1`).
    """
    _choice("model.padding", padding, ("same", "valid"))
    _choice("model.norm", norm, (None, "before_relu", "after_relu"))
    if not blocks or not all(isinstance(block, Sequence) and block for block in blocks):
        raise FaceattrError(f"model.blocks={blocks} must list each block's conv channels, such as [[32], [64, 64]]")
    channels, layers = 3, list[list[nn.Module]]()
    for block in blocks:
        layers.append([])
        for width in block:
            layers[-1] += _conv(channels, width, padding=padding, norm=norm)
            channels = width
        layers[-1].append(nn.MaxPool2d(2))
    return _stacked(layers, image_size, outputs, head, init, pretrained_weights)


def alexnet(*, image_size: list, outputs: int, head: dict) -> Network:
    """AlexNet as in study S1: batch norm after each ReLU, the second conv 11x11, no pool after convs 2 to 4."""
    layers = [
        [*_conv(3, 96, kernel=11, stride=4, padding="valid", norm="after_relu"), nn.MaxPool2d(2)],
        _conv(96, 256, kernel=11, norm="after_relu"),
        _conv(256, 384, norm="after_relu"),
        _conv(384, 384, norm="after_relu"),
        [*_conv(384, 256, norm="after_relu"), nn.MaxPool2d(2)],
    ]
    return _stacked(layers, image_size, outputs, head, "glorot")


def alexnet_imagenet(
    *, image_size: list, outputs: int, head: dict, pretrained_weights: str = "AlexNet_Weights.IMAGENET1K_V1"
) -> Network:
    """The conv part of torchvision's AlexNet, layer for layer; a stage per conv."""
    first = nn.Conv2d(3, 64, 11, stride=4, padding=2)
    layers = [
        [first, nn.ReLU(inplace=True), nn.MaxPool2d(3, 2)],
        [*_conv(64, 192, kernel=5), nn.MaxPool2d(3, 2)],
        _conv(192, 384),
        _conv(384, 256),
        [*_conv(256, 256), nn.MaxPool2d(3, 2)],
    ]
    return _stacked(layers, image_size, outputs, head, "he", pretrained_weights)


def _conv(
    channels: int, width: int, *, kernel: int = 3, stride: int = 1, padding: str = "same", norm: str | None = None
) -> list[nn.Module]:
    # no strided "same" conv occurs in the studies, so k // 2 on both sides is what Keras does
    conv = nn.Conv2d(channels, width, kernel, stride, padding=kernel // 2 if padding == "same" else 0)
    relu = nn.ReLU(inplace=True)
    if norm is None:
        return [conv, relu]
    batch_norm = nn.BatchNorm2d(width)
    return [conv, batch_norm, relu] if norm == "before_relu" else [conv, relu, batch_norm]


def _stacked(
    blocks: list[list[nn.Module]],
    image_size: Sequence[int],
    outputs: int,
    head: dict,
    init: str,
    pretrained_weights: str | None = None,
) -> Network:
    """Blocks of layers → a network with stages block1, …; layers are numbered on through the blocks.

    Where ReLU meets max-pool the two change places (and keep their numbers): equal in value, a fraction of the work.
    """
    _choice("model.init", init, ("he", "glorot"))
    features, stages = nn.Sequential(), dict[str, str]()
    for number, block in enumerate(blocks, 1):
        layers = [(str(len(stages) + i), layer) for i, layer in enumerate(block)]
        if isinstance(block[-1], nn.MaxPool2d) and isinstance(block[-2], nn.ReLU):
            layers[-2:] = layers[-1], layers[-2]
        for name, layer in layers:
            features.add_module(name, layer)
            stages[name] = f"block{number}"
    _initialise(features, init)
    shape = _stack_shape(features, image_size, len(blocks))
    published = pretrained_weights and f"torchvision/{pretrained_weights}"
    return Network(features, build_head(shape, outputs, head), stages, image_size, published)


def _initialise(module: nn.Module, init: str) -> None:
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            if init == "he":
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            else:
                nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def build_head(shape: Sequence[int], outputs: int, head: dict) -> Head:
    keys = [name for name, p in inspect.signature(Head).parameters.items() if p.kind is p.KEYWORD_ONLY]
    unknown = [key for key in head if key not in keys]
    if unknown:
        raise FaceattrError(f"model.head has no key {', '.join(map(str, unknown))}; its keys: {', '.join(keys)}")
    return Head(shape, outputs, **head)


def _stack_shape(features: nn.Sequential, image_size: Sequence[int], blocks: int) -> Sequence[int]:
    try:
        return output_shape(features, image_size)
    except RuntimeError as error:
        smallest = next(side for side in range(1, 2048) if _fits(features, side))
        raise FaceattrError(
            f"model.image_size={list(image_size)} is too small for this model's {blocks} blocks: "
            f"both sides need at least {smallest} pixels"
        ) from error


def _fits(features: nn.Sequential, side: int) -> bool:
    try:
        return bool(output_shape(features, (side, side)))
    except RuntimeError:
        return False


def output_shape(module: nn.Module, image_size: Sequence[int]) -> Sequence[int]:
    """The shape of `module`'s output without the batch, found on the meta device: nothing is computed or changed."""
    if len(image_size) != 2 or not all(isinstance(side, int) and side > 0 for side in image_size):
        raise FaceattrError(f"model.image_size={image_size} must be [height, width] in pixels")
    tensors = {name: tensor.to("meta") for name, tensor in _tensors(module)}
    with torch.no_grad():
        images = torch.empty(2, 3, *image_size, device="meta")
        shape: torch.Size = torch.func.functional_call(module, tensors, (images,)).shape[1:]
    return shape


def _tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    return chain(module.named_parameters(), module.named_buffers())


def _choice(key: str, value: str | None, choices: Sequence[str | None]) -> None:
    if value not in choices:
        raise FaceattrError(f"{key}={value} must be one of {', '.join(str(c or 'null') for c in choices)}")
