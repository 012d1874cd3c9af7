"""The feature cache: the same training as without it, found again, and never met by other weights."""

import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import pytorch_lightning as pl
import torch
from composing import compose_config
from omegaconf import DictConfig
from programs import FIGURES, ROOT, TINY, inside

from faceattr.commands.build_from_config import (
    create_classifier,
    create_data,
    create_feature_cache,
    create_network,
    read_table,
    reason_without_feature_cache,
    trainer_settings,
)
from faceattr.data import disk_cache
from faceattr.data.datamodule import FaceData
from faceattr.models.task import Task
from faceattr.training.feature_cache import FeatureCache
from faceattr.training.lightning_module import Classifier
from faceattr.training.trainer import build_trainer

SMALL = ("model=cnn", "model.image_size=[32,32]", "data.n=60", "data.image_size=32", "data.batch_size=8")
BN = ("model.norm=before_relu", "model.head.hidden=[16]", "model.head.dropout=0.3")
POLICIES = {
    "frozen": "finetune=frozen",
    "last_block": "finetune=last_block",
    "gradual": "finetune.train_from=[[0,head],[1,-2],[2,1]]",
}


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch, cache):
    """Of each test alone, but for the sample faces."""
    sample = cache / "sample"
    monkeypatch.setenv("FACEATTR_CACHE", str(tmp_path / "cache"))
    if sample.exists():
        shutil.copytree(sample, tmp_path / "cache" / "sample")


def composed(*overrides: str) -> DictConfig:
    return compose_config(*SMALL, "augment=none", "trainer=cpu", "trainer.precision=32", *overrides)


def build(cfg: DictConfig) -> tuple[Classifier, FaceData]:
    pl.seed_everything(cfg.seed, verbose=False)
    prepared = read_table(cfg)
    task = Task.from_config(prepared.attrs["classes"], ordinal=prepared.attrs["ordinal"], loss=cfg.loss)
    data = create_data(cfg, prepared)
    return create_classifier(cfg, task), data


