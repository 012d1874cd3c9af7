"""Where a network's first weights come from: torchvision, timm, a local file, or chance; and a report that says which.
Names are matched, not positions. What the weights expect of the input is compared with the model's scaling, because
weights fed the wrong range quietly do worse.
"""

import hashlib
import logging
import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from faceattr.data.decode import SCALINGS
from faceattr.errors import FaceattrError
from faceattr.models.network import Network
from faceattr.models.timm_backbone import timm_backbone

log = logging.getLogger(__name__)

State = dict[str, Tensor]

KNOWN_FIRST_CONV = {
    "779fbfe0925d260e": "imagenet",  # VGG16, torchvision's IMAGENET1K_V1
    "b45cfdd6d2b58b62": "caffe",  # VGG16, the original weights turned to RGB
    "3d1be979a08005a8": "imagenet",  # AlexNet, torchvision's IMAGENET1K_V1
}
"""Start of the SHA-256 of the first conv's weights in half precision: tells what a file without metadata expects."""

WRAPPERS = re.compile(r"^((module|_orig_mod|network)\.)+")  # of DataParallel, torch.compile and our checkpoints
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
        rest = {"not in it": self.missing, "unused": self.unused}
        parts = [f"{len(names)} {what} ({_some(names)})" for what, names in rest.items() if names]
        return f"Weights: {self.source}: {', '.join([f'{self.matched} tensors matched', *parts])}"


def load_weights(
    network: Network, *, pretrained: str, weights: str | None, scaling: str | None = None
) -> WeightsReport:
    """Put a network's first weights in place, as `model.pretrained` (auto, true, false) and `model.weights` (a file,
    which comes first) ask, and log what was done. `scaling` is the model's, compared with what the weights expect.

    Raises FaceattrError: a file that cannot be read or does not fit; `pretrained=true` and no weights to be had.
    """
    if weights:
        report = _load_file(network, Path(weights).expanduser())
    elif pretrained == "false":
        report = WeightsReport("random (model.pretrained=false)")
    else:
        report = _load_published(network, required=pretrained == "true")
    if scaling and report.expects and report.expects != scaling:
        given = f"{report.source} expects inputs scaled as {report.expects}, and gets model.scaling={scaling}"
        report.warning = f"{given}: expect worse features, unless that is what you want to see."
        log.warning(report.warning)
    backbone = [name for name in report.missing if not name.startswith("head.")]
    (log.warning if backbone or (report.random and pretrained == "auto") else log.info)(report.describe())
    return report


def _load_published(network: Network, required: bool) -> WeightsReport:
    library, _, name = network.published.partition("/")
    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT)
    try:
        if not library:
            raise LookupError("no weights are published for this model")
        state, expects = _from_torchvision(name) if library == "torchvision" else _from_timm(name, network)
    except FaceattrError:  # a name that is not there
        raise
    except Exception as error:  # no network has a face of its own in every library
        reason = (str(error) or type(error).__name__).splitlines()[0]
        reason = f"{library}'s {name} cannot be had: {reason}" if library else reason
        reason += "; model.weights=FILE loads a local file"
        if required:
            raise FaceattrError(f"model.pretrained=true: {reason}; model.pretrained=auto goes on without") from error
        return WeightsReport(f"random ({reason})")
    finally:
        socket.setdefaulttimeout(timeout)
    return _put(network, state, f"{library} {name}", expects)


def _from_torchvision(name: str) -> tuple[State, str]:
    from torchvision.models import get_weight

    weights = get_weight(name)
    transforms = weights.transforms()
    return dict(weights.get_state_dict(check_hash=True)), _scaling(transforms.mean, transforms.std)


def _from_timm(name: str, network: Network) -> tuple[State, str]:
    import timm
    from huggingface_hub import file_exists, try_to_load_from_cache

    config = timm.get_pretrained_cfg(name)
    if config is None:
        raise LookupError("timm has no weights for it")
    hub, files = config.hf_hub_id, ("model.safetensors", "pytorch_model.bin")
    if hub and not any(isinstance(try_to_load_from_cache(hub, file), str) for file in files):
        file_exists(hub, files[0])  # one short request: timm's own would be tried for most of a minute
    state = timm_backbone(name, network.image_size, pretrained=True).state_dict()
    return {f"features.{key}": tensor for key, tensor in state.items()}, _scaling(config.mean, config.std)


def _scaling(mean: Sequence[float], std: Sequence[float]) -> str:
    """The name of a published mean and std (on the scale 0–1), else the figures themselves: none of ours fits."""
    figures = 255 * np.array([mean, std])
    return next((name for name, ours in SCALINGS.items() if np.allclose(figures, ours, atol=1)), f"{mean=} {std=}")


def _load_file(network: Network, path: Path) -> WeightsReport:
    """Load the tensors in a file, .safetensors or torch's own; nothing in it is run."""
    if not path.is_file():
        raise FaceattrError(f"model.weights={path}: no such file")
    try:
        safe = path.suffix == ".safetensors"
        content: Any = load_file(path) if safe else torch.load(path, map_location="cpu", weights_only=True)
        expects = _stored_scaling(content)
        content = content.get("state_dict", content)  # of a checkpoint
        state = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
        first = next(iter(state.values())).half().contiguous()
    except Exception as error:  # damaged files fail in many ways, and one without tensors has no first
        what = "damaged, not a state dict, or more than tensors (not opened)"
        raise FaceattrError(f"model.weights={path} cannot be read: {what}") from error
    digest = hashlib.sha256(first.numpy().tobytes()).hexdigest()[:16]
    return _put(network, state, str(path), expects or KNOWN_FIRST_CONV.get(digest))


def _stored_scaling(content: Any) -> str | None:
    """`model.scaling` in the config of a faceattr checkpoint; None in other files."""
    for key in ("faceattr", "config", "model", "scaling"):
        content = content.get(key) if isinstance(content, dict) else None
    return content


def _put(network: Network, state: State, source: str, expects: str | None) -> WeightsReport:
    """Copy what fits by name into the network. A wrong shape is an error, but for another task's output layer."""
    own, state = (  # batch norm counts its batches, and nothing here reads that
        {key: tensor for key, tensor in tensors.items() if not key.endswith("num_batches_tracked")}
        for tensors in (network.state_dict(), state)
    )
    found: State = {}
    unused, misfits = [], []
    for key, tensor in state.items():
        plain = WRAPPERS.sub("", key)
        name = next((name for name in (plain, f"features.{plain}") if name in own), None)
        if name and tensor.shape == own[name].shape and bool(torch.isfinite(tensor).all()):
            found[name] = tensor
        elif name is None or name.startswith("head.out."):
            unused.append(key)
        else:
            misfits.append(f"{key} {list(tensor.shape)}, here {list(own[name].shape)}")
    if misfits:
        what = f"{len(misfits)} tensors have another shape or no finite values"
        raise FaceattrError(f"{source} does not fit this model: {what}: {_some(misfits)}")
    if not found:
        both = f"Its names: {_some(list(state))}\nThe model's: {_some(list(own))}"
        raise FaceattrError(f"{source} has no tensor of this model's.\n{both}")
    network.load_state_dict(found, strict=False)
    return WeightsReport(source, len(found), [name for name in own if name not in found], unused, expects)


def _some(names: list[str]) -> str:
    return ", ".join(names[:4]) + (", …" if len(names) > 4 else "")
