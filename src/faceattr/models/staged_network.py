"""The network that every model builds: `features`, then a head, as an ordered list of named stages.

Each parameter is in exactly one stage. The head is built here too; its layers are those of the published studies.
"""

import copy
import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.module import register_module_parameter_registration_hook

from faceattr.config.instantiate import group_settings, instantiate
from faceattr.config.schema import Head, Model
from faceattr.errors import FaceattrError
from faceattr.message_text import counted

FIXED = (nn.AdaptiveAvgPool2d, nn.Flatten)
"""Modules without weights and without randomness."""


class HeightNorm(nn.BatchNorm1d):
    """Batch norm with one mean and variance per row of [B, C, H, W], over images, channels and columns.

    Keras's `axis=1` does this to channels-last images. Nothing is copied in channels-last memory format.
    """

    def forward(self, x: Tensor) -> Tensor:
        rows = x.permute(0, 2, 3, 1)
        return super().forward(rows.flatten(2)).reshape(rows.shape).permute(0, 3, 1, 2)


class Network(nn.Module):
    """`features`, then `head`. Each parameter is in exactly one of the ordered stages; the last stage is `head`.

    stages: name of a module or parameter in `features` → its stage, in the order in which the stages run. A module's
        stage holds for all its submodules and parameters.
    image_size: [height, width] in pixels.
    head: the keys of `model.head`.
    published: library/name of the published weights for this architecture, if there are any.
    Raises FaceattrError: an image size that `features` does not accept.
    """

    def __init__(
        self, features: nn.Module, stages: dict, image_size: list, num_logits: int, head: dict, published: str = ""
    ) -> None:
        super().__init__()
        shape = _output_shape(features, image_size, published or "this model")
        self.features, self.head = features, build_head(shape, num_logits, Head(**head))
        self.image_size, self.published = tuple(image_size), published
        self._stage_by_name = {f"features.{name}": stage for name, stage in stages.items()} | {"head": "head"}
        self.stage_names = list(dict.fromkeys(self._stage_by_name.values()))

    def stage_of(self, qualified_name: str) -> str | None:
        """The stage of a parameter, buffer or submodule; None for an unknown name or a module with several stages."""
        name = qualified_name
        while name and name not in self._stage_by_name:
            name = name.rpartition(".")[0]
        return self._stage_by_name.get(name)

    def forward(self, x: Tensor, begin: int = 0, end: int | None = None) -> Tensor:
        """Images [B, 3, H, W] → logits [B, num_logits]. `begin` and `end` run `layer_names[begin:end]` only; `x` is then the
        input of the first of these layers."""
        if begin == 0 and end is None:
            return self.head(self.features(x))
        for name in self.layer_names[begin:end]:
            x = self.get_submodule(name)(x)
        return x

    @functools.cached_property
    def layer_names(self) -> tuple[str, ...]:
        """Names of modules that, run one after another, compute the same as the network.

        Features that are no `nn.Sequential` are one layer, unless a random image shows that their children, run one after
        another, compute the same.
        """
        names = tuple(f"features.{name}" for name in _flat_children(self.features))
        if not isinstance(self.features, nn.Sequential) and not self._is_sequential(names):
            names = ("features",)
        return (*names, *(f"head.{name}" for name, _ in self.head.named_children()))

    def _is_sequential(self, names: Sequence[str]) -> bool:
        """Whether the modules `names`, run one after another, compute the same as `features`."""
        if any(True for _ in self.features.parameters(recurse=False)):  # such as a class token or position embedding
            return False
        network = copy.deepcopy(self).eval()
        images = torch.rand(1, 3, *self.image_size, device=next(self.parameters()).device)
        with torch.inference_mode():
            expected, x = network.features(images), images
            try:
                for name in names:
                    x = network.get_submodule(name)(x)
            except Exception:  # modules in the wrong order fail with any kind of error
                return False
        return torch.equal(x, expected)

    def num_constant_layers(self, first_trainable_stage: int) -> int:
        """How many layers at the start of `layer_names` have a constant output while the stages from
        `first_trainable_stage` on are trained: the frozen stages, and pooling without weights at the start of the head.
        """
        if first_trainable_stage == 0:
            return 0
        return next(
            position
            for position, name in enumerate(self.layer_names)  # the last one, the output layer, is always trained
            if self._last_stage(name) >= first_trainable_stage and not isinstance(self.get_submodule(name), FIXED)
        )

    def _last_stage(self, layer_name: str) -> int:
        """Index of the last stage that the layer has a part in."""
        prefix = f"{layer_name}."
        stages = [stage for name, stage in self._stage_by_name.items() if f"{name}.".startswith(prefix)]
        # the modules of the head have no entry of their own
        return max((self.stage_names.index(stage) for stage in stages), default=len(self.stage_names) - 1)


