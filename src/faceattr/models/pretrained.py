"""Initial weights of a network: published ones (torchvision, timm), a local file, or random; and a report of what was loaded.

Tensors are matched by name, not by position. The input scaling that the weights were trained with is compared with the
model's: a wrong scaling raises no error, but makes the features worse.
"""

import hashlib
import logging
import re
import socket
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from faceattr.data.file_kinds import kind_of_file
from faceattr.data.pixel_scaling import SCALINGS, Scaling, mean_and_std, scaling_of
from faceattr.errors import FaceattrError
from faceattr.files import damaged_part
from faceattr.message_text import counted, instead_of, listed
from faceattr.models.staged_network import Network
from faceattr.models.timm_backbone import timm_backbone

log = logging.getLogger(__name__)

State = dict[str, Tensor]

KNOWN_FIRST_CONV = {
    "779fbfe0925d260e": "imagenet",  # VGG16, torchvision's IMAGENET1K_V1
    "b45cfdd6d2b58b62": "caffe",  # VGG16, the original weights turned to RGB
    "3d1be979a08005a8": "imagenet",  # AlexNet, torchvision's IMAGENET1K_V1
}
"""First 16 hex digits of the SHA-256 of the first conv's weights in float16 → the scaling that the weights expect.

Identifies the weights in a file without metadata."""

WRAPPERS = re.compile(r"^((module|_orig_mod|network)\.)+")  # from DataParallel, torch.compile and our checkpoints
TIMEOUT = 10.0  # seconds to wait for a server


@dataclass
class WeightsReport:
    """What was loaded from `source`.

    matched: number of loaded tensors.
    missing: tensors of the network that `source` lacks; they keep their random values.
    unused: tensors of `source` that the network lacks.
    expects: the scaling that the weights were trained with; None if unknown.
    warning: a message if the model's scaling differs from it.
    """

    source: str
    matched: int = 0
    missing: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)
    expects: Scaling | None = None
    warning: str | None = None

    @property
    def random(self) -> bool:
        """Whether nothing was loaded."""
        return self.matched == 0

    def describe(self) -> str:
        """One line for the log, the report and the end of a run."""
        if self.random:
            return f"Weights: {self.source}"
        matched = [f"{counted(self.matched, 'tensor')} matched"]
        others = {"not in it": self.missing, "unused": self.unused}
        parts = [f"{len(names)} {kind} ({_first_names(names)})" for kind, names in others.items() if names]
        return f"Weights: {self.source}: {', '.join([*matched, *parts])}"


def load_weights(network: Network, *, pretrained: str, weights: str | None, scaling: Any = None) -> WeightsReport:
    """Loads the initial weights of a network and logs a report.

    pretrained: `true` loads published weights, `auto` too if they are available, `false` leaves random weights.
    weights: a file to load instead.
    scaling: the model's scaling, which is compared with the one that the weights expect.

    Raises FaceattrError: a file that cannot be read or does not fit; `pretrained=true` without available weights.
    """
    if weights:
        report = _load_file(network, Path(weights).expanduser())
    elif pretrained == "false":
        report = WeightsReport("random (model.pretrained=false)")
    else:
        report = _load_published(network, required=pretrained == "true")
    if scaling and scaling != "auto" and report.expects and not _same(report.expects, scaling):
        mismatch = f"{report.source} expects inputs scaled as {report.expects}, and gets model.scaling={scaling}"
        report.warning = f"{mismatch}: the features will be worse, unless this is intended."
        log.warning(report.warning)
    backbone = [name for name in report.missing if not name.startswith("head.")]
    (log.warning if backbone or (report.random and pretrained == "auto") else log.info)(report.describe())
    return report


