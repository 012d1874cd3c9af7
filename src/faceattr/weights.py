"""Where a network's first weights come from: torchvision, timm, a local file, or chance; and a report that says which.

Names are matched, not positions: our own, a faceattr checkpoint's, torchvision's and timm's all fit. What the weights
expect of the input is compared with the model's scaling, because weights fed the wrong range quietly do worse.
"""

import hashlib
import logging
import pickle
import socket
import sys
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from faceattr.errors import FaceattrError
from faceattr.networks import Network
from faceattr.timm_networks import timm_backbone

log = logging.getLogger(__name__)

State = dict[str, Tensor]

SCALINGS: dict[tuple[tuple[float, ...], tuple[float, ...]], str] = {
    ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)): "unit",
    ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)): "imagenet",
    ((0.482, 0.459, 0.408), (0.004, 0.004, 0.004)): "caffe",
}
"""(mean, std) on the scale 0–1, to three places, as torchvision and timm publish them."""

KNOWN_FIRST_CONV = {
    "779fbfe0925d260e": "imagenet",  # VGG16, torchvision's IMAGENET1K_V1
    "b45cfdd6d2b58b62": "caffe",  # VGG16, the original weights turned to RGB
    "3d1be979a08005a8": "imagenet",  # AlexNet, torchvision's IMAGENET1K_V1
}
"""Start of the SHA-256 of the first conv's weights in half precision: tells what a file without metadata expects."""

WRAPPERS = ("network", "model", "module", "_orig_mod")
TIMEOUT = 10.0  # seconds until a silent server counts as none


@dataclass
class WeightsReport:
    """What was loaded: `matched` tensors by name; `missing` ones kept their random start; `unused` ones had no place.

    `expects` is the scaling the weights were made for, where known (`warning` says so where the model's differs).
    """

    source: str
    matched: int = 0
    missing: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)
    expects: str | None = None
    warning: str | None = None

    @property
    def random(self) -> bool:
        """Nothing was loaded."""
        return self.matched == 0

    def describe(self) -> str:
        """One line for the log, the report and the end of a run."""
        if self.random:
            return f"Weights: {self.source}"
        parts = [f"{self.matched} tensors matched"]
        parts += [f"{len(self.missing)} not in it ({_some(self.missing)})"] if self.missing else []
        parts += [f"{len(self.unused)} unused ({_some(self.unused)})"] if self.unused else []
        return f"Weights: {self.source}: {', '.join(parts)}"


def load_weights(
    network: Network, *, pretrained: bool | str, weights: str | None, scaling: str | None = None
) -> WeightsReport:
    """Put a network's first weights in place, as `model.pretrained` and `model.weights` ask, and log what was done.

    A file comes before `pretrained`. `scaling` is the model's, compared with what the weights expect.
    """
    wanted = str(pretrained).lower()
    if wanted not in ("auto", "true", "false"):
        raise FaceattrError(f"model.pretrained={pretrained} must be auto, true or false")
    if weights:
        report = _load_file(network, Path(weights).expanduser())
    elif wanted == "false":
        report = WeightsReport("random (model.pretrained=false)")
    else:
        report = _load_published(network, required=wanted == "true")
    if scaling and report.expects and report.expects != scaling:
        report.warning = (
            f"{report.source} expects inputs scaled as {report.expects}, and gets model.scaling={scaling}: "
            "expect worse features, unless that is what you want to see."
        )
        log.warning(report.warning)
    backbone = [name for name in report.missing if not name.startswith("head.")]
    (log.warning if backbone or (report.random and wanted == "auto") else log.info)(report.describe())
    return report


def _load_published(network: Network, required: bool) -> WeightsReport:
    ways = "model.weights=FILE loads a local file"
    if network.published is None:
        if required:
            raise FaceattrError(f"model.pretrained=true: no weights are published for this model; {ways}.")
        return WeightsReport("random (none are published for this model)")
    library, _, name = network.published.partition("/")
    try:
        with _fail_fast():
            state, expects = _from_torchvision(name) if library == "torchvision" else _from_timm(name, network)
    except FaceattrError:
        raise
    except Exception as error:  # no network has a face of its own in every library
        reason = f"{library}'s {name} cannot be had: {(str(error) or type(error).__name__).splitlines()[0]}"
        if required:
            raise FaceattrError(
                f"model.pretrained=true: {reason}\n{ways}; model.pretrained=auto or false starts from random weights."
            ) from error
        return WeightsReport(f"random ({reason}; {ways})")
    return _put(network, state, f"{library} {name}", expects)


def _from_torchvision(name: str) -> tuple[State, str | None]:
    from torchvision.models import get_weight

    try:
        weights = get_weight(name)
    except (KeyError, ValueError) as error:
        raise FaceattrError(
            f"model.pretrained_weights={name} is not torchvision's; VGG16_Weights.IMAGENET1K_V1 would be"
        ) from error
    state = weights.get_state_dict(progress=True, check_hash=True)
    transforms = weights.transforms()
    return dict(state), _scaling(transforms.mean, transforms.std)


