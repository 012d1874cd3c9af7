"""Writes model.safetensors of an exported folder: in timm's names where timm can build the network itself."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from faceattr.data.decode import InputSpec
from faceattr.data.pixel_scaling import mean_and_std
from faceattr.models.timm_backbone import timm_backbone
from faceattr.training.lightning_module import Classifier

CROP_MODES = {"stretch": "squash", "crop": "center", "letterbox": "border"}
"""timm's name of each way to resize a whole image (`model.resize`)."""


def write_weights(model: Classifier, file: Path, *, half: bool) -> dict[str, Any]:
    """Writes the network's tensors; returns timm's keys of config.json, where `timm.create_model("local-dir:…")` can read them.

    Else the names are those of `Network`, and the dict is empty. half: as fp16.
    """
    timm_form = _timm_form(model)
    state, keys = timm_form or (model.network.state_dict(), {})
    halved = {name: tensor.half() if half and tensor.is_floating_point() else tensor for name, tensor in state.items()}
    file.write_bytes(save({name: tensor.contiguous() for name, tensor in halved.items()}, {"format": "pt"}))
    return keys


def _timm_form(model: Classifier) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """The network's tensors in timm's names, and timm's config of it. None where timm has no such network, or where that would
    give other logits: it is tried on an image."""
    network, spec, count = model.network, model.spec, model.task.num_logits
    library, _, name = network.published.partition("/")
    if library != "timm" or not {layer for layer, _ in network.head.named_children()} <= {"drop0", "out"}:
        return None
    whole = timm_backbone(name, network.image_size, num_classes=count)
    classifier = getattr(whole, "pretrained_cfg", {}).get("classifier")
    state = {key.removeprefix("features."): value for key, value in network.state_dict().items()}
    state = {
        key.replace("head.out", str(classifier)) if key.startswith("head.out.") else key: value
        for key, value in state.items()
    }
    image = torch.rand(1, 3, spec.height, spec.width, generator=torch.Generator().manual_seed(0))
    try:
        whole.load_state_dict(state)
        with torch.inference_mode():
            if not torch.allclose(whole.eval()(image), network.eval()(image), atol=1e-5):
                return None
    except RuntimeError:  # other tensors, or another size
        return None
    return state, _timm_config(name, spec, str(classifier), model) | {"num_classes": count}


def _timm_config(name: str, spec: InputSpec, classifier: str, model: Classifier) -> dict[str, Any]:
    """The keys that timm reads in a config.json."""
    import timm

    mean, std = ((values / 255).tolist() for values in mean_and_std(spec.scaling))
    published = timm.get_pretrained_cfg(name)
    sized = {"model_args": {"img_size": [spec.height, spec.width]}} if published and published.fixed_input_size else {}
    keys = {
        "input_size": [3, spec.height, spec.width],
        "interpolation": spec.interpolation,
        "crop_pct": 1.0,
        "crop_mode": CROP_MODES[spec.resize],
        "mean": mean,
        "std": std,
        "num_classes": model.task.num_logits,
        "classifier": classifier,
    }
    named = {"label_names": list(model.task.classes)} if model.task.num_logits == len(model.task.classes) else {}
    return {"architecture": name.partition(".")[0], "pretrained_cfg": keys, **named, **sized}
