"""Conv stacks as networks: small CNNs, VGG16, AlexNet.

The functions take the keys of `conf/model/*.yaml` and `num_logits`; `image_size` is [height, width]. Layers are numbered as
in torchvision's `features`, so that its weights match by name.
"""

from typing import Annotated, Any

from torch import nn

from faceattr.config.key_annotation import Key
from faceattr.errors import FaceattrError
from faceattr.models.staged_network import HeightNorm, Network, initialise

PublishedWeights = Annotated[
    str | None,
    Key("torchvision's weights for this stack; VGG16_Weights.IMAGENET1K_FEATURES needs model.scaling=caffe."),
]


def cnn(
    *,
    image_size: list,
    num_logits: int,
    head: dict,
    blocks: Annotated[
        list[list[int]],
        Key("Output channels of each block's 3x3 convs; a block ends in a 2x2 max-pool.", minimum=1, maximum=4096),
    ],
    padding: Annotated[str, Key("Padding of the convs.", choices=("same", "valid"))] = "same",
    norm: Annotated[
        str | None, Key("Batch norm before or after each ReLU; null: none.", choices=("before_relu", "after_relu"))
    ] = None,
    norm_over: Annotated[
        str,
        Key("Batch norm over channels, or over height (Keras's axis=1, study S4).", choices=("channels", "height")),
    ] = "channels",
    init: Annotated[
        str, Key("Initial weights of the convs: He normal, or Keras's Glorot uniform.", choices=("he", "glorot"))
    ] = "he",
    pretrained_weights: PublishedWeights = None,
) -> Network:
    """A plain stack of blocks: 3x3 convs, then a 2x2 max-pool."""
    if not blocks or not all(blocks):
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
    return _stacked(layers, init, pretrained_weights, image_size=image_size, num_logits=num_logits, head=head)


def alexnet(*, image_size: list, num_logits: int, head: dict) -> Network:
    """AlexNet as in study S1: batch norm after each ReLU, the second conv 11x11, no pool after convs 2 to 4."""
    layers = [
        [*_conv(3, 96, kernel=11, stride=4, padding=0, norm="after_relu"), nn.MaxPool2d(2)],
        _conv(96, 256, kernel=11, padding=5, norm="after_relu"),
        _conv(256, 384, norm="after_relu"),
        _conv(384, 384, norm="after_relu"),
        [*_conv(384, 256, norm="after_relu"), nn.MaxPool2d(2)],
    ]
    return _stacked(layers, "glorot", image_size=image_size, num_logits=num_logits, head=head)


def alexnet_imagenet(
    *,
    image_size: list,
    num_logits: int,
    head: dict,
    pretrained_weights: PublishedWeights = "AlexNet_Weights.IMAGENET1K_V1",
) -> Network:
    """The conv part of torchvision's AlexNet, layer for layer; a stage per conv."""
    layers = [
        [*_conv(3, 64, kernel=11, stride=4, padding=2), nn.MaxPool2d(3, 2)],
        [*_conv(64, 192, kernel=5, padding=2), nn.MaxPool2d(3, 2)],
        _conv(192, 384),
        _conv(384, 256),
        [*_conv(256, 256), nn.MaxPool2d(3, 2)],
    ]
    return _stacked(layers, "he", pretrained_weights, image_size=image_size, num_logits=num_logits, head=head)


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
    """Conv, ReLU and, with `norm`, batch norm: over channels, or over height if the output's `rows` are given."""
    conv, relu = nn.Conv2d(channels, width, kernel, stride, padding), nn.ReLU(inplace=True)
    if norm is None:
        return [conv, relu]
    normed: nn.Module = nn.BatchNorm2d(width) if rows is None else HeightNorm(rows)
    return [conv, normed, relu] if norm == "before_relu" else [conv, relu, normed]


def _stacked(blocks: list[list[nn.Module]], init: str, published: str | None = None, **keys: Any) -> Network:
    """A network of blocks of layers, with the stages block1, block2, …; layers are numbered across blocks.

    A ReLU before a max-pool is moved behind it: the values are the same, and ReLU has fewer values to compute.
    """
    for block in blocks:
        if isinstance(block[-1], nn.MaxPool2d) and isinstance(block[-2], nn.ReLU):
            block[-2:] = block[-1], block[-2]
    numbered = [(f"block{number}", layer) for number, block in enumerate(blocks, 1) for layer in block]
    features = nn.Sequential(*(layer for _, layer in numbered))
    initialise(features, init)
    stages = {str(index): stage for index, (stage, _) in enumerate(numbered)}
    return Network(features, stages, published=f"torchvision/{published}" if published else "", **keys)
