"""The LightningModule: losses and probabilities of each kind of task, schedules, and a checkpoint that is enough."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from composing import compose_config
from omegaconf import DictConfig
from torch import Tensor

from faceattr.commands.build_from_config import create_classifier, plain
from faceattr.data.batches import Batch
from faceattr.data.decode import InputSpec
from faceattr.data.pixel_scaling import SCALINGS
from faceattr.errors import FaceattrError
from faceattr.models.task import Task
from faceattr.training import checkpoint_format
from faceattr.training.checkpoint_format import AtomicCheckpointIO, load
from faceattr.training.lightning_module import Classifier

CONF = Path(__file__).resolve().parents[2] / "conf"
GENDER = ["woman", "man"]
AGES = ["young", "middle", "old"]
TINY = ("model=cnn", "model.image_size=[16,12]", "model.blocks=[[4],[6]]")


def run_config(*overrides: str) -> DictConfig:
    return compose_config("data=folders", "data.root=.", "trainer=cpu", *TINY, *overrides)


def build(
    *overrides: str, classes: list[str] = GENDER, ordinal: bool = False, weights: Tensor | None = None
) -> Classifier:
    torch.manual_seed(0)
    cfg = run_config(*overrides)
    task = Task.from_config(classes, ordinal=ordinal, loss=cfg.loss)
    return create_classifier(cfg, task, class_weights=weights)


def batch(size: int = 6, classes: int = 2) -> Batch:
    images = torch.randint(0, 256, (size, 16, 12, 3), generator=torch.Generator().manual_seed(0))
    return Batch(images.to(torch.uint8).permute(0, 3, 1, 2), torch.arange(size) % classes, torch.arange(size))


def trainer(**keys: object) -> pl.Trainer:
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    return pl.Trainer(
        accelerator="cpu",
        enable_checkpointing=False,
        **(quiet | {"max_epochs": 1} | keys),
    )


def loader(batches: list[Batch]) -> torch.utils.data.DataLoader[Batch]:
    return torch.utils.data.DataLoader(batches, batch_size=None)


@pytest.mark.parametrize(
    ("classes", "ordinal", "loss", "kind", "num_logits"),
    [
        (GENDER, False, "auto", "binary", 1),
        (GENDER, False, "bce", "binary", 1),
        (GENDER, False, "ce", "binary", 2),
        (GENDER, True, "auto", "binary", 1),
        (AGES, True, "auto", "ordinal", 3),
        (AGES, False, "ce", "multiclass", 3),
    ],
)
def test_classifier_has_the_logits_and_probabilities_of_its_task(classes, ordinal, loss, kind, num_logits):
    model = build(f"loss={loss}", classes=classes, ordinal=ordinal).eval()
    assert (model.task.kind, model.task.num_logits) == (kind, num_logits)
    logits = model(batch()[0])
    assert logits.shape == (6, num_logits)
    probabilities = model.task.probabilities(logits)
    assert probabilities.shape == (6, len(classes))
    assert torch.allclose(probabilities.sum(1), torch.ones(6))


def test_classifier_with_one_logit_gives_the_probability_of_the_last_class():
    task = Task.from_config(GENDER, ordinal=False, loss="bce")
    logits = torch.tensor([[-3.0], [0.5]])
    assert torch.allclose(task.probabilities(logits)[:, 1], logits[:, 0].sigmoid())
    losses = task.losses(logits, torch.tensor([0, 1]))
    assert torch.allclose(losses, -torch.stack([(1 - logits[0, 0].sigmoid()).log(), logits[1, 0].sigmoid().log()]))


def test_classifier_with_one_logit_and_with_two_agree():
    """Two logits (0, x) say what one logit x says."""
    one, two = (Task.from_config(GENDER, ordinal=False, loss=loss) for loss in ("bce", "ce"))
    x, truth = torch.randn(8, 1), torch.arange(8) % 2
    both = torch.cat((torch.zeros(8, 1), x), 1)
    assert torch.allclose(one.probabilities(x), two.probabilities(both), atol=1e-6)
    assert torch.allclose(one.losses(x, truth), two.losses(both, truth), atol=1e-6)


@pytest.mark.parametrize("loss", ["bce", "ce"])
def test_classifier_losses_and_probabilities_are_float32_in_any_precision(loss):
    task = Task.from_config(GENDER, ordinal=False, loss=loss)
    logits = torch.randn(4, task.num_logits, dtype=torch.bfloat16)
    assert task.losses(logits, torch.tensor([0, 1, 0, 1])).dtype == torch.float32
    assert task.probabilities(logits).dtype == torch.float32


def test_choose_loss_refuses_bce_for_more_than_two_classes():
    with pytest.raises(
        FaceattrError, match=r"loss=bce needs two classes; there are 3: young, middle, old. Use loss=ce"
    ):
        Task.from_config(AGES, ordinal=True, loss="bce")


@pytest.mark.parametrize("scaling", SCALINGS)
def test_scaled_follows_model_scaling(scaling):
    model = build(f"model.scaling={scaling}").eval()
    seen: list[Tensor] = []
    model.network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    images = batch()[0]
    model(images)
    values = images.double()
    unit = values / 255
    expected = {
        "unit": unit,
        "imagenet": (unit - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1))
        / torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1),
        "caffe": values - torch.tensor([123.68, 116.779, 103.939]).view(3, 1, 1),
        "half": 2 * unit - 1,
    }[scaling]
    assert torch.allclose(seen[0].double(), expected, atol=1e-4)
    assert seen[0].is_contiguous(memory_format=torch.channels_last)


def test_train_leaves_frozen_stages_in_evaluation_mode():
    model = build("finetune=last_block")
    for before in (True, False):
        model.train(before)
        model.train()
        modes = {name: module.training for name, module in model.network.named_modules() if not list(module.children())}
        assert modes == {name: model.network.stage_of(name) in ("block2", "head") for name in modes}
    model.eval()
    assert not any(module.training for module in model.modules())


def test_classifier_freezes_stages_when_it_is_built():
    model = build("finetune=frozen")
    assert {model.network.stage_of(n) for n, p in model.network.named_parameters() if p.requires_grad} == {"head"}


class Rates(pl.Callback):
    """Each step's learning rates: stage → rate."""

    def __init__(self) -> None:
        self.seen: list[dict[str, float]] = []

    def on_train_batch_end(self, fitting: pl.Trainer, *_: object) -> None:
        self.seen.append({group["name"]: group["lr"] for group in fitting.optimizers[0].param_groups})


