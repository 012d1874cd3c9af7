"""Devices: the precision that the hardware computes in, no silent move to another device, and training on CUDA."""

from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from composing import compose_config

from faceattr.commands.build_from_config import create_classifier, trainer_settings
from faceattr.config import schema
from faceattr.data.batches import Batch
from faceattr.errors import FaceattrError
from faceattr.models.task import Task
from faceattr.training.callbacks import Patience
from faceattr.training.lightning_module import Classifier
from faceattr.training.trainer import build_trainer, describe_device, resolve_precision

CONF = Path(__file__).resolve().parents[2] / "conf"
CUDA = torch.cuda.is_available()
QUIET = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}


def settings(**keys: object) -> schema.Trainer:
    return schema.Trainer(**keys)


def test_patience_of_a_resumed_run_counts_on_and_forgets_that_it_stopped():
    patience, trainer = Patience("val_loss", patience=5), pl.Trainer(**QUIET)
    stopped = patience.state_dict() | {"wait_count": 3, "stopped_epoch": 4, "patience": 3}
    patience.load_state_dict(stopped)
    patience.on_train_start(trainer, None)
    assert (patience.stopped_epoch, patience.wait_count, trainer.should_stop) == (0, 3, False)
    patience.load_state_dict(stopped | {"wait_count": 5})
    patience.on_train_start(trainer, None)
    assert patience.stopped_epoch and trainer.should_stop


def cpu_flags() -> set[str]:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        pytest.skip("this system does not list its CPU's instructions in /proc/cpuinfo")
    return set(next((line for line in text.splitlines() if line.startswith("flags")), "").split())


def test_resolve_precision_auto_on_a_cpu_with_bf16_instructions_is_bf16():
    able = cpu_flags() & {"avx512_bf16", "amx_bf16"}
    assert resolve_precision(settings(accelerator="cpu")) == ("bf16" if able else "32")


@pytest.mark.skipif(CUDA, reason="there is a CUDA device here")
def test_resolve_precision_auto_without_cuda_is_that_of_the_cpu():
    assert resolve_precision(settings(accelerator="auto")) == resolve_precision(settings(accelerator="cpu"))


@pytest.mark.skipif(CUDA, reason="there is a CUDA device here")
def test_build_trainer_refuses_many_more_processes_than_cores():
    with pytest.raises(FaceattrError, match=r"trainer\.devices=999: each is a process"):
        build_trainer(settings(accelerator="cpu", devices=999), **QUIET)


@pytest.mark.parametrize("asked", ["32", "bf16", "16"])
def test_resolve_precision_takes_the_requested_one(asked):
    assert resolve_precision(settings(accelerator="cpu", precision=asked)) == asked


@pytest.mark.parametrize(("asked", "lightnings"), [("32", "32-true"), ("bf16", "bf16-mixed")])
def test_build_trainer_computes_in_the_requested_precision(asked, lightnings):
    made = build_trainer(settings(accelerator="cpu", precision=asked), **QUIET)
    assert made.precision == lightnings
    assert made.strategy.root_device.type == "cpu"
    assert describe_device(made).startswith("cpu × 1 (")


@pytest.mark.skipif(CUDA, reason="there is a CUDA device here")
@pytest.mark.parametrize("accelerator", ["cuda", "gpu"])
def test_build_trainer_without_cuda_is_an_error_and_takes_no_cpu(accelerator):
    message = f"trainer.accelerator={accelerator}: no CUDA device is visible here.\nUse trainer=cpu, or trainer=auto"
    with pytest.raises(FaceattrError, match=message):
        build_trainer(settings(accelerator=accelerator))


@pytest.mark.parametrize("keys", [{"accelerator": "abacus"}, {"strategy": "no_such"}, {"devices": 0}])
def test_build_trainer_turns_what_lightning_refuses_into_one_error(keys):
    with pytest.raises(FaceattrError, match=r"^trainer: "):
        build_trainer(settings(**({"accelerator": "cpu"} | keys)), **QUIET)


