"""Training on a CUDA device (marker gpu): the CPU's losses, the same run by every switch, exact resumes, no waiting in a step."""

import pytest
import torch
from small_run import Run

from faceattr.data.batches import Batch
from faceattr.data.device_batches import free_memory
from faceattr.errors import FaceattrError
from faceattr.training.compiled_step import compile_steps

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]
EXACT = ("trainer=gpu", "trainer.precision=32", "trainer.deterministic=true")
DROPOUT, NO_DROPOUT = "model.head.input_dropout=0.4", "model.head.input_dropout=0.0"


def equal(one: Run, other: Run) -> None:
    assert one.losses.steps == other.losses.steps
    assert one.losses.validation == other.losses.validation
    assert all(torch.equal(tensor, other.state[name]) for name, tensor in one.state.items())


def test_losses_are_the_cpus():
    """Up to TensorFloat-32 in convolutions, and a level of 255 in augmented pixels."""
    here, there = (
        Run(f"trainer.accelerator={device}", "trainer.precision=32", NO_DROPOUT) for device in ("cpu", "cuda")
    )
    assert there.losses.steps[:3] == pytest.approx(here.losses.steps[:3], abs=2e-2)
    assert there.losses.validation[0] == pytest.approx(here.losses.validation[0], abs=1e-1)


@pytest.mark.parametrize("policy", ["finetune=full", "finetune=last_block"])
def test_where_the_pixels_lie_changes_no_digit(policy):
    augment = "augment=light" if policy == "finetune=full" else "augment=none"
    runs = {pack: Run(*EXACT, policy, augment, f"data.pack={pack}") for pack in ("device", "disk")}
    assert isinstance(runs["device"].data.images("train").inputs, torch.Tensor)
    assert not isinstance(runs["disk"].data.images("train").inputs, torch.Tensor)
    equal(runs["device"], runs["disk"])


@pytest.mark.parametrize("dropout", [NO_DROPOUT, DROPOUT], ids=["no dropout", "dropout"])
@pytest.mark.parametrize("precision", ["32", "bf16", "16"])
def test_a_graph_trains_as_the_step_it_was_captured_from(precision, dropout):
    keys = ("trainer=gpu", f"trainer.precision={precision}", "trainer.deterministic=true", "augment=light", dropout)
    eager, graphed = (Run(*keys, f"trainer.compile={how}") for how in ("false", "auto"))
    assert (eager.model.compiled, graphed.model.compiled) == ("false", "graph")
    assert len(eager.losses.steps) == len(graphed.losses.steps)
    close = 1e-3 if precision == "32" else 2e-2
    assert graphed.losses.steps == pytest.approx(eager.losses.steps, abs=close)
    assert graphed.losses.validation == pytest.approx(eager.losses.validation, abs=5 * close)
    metrics = [float(run.trainer.callback_metrics["train_accuracy"]) for run in (eager, graphed)]
    assert metrics[0] == pytest.approx(metrics[1], abs=0.05)
    assert graphed.state["network.features.1.num_batches_tracked"] == len(graphed.losses.steps)


def test_a_graph_follows_the_finetune_policy_and_cached_features():
    keys = (*EXACT, "augment=none", "finetune.train_from=[[0,head],[1,-2],[2,0]]", NO_DROPOUT)
    eager, graphed = (Run(*keys, f"trainer.compile={how}", epochs=3) for how in ("false", "graph"))
    assert graphed.losses.steps == pytest.approx(eager.losses.steps, abs=1e-3)
    assert graphed.losses.validation == pytest.approx(eager.losses.validation, abs=5e-3)