def rates(*overrides: str, epochs: int = 8) -> list[float]:
    """The head's learning rate in each epoch of a real fit, relative to optim.lr."""
    model = build("optim=sgd", "optim.lr=0.5", f"trainer.max_epochs={epochs}", *overrides)
    callback = Rates()
    trainer(max_epochs=epochs, callbacks=[callback], limit_val_batches=0).fit(model, loader([batch()]))
    return [step["head"] / 0.5 for step in callback.seen]


def test_lr_factor_of_a_constant_schedule_is_constant():
    assert rates("optim.schedule=constant") == [1.0] * 8


def test_lr_factor_of_a_cosine_schedule_falls_from_one_towards_zero():
    found = rates("optim.schedule=cosine")
    assert found == pytest.approx([(1 + math.cos(math.pi * epoch / 8)) / 2 for epoch in range(8)])


def test_lr_factor_rises_in_warmup_then_follows_the_schedule():
    assert rates("optim.schedule=constant", "optim.warmup_epochs=3") == pytest.approx([0.25, 0.5, 0.75] + [1.0] * 5)
    found = rates("optim.schedule=cosine", "optim.warmup_epochs=3")
    assert found[:4] == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert found[4:] == pytest.approx([(1 + math.cos(math.pi * epoch / 5)) / 2 for epoch in range(1, 5)])


def test_lr_factor_of_a_stage_falls_by_lr_decay():
    groups = build("finetune.lr_decay=0.1", "optim.lr=0.01").configure_optimizers().param_groups
    assert [group["lr"] for group in groups] == pytest.approx([0.0001, 0.001, 0.01])


def test_warmup_factor_of_a_pretrained_stage_rises_over_its_first_epoch():
    keys = ("optim=sgd", "optim.lr=0.5", "optim.schedule=constant", "finetune.pretrained_lr=0.1")
    cfg = run_config(*keys, "finetune.train_from=[[0,block2],[1,block1]]")
    model = create_classifier(cfg, Task.from_config(GENDER, ordinal=False, loss="auto"), pretrained_stages=["block1"])
    callback = Rates()
    trainer(max_epochs=3, callbacks=[callback], limit_val_batches=0).fit(model, loader([batch(), batch()]))
    assert [step["block1"] for step in callback.seen[2:]] == pytest.approx([0.025, 0.05, 0.05, 0.05])
    assert all(step["block2"] == step["head"] == 0.5 for step in callback.seen)


class Losses(pl.Callback):
    """The loss that each training step returned."""

    def __init__(self) -> None:
        self.seen: list[float] = []

    def on_train_batch_end(self, fitting: pl.Trainer, module: pl.LightningModule, outputs: Any, *_: object) -> None:
        self.seen.append(float(outputs["loss"]))


def step_loss(weights: Tensor | None) -> tuple[float, float]:
    """The loss that is minimised and the one that is logged, of the first step."""
    model = build("model.head.input_dropout=0", "optim.lr=1e-9", "augment=none", weights=weights)
    losses = Losses()
    fitting = trainer(callbacks=[losses])
    fitting.fit(model, loader([batch(8)]), loader([batch(8)]))
    return losses.seen[0], float(fitting.callback_metrics["train_loss"])