def two_steps(precision: str, accelerator: str) -> tuple[pl.Trainer, Classifier]:
    """Two training steps and a validation of the default network, with augmentation."""
    tiny = ["name=test", "data=folders", "data.root=.", "model.image_size=[32,24]", "augment=light"]
    cfg = compose_config(*tiny, f"trainer.accelerator={accelerator}", f"trainer.precision='{precision}'")
    torch.manual_seed(0)
    task = Task.from_config(["woman", "man"], ordinal=False, loss="auto")
    model = create_classifier(cfg, task)
    images = torch.randint(0, 256, (2, 8, 32, 24, 3)).to(torch.uint8).permute(0, 1, 4, 2, 3)
    batches = [Batch(images[i], torch.arange(8) % 2, torch.arange(8)) for i in range(2)]
    loader = torch.utils.data.DataLoader(batches, batch_size=None)
    made = build_trainer(trainer_settings(cfg), max_epochs=1, num_sanity_val_steps=0, **QUIET)
    made.fit(model, loader, loader)
    return made, model


def check(made: pl.Trainer) -> None:
    assert made.global_step == 2
    assert torch.isfinite(made.callback_metrics["train_loss"])
    assert torch.isfinite(made.callback_metrics["val_loss"])


def test_bf16_trains_on_the_cpu_with_float32_weights():
    made, model = two_steps("bf16", "cpu")
    check(made)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_build_trainer_refuses_graphs_on_a_cpu_and_not_for_an_evaluation():
    asked = settings(accelerator="cpu", compile="graph")
    with pytest.raises(FaceattrError, match=r"trainer\.compile=graph needs a CUDA device"):
        build_trainer(asked, **QUIET)
    build_trainer(asked, single=True)


@pytest.mark.skipif(CUDA, reason="for machines without a CUDA device")
def test_a_step_on_the_cpu_does_not_look_for_nvidias_library(monkeypatch):
    asked = []
    monkeypatch.setattr(torch.cuda, "_device_count_nvml", lambda: asked.append(1) or 0)
    monkeypatch.setenv("PYTORCH_NVML_BASED_CUDA_CHECK", "1")  # as Lightning sets it
    build_trainer(settings(accelerator="cpu"), **QUIET)
    asked.clear()
    weight = torch.ones(1, requires_grad=True)
    weight.sum().backward()
    torch.optim.AdamW([weight]).step()
    assert asked == []


@pytest.mark.gpu
@pytest.mark.skipif(not CUDA, reason="needs a CUDA device")
@pytest.mark.parametrize("precision", ["32", "bf16", "16"])
def test_two_steps_on_cuda(precision):
    made, model = two_steps(precision, "cuda")
    check(made)
    assert made.strategy.root_device.type == "cuda"
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert model.network.features[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert torch.cuda.get_device_name() in describe_device(made)


@pytest.mark.gpu
@pytest.mark.skipif(not CUDA, reason="needs a CUDA device")
def test_resolve_precision_auto_on_cuda_is_a_half_precision():
    expected = "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "16"
    for accelerator in ("auto", "cuda", "gpu"):
        assert resolve_precision(settings(accelerator=accelerator)) == expected


@pytest.mark.gpu
@pytest.mark.skipif(not CUDA, reason="needs a CUDA device")
def test_augmentation_on_cuda_is_the_cpus():
    """A seed means the same changes on every device, up to the rounding of a pixel."""
    from faceattr.data.augment import Augmentation

    images = torch.randint(0, 256, (8, 3, 32, 24)).to(torch.uint8).contiguous(memory_format=torch.channels_last)
    augmentation = Augmentation({"rotation": 20, "shift": 0.1, "zoom": 0.1, "flip": True, "brightness": 0.2})
    here, there = (augmentation(x, torch.Generator().manual_seed(0)) for x in (images, images.cuda()))
    assert (here.int() - there.cpu().int()).abs().max() <= 1