def _from_timm(name: str, network: Network) -> tuple[State, str | None]:
    import timm
    from huggingface_hub import file_exists, try_to_load_from_cache

    config = timm.get_pretrained_cfg(name)
    if config is None:
        raise LookupError("timm has no weights for it")
    hub, files = config.hf_hub_id, ("model.safetensors", "pytorch_model.bin")
    if hub and not any(isinstance(try_to_load_from_cache(hub, file), str) for file in files):
        file_exists(hub, files[0])  # one short request: timm's own would be tried for most of a minute
    backbone = timm_backbone(name, network.image_size, pretrained=True)
    state = {f"features.{key}": tensor for key, tensor in backbone.state_dict().items()}
    return state, _scaling(config.mean, config.std)


@contextmanager
def _fail_fast() -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _load_file(network: Network, path: Path) -> WeightsReport:
    state = _read(path)
    first = next((tensor for tensor in state.values() if tensor.ndim == 4), None)
    expects = None if first is None else KNOWN_FIRST_CONV.get(_fingerprint(first))
    return _put(network, state, str(path), expects)


def _read(path: Path) -> State:
    """The tensors in a file by name. Nothing in the file is run, and what need not be read stays on the disk."""
    if not path.is_file():
        raise FaceattrError(f"model.weights={path}: no such file")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            content: Any = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        raise FaceattrError(f"model.weights={path} holds more than tensors, or is damaged: it is not opened") from error
    except Exception as error:  # truncated files fail in many ways
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise FaceattrError(f"model.weights={path} cannot be read, it may be truncated: {reason}") from error
    for key in ("state_dict", "model"):  # a checkpoint of Lightning's; of timm's or torch's scripts
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    tensors = {str(k): v for k, v in content.items() if isinstance(v, Tensor)} if isinstance(content, dict) else {}
    if not tensors:
        raise FaceattrError(f"model.weights={path} is not a state dict: it holds no named tensors")
    return tensors


def _put(network: Network, state: State, source: str, expects: str | None) -> WeightsReport:
    """Copy what fits by name into the network. A wrong shape is an error, but for another task's output layers."""
    own = {name: tensor for name, tensor in network.state_dict().items() if not name.endswith("num_batches_tracked")}
    found: State = {}
    unused, misfits = [], []
    names = _translation(network, own, state)
    for key, tensor in _adapted(network, own, state).items():
        name = names(key)
        if name is None or name in found:
            unused += [] if key.endswith("num_batches_tracked") else [key]
        elif tensor.shape == own[name].shape and bool(torch.isfinite(tensor).all()):
            found[name] = tensor
        elif name.startswith("head.out.") or "classifier." in key:
            unused.append(key)
        else:
            misfits.append(f"{key} {list(tensor.shape)}, here {list(own[name].shape)}")
    if misfits:
        raise FaceattrError(
            f"{source} does not fit this model: {len(misfits)} tensors have another shape or no finite values: {_some(misfits)}"
        )
    if not found:
        raise FaceattrError(
            f"{source} has no tensor of this model's.\nIts names: {_some(list(state))}\nThe model's: {_some(list(own))}"
        )
    network.load_state_dict(found, strict=False)
    return WeightsReport(source, len(found), [name for name in own if name not in found], unused, expects)


def _translation(network: Network, own: State, state: State) -> Callable[[str], str | None]:
    """A function from a name in the file to the network's own name for it, or None."""
    numbers = sorted({int(k.split(".")[1]) for k in state if k.startswith("classifier.") and k.split(".")[1].isdigit()})
    linears = [name for name, module in network.head.named_modules() if isinstance(module, nn.Linear)]
    classifier = {
        f"classifier.{number}.{kind}": f"head.{linear}.{kind}"
        for number, linear in zip(numbers, linears, strict=False)
        for kind in ("weight", "bias")
        if len(numbers) == len(linears)
    }

    def own_name(key: str) -> str | None:
        while True:
            for name in (key, f"features.{key}", classifier.get(key, "")):
                if name in own:
                    return name
            wrapper, _, key = key.partition(".")
            if wrapper not in WRAPPERS:
                return None

    return own_name


def _adapted(network: Network, own: State, state: State) -> State:
    """A file in timm's naming goes through its architecture's own filter (old names, other image sizes)."""
    if not (network.published or "").startswith("timm/") or any(name.endswith(tuple(own)) for name in state):
        return state
    module = sys.modules[type(network.features).__module__]
    adapt = getattr(module, "checkpoint_filter_fn", None)
    return adapt(state, network.features) if adapt else state


def _scaling(mean: Sequence[float], std: Sequence[float]) -> str:
    """The name of a published mean and std, else the figures themselves (none of our scalings fits)."""
    key = (tuple(round(float(v), 3) for v in mean), tuple(round(float(v), 3) for v in std))
    return SCALINGS.get(key, f"mean {key[0]} and std {key[1]}")


def _fingerprint(tensor: Tensor) -> str:
    return hashlib.sha256(tensor.half().contiguous().numpy().tobytes()).hexdigest()[:16]


def _some(names: list[str]) -> str:
    return ", ".join(names[:4]) + (", …" if len(names) > 4 else "")