def test_step_multiplies_losses_by_class_weights():
    plain, logged = step_loss(None)
    doubled, same = step_loss(torch.tensor([2.0, 2.0]))
    assert plain == logged == same  # what is reported stays comparable
    assert doubled == pytest.approx(2 * plain)
    women, men = (step_loss(torch.tensor(weights))[0] for weights in ([1.0, 0.0], [0.0, 1.0]))
    assert women > 0 and men > 0
    assert women + men == pytest.approx(plain)
    assert step_loss(torch.tensor([0.5, 1.5]))[0] == pytest.approx(0.5 * women + 1.5 * men)


def test_classifier_draws_from_seed_and_epoch_only():
    def fit(seed: int, state: int) -> list[float]:
        model = build("augment=light", "model.head.input_dropout=0.5", f"seed={seed}")
        torch.manual_seed(state)
        losses = Losses()
        trainer(callbacks=[losses], limit_val_batches=0, max_epochs=2).fit(model, loader([batch(), batch()]))
        return losses.seen

    first = fit(0, state=1)
    assert fit(0, state=2) == first
    assert fit(3, state=1) != first
    assert first[0] != first[1]


def test_validation_metrics_are_computed_on_all_images_at_once(tmp_path):
    model = build(classes=AGES, ordinal=True)
    fitting = trainer()
    batches = [batch(5, 3), batch(2, 3)]
    fitting.fit(model, loader([batch()]), loader(batches))
    found = fitting.callback_metrics
    model.eval()
    truth = torch.cat([batch.targets for batch in batches])
    with torch.no_grad():
        logits = torch.cat([model(batch.inputs) for batch in batches])
    assert float(found["val_accuracy"]) == pytest.approx(float((logits.argmax(1) == truth).float().mean()))
    assert float(found["val_loss"]) == pytest.approx(float(model.task.losses(logits, truth).mean()), rel=1e-5)
    assert {"val_balanced_accuracy", "val_average_precision", "val_auroc", "val_f1"} <= set(found)


TRAINED = ("loss=ce", "finetune=last_block", "model.scaling=imagenet")


@pytest.fixture
def trained(tmp_path) -> tuple[Classifier, Path]:
    """A classifier after two epochs with batch norm statistics of its own, and its checkpoint."""
    model = build(*TRAINED)
    config = plain(run_config(*TRAINED))
    description = checkpoint_format.describe(config, model.task, fingerprint="0123456789abcdef", weights="random")
    fitting = trainer(max_epochs=2, plugins=[AtomicCheckpointIO(description)])
    fitting.fit(model, loader([batch(), batch(4)]), loader([batch()]))
    fitting.save_checkpoint(tmp_path / "last.ckpt")
    return model, tmp_path / "last.ckpt"


def test_load_gives_a_classifier_bit_equal_to_the_saved_one(trained):
    model, path = trained
    loaded, described = load(str(path))
    assert not loaded.training
    assert loaded.task == model.task
    assert loaded.spec == InputSpec(16, 12, "bilinear", "imagenet")
    assert described["fingerprint"] == "0123456789abcdef"
    model.eval()
    with torch.no_grad():
        assert torch.equal(loaded(batch()[0]), model(batch()[0]))
    saved = model.state_dict()
    assert all(torch.equal(tensor, saved[name]) for name, tensor in loaded.state_dict().items())


def test_load_runs_no_code(trained):
    content = torch.load(trained[1], weights_only=True)
    described = content[checkpoint_format.KEY]
    assert json.loads(json.dumps(described)) == described
    assert described["classes"] == GENDER
    assert described["ordinal"] is False
    assert described["weights"] == "random"
    assert described["config"] == plain(run_config(*TRAINED))
    assert set(content["state_dict"]) == {f"network.{name}" for name in trained[0].network.state_dict()}


def test_load_refuses_weights_that_do_not_fit_their_config(trained):
    content = torch.load(trained[1], weights_only=True)
    content[checkpoint_format.KEY]["config"]["model"]["blocks"] = [[4], [7]]
    torch.save(content, trained[1])
    with pytest.raises(FaceattrError, match="its weights do not fit its own config; the file is damaged"):
        load(str(trained[1]))


def test_predict_step_gives_probabilities_with_their_rows(trained):
    model, _ = trained
    rows = torch.tensor([7, 3, 9, 1, 0, 4])
    scores, positions = trainer().predict(model, loader([batch()._replace(rows=rows)]))[0]
    assert torch.equal(positions, rows)
    assert scores.dtype == torch.float32
    assert scores.shape == (6, 2)


@pytest.mark.parametrize(("precision", "fused"), [("32", True), ("bf16", False), ("16", False)])
def test_trainer_clips_gradients_without_a_fused_optimizer_in_mixed_precision(precision, fused):
    """Lightning refuses both together there: a fused optimizer unscales gradients itself."""
    made = build("optim=adamw", "trainer.gradient_clip=1.0", f"trainer.precision={precision}").configure_optimizers()
    assert bool(made.defaults.get("fused")) == fused