def _load_published(network: Network, required: bool) -> WeightsReport:
    """Loads the published weights. If they are not available: an error if `required`, else random weights."""
    library, _, name = network.published.partition("/")
    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT)
    try:
        if not library:
            raise LookupError("no weights are published for this model")
        state, expects = _from_torchvision(name) if library == "torchvision" else _from_timm(name, network)
    except FaceattrError:  # an unknown model name
        raise
    except Exception as error:  # the libraries raise many kinds of errors without a network connection
        reason = (str(error) or type(error).__name__).splitlines()[0]
        reason = f"{library}'s {name} is not available: {reason}" if library else reason
        reason += "; model.weights=FILE loads a local file"
        if required:
            raise FaceattrError(
                f"model.pretrained=true: {reason}; model.pretrained=auto continues with random weights"
            ) from error
        return WeightsReport(f"random ({reason})")
    finally:
        socket.setdefaulttimeout(timeout)
    return _load_state(network, state, f"{library} {name}", expects)


def _from_torchvision(name: str) -> tuple[State, Scaling]:
    """The weights and the scaling that they expect."""
    from torchvision.models import get_weight

    weights = get_weight(name)
    transforms = weights.transforms()
    return dict(weights.get_state_dict(check_hash=True)), _scaling(transforms.mean, transforms.std)


def _from_timm(name: str, network: Network) -> tuple[State, Scaling]:
    """The weights, named as in a Network, and the scaling that they expect."""
    import timm
    from huggingface_hub import file_exists, try_to_load_from_cache

    config = timm.get_pretrained_cfg(name)
    if config is None:
        raise LookupError("timm has no weights for it")
    hub, files = config.hf_hub_id, ("model.safetensors", "pytorch_model.bin")
    if hub and not any(isinstance(try_to_load_from_cache(hub, file), str) for file in files):
        file_exists(hub, files[0])  # fails fast without a connection; timm's own request is repeated for up to a minute
    state = timm_backbone(name, network.image_size, pretrained=True).state_dict()
    return {f"features.{key}": tensor for key, tensor in state.items()}, _scaling(config.mean, config.std)


def resolve_scaling(scaling: Any, network: Network, expects: Scaling | None = None) -> Scaling:
    """`model.scaling`; for `auto` what the weights expect: `expects`, or as the network's published weights; else `unit`."""
    if scaling != "auto":
        return scaling_of(scaling)
    return expects or _published_scaling(network) or "unit"


def _published_scaling(network: Network) -> Scaling | None:
    """The scaling that the published weights of this architecture expect; None if there are none."""
    library, _, name = network.published.partition("/")
    if library == "timm":
        import timm

        config = timm.get_pretrained_cfg(name, allow_unregistered=True)
        return None if config is None else _scaling(config.mean, config.std)
    if library == "torchvision":
        from torchvision.models import get_weight

        try:
            transforms = get_weight(name).transforms()
        except (KeyError, ValueError):  # an unknown name: `load_weights` says so
            return None
        return _scaling(transforms.mean, transforms.std)
    return None


def _scaling(mean: Sequence[float], std: Sequence[float]) -> Scaling:
    """The name in SCALINGS of a mean and std on the scale 0–1; the values if none matches."""
    values = (tuple(map(float, mean)), tuple(map(float, std)))
    return next((name for name in SCALINGS if _same(name, values)), values)


def _same(first: Any, second: Any) -> bool:
    return bool(np.allclose(mean_and_std(scaling_of(first)), mean_and_std(scaling_of(second)), atol=1))


def check_weights(weights: str | None) -> None:
    """Raises FaceattrError where the file of `model.weights` holds no weights; cheap: its tensors are not read."""
    if weights:
        path = Path(weights).expanduser()
        _tensors(_content(path, mmap=True), path)


