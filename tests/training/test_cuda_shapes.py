"""Steps on a CUDA device, without one (marker cuda_shapes): PyTorch's fake tensors know shapes, types and devices, not values.

A CPU tensor that meets a CUDA one fails, and so does whatever would wait for the device: a value that is asked for, a copy to
the host.
"""

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from composing import MODELS, compose_config
from omegaconf import OmegaConf
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from faceattr.commands.build_from_config import create_classifier, create_network
from faceattr.data.augment import Augmentation
from faceattr.data.batches import Batch
from faceattr.models import freezing
from faceattr.models.task import Task
from faceattr.training.compiled_step import compile_steps
from faceattr.training.lightning_module import Classifier

pytestmark = [
    pytest.mark.cuda_shapes,
    pytest.mark.skipif(torch.version.cuda is None, reason="this PyTorch is built without CUDA"),
]
CONF = Path(__file__).resolve().parents[2] / "conf"
POLICIES = [
    OmegaConf.to_container(OmegaConf.load(file))["train_from"] for file in (CONF / "finetune").glob("[a-z]*.yaml")
]
AUGMENTS = sorted((CONF / "augment").glob("[a-z]*.yaml"))
DTYPES = {"bf16": torch.bfloat16, "16": torch.float16}
TASKS: dict[str, dict[str, Any]] = {
    "bce": {"classes": ["woman", "man"], "ordinal": False},
    "ce": {"classes": ["young", "middle", "old"], "ordinal": True},
    "one_vs_rest": {"classes": ["young", "middle", "old"], "ordinal": False},
    "corn": {"classes": ["young", "middle", "old"], "ordinal": True},
    "multilabel": {"classes": ["Smiling", "Male", "Young"], "ordinal": False, "multilabel": True},
}


class NoCopyToTheHost(TorchDispatchMode):
    """Fails where a tensor goes from the device to the host."""

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), keys: Any = None) -> Any:
        found = function(*arguments, **(keys or {}))
        given = [one for one in tree_leaves((arguments, keys)) if isinstance(one, torch.Tensor)]
        made = [one for one in tree_leaves(found) if isinstance(one, torch.Tensor)]
        on_device = any(one.device.type == "cuda" for one in given)
        assert not (on_device and any(one.device.type == "cpu" for one in made)), f"{function} copies to the host"
        return found


@pytest.fixture(autouse=True)
def a_gpu_that_computes_in_half_precision(monkeypatch):
    """Autocast asks the machine; without a device it would switch itself off."""
    monkeypatch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *_, **__: True)


def build(*overrides: str, task: str = "bce") -> Classifier:
    cfg = compose_config("data=folders", "data.root=.", "model.pretrained=false", *overrides)
    made = Task.from_config(**TASKS[task], loss="auto" if task == "multilabel" else task)
    with torch.device("meta"):
        network = create_network(cfg, made)
    weights = torch.rand(2, 3) if made.multilabel else torch.rand(len(made.classes))
    return create_classifier(cfg, made, network=network, class_weights=weights)


def to_fake(model: nn.Module) -> None:
    """Every parameter and buffer anew, on the device."""
    for module in model.modules():
        for tensors in (module._parameters, module._buffers):
            for name, tensor in tensors.items():
                if tensor is not None:
                    fake = torch.empty(tensor.shape, dtype=tensor.dtype, device="cuda")
                    tensors[name] = nn.Parameter(fake, tensor.requires_grad) if tensors is module._parameters else fake


