"""A network is `features`, then a head: an ordered list of named stages, each parameter in exactly one of them."""

import copy
import functools
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
    architecture. Raises FaceattrError: an image size that the features cannot take.
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
        """The stage of a parameter, buffer or submodule; None for a module that spans several, or an unknown name."""
        name = qualified_name
        while name and name not in self._stage_by_name:
            name = name.rpartition(".")[0]
        return self._stage_by_name.get(name)

    def forward(self, x: Tensor, begin: int = 0, end: int | None = None) -> Tensor:
        """Images [B, 3, H, W] → logits [B, num_logits]; or only what `layer_names[begin:end]` does, on that part's own input."""
        if begin == 0 and end is None:
            return self.head(self.features(x))
        for name in self.layer_names[begin:end]:
            x = self.get_submodule(name)(x)
        return x

    @functools.cached_property
    def layer_names(self) -> tuple[str, ...]:
        """Names of modules that are this network when they run one after another: where it can be cut.

        A backbone that is no `nn.Sequential` counts as a chain of its children if an image shows that it is one.
        """
        names = tuple(f"features.{name}" for name in _flat_children(self.features))
        if not isinstance(self.features, nn.Sequential) and not self._is_sequential(names):
            names = ("features",)
        return (*names, *(f"head.{name}" for name, _ in self.head.named_children()))

    def _is_sequential(self, names: Sequence[str]) -> bool:
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

    def num_constant_layers(self, first_trainable_stage: int) -> int:
        """How many modules at the front of `layer_names` compute the same in every epoch while the stages from
        `first_trainable_stage` on train.

        That is more than the frozen stages: the pooling in the head learns nothing either.
        """
        for position, name in enumerate(self.layer_names):
            inside = [
                self.stage_names.index(s) for n, s in self._stage_by_name.items() if f"{n}.".startswith(f"{name}.")
            ]
            last = max(inside, default=len(self.stage_names) - 1)  # the head's modules have no entry of their own
            if last >= first_trainable_stage and not (
                first_trainable_stage > 0 and isinstance(self.get_submodule(name), FIXED)
            ):
                return position
        return len(self.layer_names)


@contextmanager
def limited_parameters(limit: int) -> Iterator[None]:
    """Raises FaceattrError as soon as the modules built inside have more than `limit` parameters: before they are
    initialised, so that little memory is taken."""
    total = 0

    def count(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        nonlocal total
        total += parameter.numel() if parameter is not None else 0
        if total > limit:
            raise FaceattrError(
                f"This network has more than {limit:,} parameters. Make it smaller (model.blocks, model.head.hidden), or "
                f"raise the limit: model.max_parameters={10 * limit}"
            )

    hook = register_module_parameter_registration_hook(count)
    try:
        yield
    except RuntimeError as error:
        if "allocate memory" not in str(error):
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
    """Names of the children, with those of an `nn.Sequential` in its place."""
    for name, child in module.named_children():
        if isinstance(child, nn.Sequential) and len(child):
            yield from _flat_children(child, f"{prefix}{name}.")
        else:
            yield prefix + name


def build_head(shape: Sequence[int], num_logits: int, keys: Head) -> nn.Sequential:
    """Pool, hidden layers (linear, ReLU, batch norm, dropout, in the studies' order) and the output layer `out`.

    `shape` is that of the features without the batch: [C, H, W], or [C] where they are pooled already. Weights start as in
    Keras (Glorot uniform, zero bias). Raises FaceattrError: as many dropout rates as hidden layers, or one.
    """
    rates = [keys.dropout] * len(keys.hidden) if isinstance(keys.dropout, int | float) else keys.dropout
    if len(rates) != len(keys.hidden):
        expected = f"one rate, or one for each of the {len(keys.hidden)} hidden layers"
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