def _content(path: Path, *, mmap: bool = False) -> Any:
    """What a .safetensors file or a PyTorch file holds. Executes no code from the file."""
    if not path.is_file():
        reason = "this is a folder" if path.is_dir() else "no such file"
        raise FaceattrError(f"model.weights={path}: {reason}.{'' if path.is_dir() else instead_of(path)}")
    if (part := damaged_part(path)) is not None:
        raise FaceattrError(f"model.weights={path} cannot be read: damaged: {part} is not as it was written")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        mapped = mmap and zipfile.is_zipfile(path)  # torch maps no file of its older format
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as error:  # damaged files raise many kinds of errors
        raise _unreadable(path) from error


def _tensors(content: Any, path: Path) -> State:
    """The tensors of a state dict, or of the one in a checkpoint. Raises FaceattrError: there are none."""
    held = content.get("state_dict", content) if isinstance(content, dict) else None  # a checkpoint holds one
    state = (
        {str(key): value for key, value in held.items() if isinstance(value, Tensor)} if isinstance(held, dict) else {}
    )
    if not state:
        raise _unreadable(path)
    return state


def _unreadable(path: Path) -> FaceattrError:
    kind = kind_of_file(path)
    kind_text = f"it is {kind}, or " if kind and "ZIP" not in kind else ""
    reasons = f"{kind_text}damaged, not a state dict, or more than tensors (not opened)"
    return FaceattrError(
        f"model.weights={path} cannot be read: {reasons}. Give a file of tensors: .safetensors, .pth or a checkpoint"
    )


def _load_file(network: Network, path: Path) -> WeightsReport:
    """Loads the tensors of a .safetensors file or a PyTorch file."""
    content = _content(path)
    expects, state = _stored_scaling(content), _tensors(content, path)
    first = next(iter(state.values())).half().contiguous()
    digest = hashlib.sha256(first.numpy().tobytes()).hexdigest()[:16]
    expects = expects or KNOWN_FIRST_CONV.get(digest)
    if expects is None and network.published.startswith("timm/"):  # timm's weights for a name agree on it
        expects = _published_scaling(network)
    return _load_state(network, state, str(path), expects)


def _stored_scaling(content: Any) -> Scaling | None:
    """`model.scaling` in the config of a faceattr checkpoint; None in other files."""
    for key in ("faceattr", "config", "model", "scaling"):
        content = content.get(key) if isinstance(content, dict) else None
    return None if content is None else scaling_of(content)


def _load_state(network: Network, state: State, source: str, expects: Scaling | None) -> WeightsReport:
    """Copies the tensors of `state` into those of the network with the same name.

    A tensor of another shape is an error, except in the output layer, which belongs to the task.
    Raises FaceattrError: tensors of another shape or with values that are not finite; no matching name.
    """
    expected, state = _without_counters(network.state_dict()), _without_counters(state)
    matched: State = {}
    unused, misfits = [], []
    for key, tensor in state.items():
        plain = WRAPPERS.sub("", key)
        name = next((name for name in (plain, f"features.{plain}") if name in expected), None)
        if name and tensor.shape == expected[name].shape and bool(torch.isfinite(tensor).all()):
            matched[name] = tensor
        elif name is None or name.startswith("head.out."):
            unused.append(key)
        else:
            misfits.append(f"{key} {list(tensor.shape)}, here {list(expected[name].shape)}")
    if misfits:
        problem = f"{counted(len(misfits), 'tensor')} of another shape or without finite values"
        raise FaceattrError(f"{source} does not fit this model: {problem}: {_first_names(misfits)}")
    if not matched:
        names = f"Its names: {_first_names(list(state))}\nThe model's: {_first_names(list(expected))}"
        raise FaceattrError(f"{source} has no tensor of this model.\n{names}")
    network.load_state_dict(matched, strict=False)
    return WeightsReport(source, len(matched), [name for name in expected if name not in matched], unused, expects)


def _without_counters(state: State) -> State:
    """Without the batch counters of batch norm, which nothing here uses."""
    return {key: tensor for key, tensor in state.items() if not key.endswith("num_batches_tracked")}


def _first_names(names: list[str]) -> str:
    return listed(names, 4)
