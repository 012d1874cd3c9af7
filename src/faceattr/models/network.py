"""A network is `features`, then a head: an ordered list of named stages, each parameter in exactly one of them."""

import copy
import functools
import inspect
from collections.abc import Iterator, Sequence

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
        self, features: nn.Module, stages: dict, image_size: list, num_logits: int, head: dict, published: str = ""
    ) -> None:
        super().__init__()
        keys = list(inspect.signature(build_head).parameters)[2:]
        unknown = [str(key) for key in head if key not in keys]
        if unknown:
            raise FaceattrError(f"model.head has no key {', '.join(unknown)}; its keys: {', '.join(keys)}")
        shape = _output_shape(features, image_size, published or "this model")
        self.features, self.head = features, build_head(shape, num_logits, **head)
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


def _flat_children(module: nn.Module, prefix: str = "") -> Iterator[str]:
    """Names of the children, with those of an `nn.Sequential` in its place."""
    for name, child in module.named_children():
        if isinstance(child, nn.Sequential) and len(child):
            yield from _flat_children(child, f"{prefix}{name}.")
        else:
            yield prefix + name


def build_head(
    shape: Sequence[int],
    num_logits: int,
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
    validate_choice("model.head.pool", pool, ("avg", "flatten"))
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


def validate_choice(key: str, value: str | None, choices: Sequence[str | None]) -> None:
    if value not in choices:
        raise FaceattrError(f"{key}={value} must be one of {', '.join(str(c or 'null') for c in choices)}")