def run_steps(model: Classifier, dtype: torch.dtype, layers_applied: int = 0, shape: tuple[int, ...] = ()) -> None:
    """A training, a validation and a prediction step."""
    height, width = model.mean.shape[2:]
    generator = torch.Generator().manual_seed(0)
    drawn = model.augmentation.parameters(torch.empty(4, 3, height, width), generator)
    applied = model.augmentation.active and model.augmentation.capturable and not layers_applied
    with FakeTensorMode(allow_non_fake_inputs=True) as mode, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        to_fake(model)
        images = torch.empty(4, height, width, 3, dtype=torch.uint8, device="cuda").permute(0, 3, 1, 2)
        inputs = torch.empty(4, *shape, dtype=dtype, device="cuda") if layers_applied else images
        rows = torch.arange(4, device="cuda")
        targets = torch.ones(4, 3, device="cuda") if model.task.multilabel else torch.zeros_like(rows)
        parameters = mode.from_tensor(drawn).to("cuda") if applied else None
        batch = Batch(inputs, targets, rows, layers_applied)
        with NoCopyToTheHost(), torch.autocast("cuda", dtype):
            assert torch.is_autocast_enabled("cuda")
            model.train()
            loss, sums = model.step(inputs, targets, parameters, layers_applied)
            logits = model.logits(inputs, layers_applied)
            with torch.no_grad():
                model.eval()
                model.validation_step(batch, 0)
                probabilities, found = model.predict_step(batch, 0)
        assert loss.requires_grad and loss.dtype == torch.float32 and logits.dtype == dtype
        assert {one.device.type for one in (loss, sums, probabilities, found, model._val_values)} == {"cuda"}
        assert probabilities.shape == (4, len(model.task.classes)) and probabilities.dtype == torch.float32


@pytest.mark.parametrize("name", MODELS)
def test_steps_of_every_model_and_policy(name):
    model = build(f"model={name}", "augment=light")
    begin = {model.policy.parse(train_from, 1.0, model.network.stage_names).steps[0][1] for train_from in POLICIES}
    assert len(begin) == 3, "all stages, the last block, the head"
    for stage, dtype in zip(sorted(begin), (torch.float16, torch.bfloat16, torch.bfloat16), strict=True):
        model.first_trainable_stage = stage
        freezing.freeze(model.network, stage)
        run_steps(model, dtype)


@pytest.mark.parametrize("task", TASKS)
def test_steps_of_every_loss(task):
    model = build("model=cnn", "model.image_size=[32,24]", "augment=light", task=task)
    for dtype in DTYPES.values():
        run_steps(model, dtype)


def test_steps_of_every_augmentation():
    model = build("model=cnn", "model.image_size=[32,24]")
    for file in AUGMENTS:
        model.augmentation = Augmentation(OmegaConf.load(file))
        for dtype in DTYPES.values():
            run_steps(model, dtype)


@pytest.mark.parametrize("precision", DTYPES)
def test_steps_on_cached_features(precision):
    model = build("model=vgg16", "finetune=last_block", "augment=none")
    layers = model.network.num_constant_layers(model.first_trainable_stage)
    run_steps(model, DTYPES[precision], layers, (512, 8, 8))


@pytest.mark.parametrize("wrong", ["cpu tensor", "item", "copy"])
def test_what_a_step_must_not_do_is_found(wrong):
    model = build("model=cnn", "model.image_size=[32,24]", "augment=none")
    scaled = model.scaled

    def spoiled(images: torch.Tensor) -> torch.Tensor:
        if wrong == "cpu tensor":
            return scaled(images) + torch.ones(3, 32, 24)
        return scaled(images) * (images.max().item() if wrong == "item" else images.float().cpu().to(images.device))

    model.scaled = spoiled
    with pytest.raises((RuntimeError, AssertionError)):
        run_steps(model, torch.bfloat16)


class Theirs(nn.Identity):
    """A module that is neither torch's nor ours."""


def test_steps_are_not_replayed_with_modules_of_other_packages(caplog):
    """They might decide in Python, and a graph would repeat the first decision."""
    caplog.set_level("INFO")
    model = build("model=cnn", "model.image_size=[32,24]", "augment=none")
    model.network.features.append(Theirs())
    compile_steps(model, "auto", 4)
    with FakeTensorMode(allow_non_fake_inputs=True):
        to_fake(model)
        images = torch.empty(4, 32, 24, 3, dtype=torch.uint8, device="cuda").permute(0, 3, 1, 2)
        for _ in range(2):
            loss, _ = model.run_step(images, torch.zeros(4, dtype=torch.int64, device="cuda"), None, 0)
        assert loss.requires_grad and model.run_logits(images, 0).shape == (4, 1)
    package = Theirs.__module__.partition(".")[0]
    assert model.compiled == "false"
    assert caplog.text.count(f"trainer.compile=graph is not chosen for modules of other packages ({package})") == 1