@contextmanager
def limited_parameters(limit: int) -> Iterator[None]:
    """Raises FaceattrError as soon as the modules built in this context have more than `limit` parameters in total.

    A parameter is counted before its initialisation, so a huge network is refused before it takes much memory.
    """
    total = 0

    def count(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        nonlocal total
        total += parameter.numel() if parameter is not None else 0
        if total > limit:
            raise FaceattrError(
                f"This network has more than {limit:,} parameters. Make it smaller (model.blocks, model.head.hidden), or "
                f"increase the limit: model.max_parameters={10 * limit}"
            )

    hook = register_module_parameter_registration_hook(count)
    try:
        yield
    except RuntimeError as error:
        if not re.search("allocate memory|not enough memory", str(error)):  # as Linux and Windows have it
            raise
        raise FaceattrError(
            "This network does not fit into memory: make model.blocks or model.head.hidden smaller."
        ) from error
    finally:
        hook.remove()


def build_network(model: Mapping[str, Any], num_logits: int) -> Network:
    """The network that the config group `model` describes (plain containers, `_target_` names a function); random weights."""
    settings = group_settings(model, Model)
    with limited_parameters(settings.max_parameters):
        network: Network = instantiate(model, "model", num_logits=num_logits)
    for layer in network.modules():
        if isinstance(layer, _BatchNorm):
            layer.momentum = layer.momentum if settings.bn_momentum is None else settings.bn_momentum
            layer.eps = layer.eps if settings.bn_eps is None else settings.bn_eps
    return network


def _flat_children(module: nn.Module, prefix: str = "") -> Iterator[str]:
    """Names of the children; an `nn.Sequential` is replaced by its own children."""
    for name, child in module.named_children():
        if isinstance(child, nn.Sequential) and len(child):
            yield from _flat_children(child, f"{prefix}{name}.")
        else:
            yield prefix + name


def build_head(shape: Sequence[int], num_logits: int, keys: Head) -> nn.Sequential:
    """Pooling, hidden layers (each: linear, ReLU, batch norm, dropout, as in the studies) and the output layer `out`.

    `shape` is the shape of the features without the batch: [C, H, W], or [C] if they are pooled. Weights are initialised as
    in Keras: Glorot uniform, zero bias. Raises FaceattrError: the number of dropout rates is not that of hidden layers.
    """
    rates = [keys.dropout] * len(keys.hidden) if isinstance(keys.dropout, int | float) else keys.dropout
    if len(rates) != len(keys.hidden):
        expected = f"one rate, or one for each of {counted(len(keys.hidden), 'hidden layer')}"
        raise FaceattrError(f"model.head.dropout={rates}: {expected}")
    head = nn.Sequential()
    if len(shape) == 3:
        if keys.pool == "avg":
            head.add_module("pool", nn.AdaptiveAvgPool2d(keys.pool_size))
            shape = (shape[0], keys.pool_size, keys.pool_size)
        head.add_module("flatten", nn.Flatten())
    if keys.input_dropout:
        head.add_module("drop0", nn.Dropout(keys.input_dropout))
    width = torch.Size(shape).numel()
    for number, (units, rate) in enumerate(zip(keys.hidden, rates, strict=True), 1):
        head.add_module(f"fc{number}", nn.Linear(width, units))
        head.add_module(f"relu{number}", nn.ReLU(inplace=True))
        if keys.batch_norm:
            head.add_module(f"norm{number}", nn.BatchNorm1d(units))
        if rate:
            head.add_module(f"drop{number}", nn.Dropout(rate))
        width = units
    head.add_module("out", nn.Linear(width, num_logits))
    initialise(head, "glorot")
    return head


def initialise(module: nn.Module, init: str) -> None:
    """Sets the weights of convs and linear layers to random values (`he`: He normal, else Glorot uniform), biases to 0."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            if init == "he":
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            else:
                nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]


def _output_shape(module: nn.Module, image_size: Sequence[int], name: str) -> Sequence[int]:
    """The shape of `module`'s output without the batch. Runs on the meta device: no values are computed or changed.

    Raises FaceattrError: an image size that is invalid, or that the module does not accept.
    """
    if len(image_size) != 2 or min(image_size) < 1:
        raise FaceattrError(f"model.image_size={image_size} must be [height, width] in pixels")
    tensors = {key: t.to("meta") for named in (module.named_parameters(), module.named_buffers()) for key, t in named}
    try:
        with torch.no_grad():
            images = torch.empty(2, 3, *image_size, device="meta")
            return torch.func.functional_call(module, tensors, (images,)).shape[1:]
    except Exception as error:  # architectures raise many kinds of errors for a size
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise FaceattrError(f"{name} does not run on model.image_size={list(image_size)}: {reason}") from error