class Waits(torch.nn.Module):
    """Reads a value from the device, as a branch on it does."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 2 if float(x.detach().sum()) > 1e30 else x


@pytest.mark.parametrize("package", ["timm.layers", "their.own"])
@pytest.mark.parametrize("setting", ["auto", "graph"])
def test_a_network_that_waits_for_the_device_is_not_captured(package, setting, monkeypatch, caplog):
    """It trains as it is written, or is refused where a graph was asked for; either way the device works on."""
    caplog.set_level("INFO")
    monkeypatch.setattr(Waits, "__module__", package)
    model = Run("trainer=gpu", "augment=none", DROPOUT, epochs=1).model.cuda().train()
    images = torch.randint(0, 256, (16, 32, 32, 3), dtype=torch.uint8, device="cuda").permute(0, 3, 1, 2)
    parts = (images, torch.arange(16, device="cuda") % 2, None, 0)
    torch.manual_seed(0)
    expected = [model.step(*parts)[0].item() for _ in range(2)]
    statistics = model.network.features[1].running_mean.clone()
    model.network.features.append(Waits())
    compile_steps(model, setting, 16)
    torch.manual_seed(0)
    if setting == "graph":
        with pytest.raises(FaceattrError, match="a step waits for the device"):
            model.run_step(*parts)
        assert torch.equal(model.network.features[1].running_mean, statistics)
    losses = [(model.run_step if setting == "auto" else model.step)(*parts)[0].item() for _ in range(2)]
    assert losses == pytest.approx(expected, abs=1e-6)
    assert model.compiled == "false"
    why = "a step waits for the device" if package == "timm.layers" else "modules of other packages (their)"
    assert (why in caplog.text) == (setting == "auto")


def test_a_resumed_run_is_bit_equal(tmp_path):
    whole = Run(*EXACT, "augment=light", DROPOUT, epochs=2)
    half = Run(*EXACT, "augment=light", DROPOUT, epochs=1)
    half.trainer.save_checkpoint(tmp_path / "last.ckpt")
    resumed = Run(*EXACT, "augment=light", DROPOUT, epochs=2, ckpt=tmp_path / "last.ckpt")
    steps = len(half.losses.steps)
    assert half.losses.steps == whole.losses.steps[:steps]
    assert resumed.losses.steps == whole.losses.steps[steps:]
    assert all(torch.equal(tensor, whole.state[name]) for name, tensor in resumed.state.items())


@pytest.mark.parametrize("precision", ["16", "bf16"])
def test_half_precision_trains(precision):
    run = Run("trainer=gpu", f"trainer.precision={precision}", "trainer.gradient_clip=1.0", NO_DROPOUT, epochs=6)
    steps = len(run.losses.steps) // 6
    assert all(torch.tensor(run.losses.steps).isfinite())
    assert sum(run.losses.steps[-steps:]) < sum(run.losses.steps[:steps])
    assert {parameter.dtype for parameter in run.model.parameters()} == {torch.float32}


@pytest.mark.parametrize("augment", ["none", "light"])
def test_a_step_never_waits_for_the_device(augment):
    model = Run("trainer=gpu", f"augment={augment}", epochs=1).model.cuda().train()
    images = torch.randint(0, 256, (16, 32, 32, 3), dtype=torch.uint8, device="cuda").permute(0, 3, 1, 2)
    batch = Batch(images, torch.arange(16, device="cuda") % 2, torch.arange(16, device="cuda"))
    with torch.autocast("cuda", torch.bfloat16):
        for mode in ("default", "error"):  # the first makes what is made once
            torch.cuda.set_sync_debug_mode(mode)
            try:
                model.training_step(batch, 0).backward()
                with torch.no_grad():
                    model.validation_step(batch, 0)
            finally:
                torch.cuda.set_sync_debug_mode("default")


def test_gathering_works_beyond_two_billion_values():
    if free_memory(torch.device("cuda")) < 6e9:
        pytest.skip("needs 6 GB of device memory")
    pixels = torch.zeros(16_000, 224, 224, 3, dtype=torch.uint8, device="cuda")
    at = torch.tensor([0, 15_999, 14_300, 7], device="cuda")
    pixels[at] = torch.arange(4, dtype=torch.uint8, device="cuda").view(4, 1, 1, 1)
    assert pixels.index_select(0, at).flatten(1).float().mean(1).tolist() == [0, 1, 2, 3]


def test_torch_compile_trains_alike():
    keys = ("trainer=gpu", "trainer.precision=32", "model.blocks=[[8],[16]]", "augment=light", NO_DROPOUT)
    eager, compiled = (Run(*keys, f"trainer.compile={how}", epochs=1) for how in ("false", "true"))
    assert compiled.losses.steps == pytest.approx(eager.losses.steps, abs=2e-2)