class Steps(pl.Callback):
    """The loss of each training step, the shape of its inputs, and the validation loss of each epoch."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.shapes: list[tuple[int, ...]] = []
        self.layers_applied: list[int] = []
        self.validation: list[float] = []

    def on_train_batch_end(self, fitting, module, outputs, batch, index) -> None:
        self.losses.append(float(outputs["loss"]))
        self.shapes.append(tuple(batch.inputs.shape[1:]))
        self.layers_applied.append(batch.layers_applied)

    def on_train_epoch_end(self, fitting, module) -> None:
        self.validation.append(float(fitting.callback_metrics["val_loss"]))


def fit(cfg: DictConfig, *, keep: bool, epochs: int = 3) -> tuple[Steps, Classifier, FaceData, FeatureCache]:
    model, data = build(cfg)
    steps, kept = Steps(), create_feature_cache(cfg, model, data)
    trainer = build_trainer(
        trainer_settings(cfg),
        max_epochs=epochs,
        callbacks=[steps, kept] if keep else [steps],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(model, datamodule=data)
    return steps, model, data, kept


def files() -> list[str]:
    return sorted(file.name for file in disk_cache.folder().glob("prefix-*.npy"))


@pytest.mark.parametrize(
    ("policy", "precision", "close"), [*((policy, "32", 1e-6) for policy in POLICIES), ("gradual", "bf16", 2e-2)]
)
def test_training_is_the_same_with_the_prefix_kept(policy, precision, close):
    cfg = composed(POLICIES[policy], *BN, f"trainer.precision={precision}")
    epochs = 3 if policy == "gradual" else 2
    apart, model, _, kept = fit(cfg, keep=True, epochs=epochs)
    whole, expected, *_ = fit(cfg, keep=False, epochs=epochs)
    assert len(apart.losses) == epochs * 6
    assert apart.losses == pytest.approx(whole.losses, abs=close)
    assert apart.validation == pytest.approx(whole.validation, abs=close)
    assert set(whole.shapes) == {(3, 32, 32)}
    assert (3, 32, 32) not in apart.shapes, "pixels went through the whole network"
    assert len(kept.stored_arrays) == len(set(apart.shapes)) == (3 if policy == "gradual" else 1)
    state = model.state_dict()
    assert state.keys() == expected.state_dict().keys()
    if precision == "32":
        for name, tensor in expected.state_dict().items():
            assert torch.allclose(state[name], tensor, atol=1e-6), name


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("precision", ["32", "bf16", "16"])
def test_training_is_the_same_on_cuda(precision):
    cfg = composed("finetune=last_block", *BN, "trainer=gpu", f"trainer.precision={precision}")
    apart, *_ = fit(cfg, keep=True)
    whole, *_ = fit(cfg, keep=False)
    assert min(apart.layers_applied) > 0
    assert apart.losses == pytest.approx(whole.losses, abs=1e-4 if precision == "32" else 5e-2)  # 18 steps of about 1


def test_the_cut_lies_as_deep_as_it_can():
    """Pooling in the head learns nothing: a pooled vector is kept, not a map."""
    steps, model, *_ = fit(composed("finetune=frozen"), keep=True, epochs=1)
    assert set(steps.shapes) == {(model.network.get_submodule("head.out").in_features,)}


def test_what_is_kept_has_the_runs_precision():
    for precision, dtype in (("32", np.float32), ("bf16", np.int16)):
        _, _, data, _ = fit(composed("finetune=frozen", f"trainer.precision={precision}"), keep=True, epochs=1)
        assert data.images("train").inputs.dtype == dtype
    assert len(files()) == 2


def test_other_weights_input_or_images_never_meet_what_was_kept():
    fit(composed("finetune=frozen"), keep=True, epochs=1)
    assert len(files()) == 1
    fit(composed("finetune=frozen", "optim.lr=0.1", "data.batch_size=7"), keep=True, epochs=1)
    assert len(files()) == 1, "what does not change the outputs must not change the key"
    for number, other in enumerate(
        ("seed=1", "model.scaling=imagenet", "data.sample_seed=1", "model.interpolation=nearest")
    ):
        fit(composed("finetune=frozen", "data.seed=0", other), keep=True, epochs=1)
        assert len(files()) == number + 2, other


def test_a_single_changed_weight_or_statistic_makes_a_new_one():
    cfg = composed("finetune=last_block", *BN)
    for name, count in (("", 1), ("features.0.weight", 2), ("features.1.running_var", 3), ("head.out.weight", 3)):
        model, data = build(cfg)
        if name:
            with torch.no_grad():
                (weight := model.network.state_dict()[name])[(0,) * weight.ndim] += 0.5
        trainer = build_trainer(
            trainer_settings(cfg), logger=False, enable_checkpointing=False, enable_progress_bar=False
        )
        trainer.callbacks.append(create_feature_cache(cfg, model, data))
        apart = torch.cat([found for found, _ in trainer.predict(model, data.split_dataloader("val"))])
        assert len(files()) == count, name
        data.images("val").serve_pixels()
        trainer.callbacks.pop()
        whole = torch.cat([found for found, _ in trainer.predict(model, data.split_dataloader("val"))])
        assert torch.allclose(apart, whole, atol=1e-6)


def test_views_are_augmented_and_drawn_anew_in_each_epoch():
    cfg = composed("finetune=frozen", "finetune.views=3", "augment=light")
    steps, model, data, _ = fit(cfg, keep=True)
    again, *_ = fit(cfg, keep=True)
    assert steps.losses == again.losses
    images = data.images("train")
    kept = images.inputs[np.arange(3 * len(images))].reshape(len(images), 3, -1)
    assert len(kept) == len(data.rows("train"))
    plain = torch.cat([model.scaled(batch.inputs) for batch in data.in_order(data.rows("train"))])
    with torch.inference_mode():
        bare = model.network(plain, end=steps.layers_applied[0]).numpy()
    assert not np.isclose(kept, bare[:, None], atol=1e-4).all(2).any(), "an augmented view equals the plain image"
    assert not np.isclose(kept[:, 0], kept[:, 1], atol=1e-4).all(1).any()
    assert np.corrcoef(kept.mean(1).ravel(), bare.ravel())[0, 1] > 0.9, "views belong to other images"
    drawn = images._positions[images.rows] - np.arange(len(images)) * 3
    assert set(drawn) == {0, 1, 2}
    whole, *_ = fit(cfg, keep=False)
    assert steps.validation[0] == pytest.approx(whole.validation[0], abs=0.1)


def test_training_images_are_predicted_from_pixels_after_training_on_views():
    """Views are for training: a prediction of a training image is of the image itself."""
    cfg = composed("finetune=frozen", "finetune.views=2", "augment=light")
    _, model, data, _ = fit(cfg, keep=True, epochs=1)
    behind = model.network.num_constant_layers(model.first_trainable_stage)
    for split, layers_applied in (("train", 0), ("val", behind)):
        trainer = build_trainer(
            trainer_settings(cfg), logger=False, enable_checkpointing=False, enable_progress_bar=False
        )
        trainer.callbacks.append(create_feature_cache(cfg, model, data))
        trainer.predict(model, data.split_dataloader(split))
        assert next(iter(data.split_dataloader(split))).layers_applied == layers_applied


def test_where_there_is_no_room_it_says_so_and_trains_on(monkeypatch, caplog):
    cfg = composed("finetune=frozen")
    expected, *_ = fit(cfg, keep=False)
    build(cfg)  # packs the pixels
    monkeypatch.setenv("FACEATTR_CACHE_GB", "0.0002")
    found, _, _, kept = fit(cfg, keep=True)
    assert found.losses == expected.losses
    assert kept.stored_arrays == [] and files() == []
    assert caplog.text.count("The frozen stages run in every epoch") == 1


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (["finetune=frozen"], None),
        (["finetune=frozen", "augment=light", "finetune.views=2"], None),
        (["finetune=frozen", "augment=light"], "finetune.views=K"),
        (["finetune=full"], "no stage is frozen"),
        (["finetune=frozen", "finetune.cache=off"], "finetune.cache=off"),
        (["finetune=frozen", "data.pack=off"], "data.pack=off"),
        (["finetune=frozen", "trainer.limit_batches=2"], "limit_batches"),
    ],
)
def test_a_run_says_why_nothing_is_kept(overrides, reason):
    model, _ = build(cfg := composed(*overrides))
    found = reason_without_feature_cache(cfg, model)
    assert found is None if reason is None else reason in found


MODELS = sorted({file.stem for file in (ROOT / "conf" / "model").glob("*.yaml")} - {"_base"})


@pytest.mark.parametrize("model", MODELS)
def test_every_model_can_be_cut_below_each_stage(model):
    small = ["model.image_size=[64,64]"] if model.startswith(("vgg", "alexnet_")) else []
    cfg = compose_config(f"model={model}", "model.pretrained=false", *small)
    task = Task.from_config(["no", "yes"], ordinal=False, loss="auto")
    network = create_network(cfg, task).eval()
    images = torch.rand(1, 3, *cfg.model.image_size)
    with torch.inference_mode():
        expected = network(images)
        for start in range(1, len(network.stage_names)):
            cut = network.num_constant_layers(start)
            assert torch.equal(network(network(images, end=cut), begin=cut), expected)
            behind = {name for name, _ in network.named_parameters() if name.startswith(network.layer_names[cut:])}
            trained = {
                n for n, _ in network.named_parameters() if network.stage_names.index(network.stage_of(n)) >= start
            }
            assert trained == behind
    assert network.num_constant_layers(0) == 0


def test_a_backbone_that_is_no_chain_is_kept_as_a_whole():
    cfg = compose_config("model=timm", "model.name=vit_tiny_patch16_224", "model.pretrained=false")
    network = create_network(cfg, Task.from_config(["no", "yes"], ordinal=False, loss="auto"))
    last = len(network.stage_names) - 1
    assert [network.num_constant_layers(start) for start in range(last + 1)] == [0] * last + [1]


KEEPING = (*TINY, "augment=none", "finetune.train_from=[[0,head],[1,-2]]", "trainer.patience=null")


def run(folder: Path, *arguments: str) -> str:
    ended = inside("train", *arguments, *KEEPING, cwd=folder)
    assert ended.code == 0, ended.err
    return ended.out + ended.err


def test_a_run_stores_what_was_kept_and_judges_as_evaluate_does(tmp_path):
    said = run(tmp_path, "trainer.max_epochs=2", "hydra.run.dir=kept")
    run(tmp_path, "trainer.max_epochs=2", "hydra.run.dir=whole", "finetune.cache=off")
    assert said.count("Output of the frozen stages for 60 images: kept") == 2
    stored = json.loads((tmp_path / "kept" / "run.json").read_text())["feature_cache"]
    assert [entry["trained_from"] for entry in stored] == ["head", "block4"]
    assert json.loads((tmp_path / "whole" / "run.json").read_text())["feature_cache"] == "finetune.cache=off"
    for name in ("test_metrics.json", "val_metrics.json"):
        found, expected = (json.loads((tmp_path / folder / name).read_text()) for folder in ("kept", "whole"))
        assert found["accuracy"] == expected["accuracy"]
    ended = inside(
        "evaluate",
        "ckpt=kept/checkpoints/best.ckpt",
        "trainer.precision=32",
        FIGURES,
        "hydra.run.dir=judged",
        cwd=tmp_path,
    )
    assert ended.code == 0, ended.err
    own, judged = (pd.read_csv(tmp_path / folder / "predictions_test.csv") for folder in ("kept", "judged"))
    pd.testing.assert_frame_equal(own, judged, atol=1e-6)


def test_views_are_of_training_images_only(tmp_path):
    given = ("finetune=frozen", "augment=light", "finetune.views=2", "trainer.max_epochs=1", "hydra.run.dir=run")
    ended = inside("train", *TINY, *given, cwd=tmp_path)
    assert ended.code == 0, ended.err
    counts = json.loads((tmp_path / "run" / "run.json").read_text())["images"]
    said, rest = ended.out + ended.err, counts["val"] + counts["test"]
    assert said.count("frozen stages for") == 3
    assert f"frozen stages for 2 augmented views of {counts['train']} images: kept" in said
    assert f"frozen stages for {rest} images: kept" in said and f"frozen stages for {rest} images: found" in said


def test_a_resumed_run_is_the_uninterrupted_one(tmp_path):
    run(tmp_path, "trainer.max_epochs=3", "hydra.run.dir=whole", "optim.schedule=constant")
    run(tmp_path, "trainer.max_epochs=2", "hydra.run.dir=halves", "optim.schedule=constant")
    ended = inside("train", "ckpt=halves/checkpoints/last.ckpt", "trainer.max_epochs=3", cwd=tmp_path)
    assert ended.code == 0, ended.err
    assert "frozen stages for 60 images: found" in ended.out + ended.err
    whole, halves = (torch.load(tmp_path / f / "checkpoints" / "last.ckpt")["state_dict"] for f in ("whole", "halves"))
    assert all(torch.equal(whole[name], halves[name]) for name in whole)
    ended = inside(
        "train", "ckpt=halves/checkpoints/last.ckpt", "trainer.max_epochs=4", "finetune.cache=off", cwd=tmp_path
    )
    assert ended.code == 0 and "not stored: finetune.cache=off" in ended.out + ended.err


@pytest.mark.slow
def test_the_second_job_of_a_sweep_finds_what_the_first_one_kept(tmp_path):
    said = run(
        tmp_path,
        "-m",
        "optim.lr=1e-3,1e-2",
        "trainer.max_epochs=1",
        "hydra.sweep.dir=sweep",
    )
    made, rest = said.count("frozen stages for 60 images: kept"), said.count("frozen stages for 60 images: found")
    assert (made, rest) == (1, 3)  # the first job judges with it, the second trains and judges


def test_seeds_share_it_where_weights_and_images_are_the_same(tmp_path, caplog):
    """Pretrained weights do not depend on the seed, and the order of the table does not depend on the split."""
    caplog.set_level(logging.INFO)
    first, _ = build(composed())
    torch.save(first.network.state_dict(), tmp_path / "weights.pth")
    for seed in (0, 1):
        said = run(tmp_path, f"seed={seed}", "trainer.max_epochs=1", f"model.weights={tmp_path / 'weights.pth'}")
        assert ("frozen stages for 60 images: found" in said.partition("epoch  0/0")[0]) == bool(seed)
    assert len(list(Path(disk_cache.folder()).glob("prefix-*.npy"))) == 1
