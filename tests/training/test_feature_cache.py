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
from composing import MODELS, compose_config
from omegaconf import DictConfig
from programs import FIGURES, TINY, inside

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


def fit(cfg: DictConfig, *, cached: bool, epochs: int = 3) -> tuple[Steps, Classifier, FaceData, FeatureCache]:
    model, data = build(cfg)
    steps, cache = Steps(), create_feature_cache(cfg, model, data)
    trainer = build_trainer(
        trainer_settings(cfg),
        max_epochs=epochs,
        callbacks=[steps, cache] if cached else [steps],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(model, datamodule=data)
    return steps, model, data, cache


def files() -> list[str]:
    return sorted(file.name for file in disk_cache.folder().glob("prefix-*.npy"))


@pytest.mark.parametrize(
    ("policy", "precision", "close"),
    [
        pytest.param("frozen", "32", 1e-6, marks=pytest.mark.slow),
        ("last_block", "32", 1e-6),
        ("gradual", "32", 1e-6),
        pytest.param("gradual", "bf16", 2e-2, marks=pytest.mark.slow),
    ],
)
def test_feature_cache_trains_as_without_it(policy, precision, close):
    cfg = composed(POLICIES[policy], *BN, f"trainer.precision={precision}")
    epochs = 3 if policy == "gradual" else 2
    apart, model, _, cache = fit(cfg, cached=True, epochs=epochs)
    whole, expected, *_ = fit(cfg, cached=False, epochs=epochs)
    assert len(apart.losses) == epochs * 6
    assert apart.losses == pytest.approx(whole.losses, abs=close)
    assert apart.validation == pytest.approx(whole.validation, abs=close)
    assert set(whole.shapes) == {(3, 32, 32)}
    assert (3, 32, 32) not in apart.shapes, "pixels went through the whole network"
    assert len(cache.stored_arrays) == len(set(apart.shapes)) == (3 if policy == "gradual" else 1)
    state = model.state_dict()
    assert state.keys() == expected.state_dict().keys()
    if precision == "32":
        for name, tensor in expected.state_dict().items():
            assert torch.allclose(state[name], tensor, atol=1e-6), name


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("precision", ["32", "bf16", "16"])
def test_feature_cache_trains_as_without_it_on_cuda(precision):
    cfg = composed("finetune=last_block", *BN, "trainer=gpu", f"trainer.precision={precision}")
    apart, *_ = fit(cfg, cached=True)
    whole, *_ = fit(cfg, cached=False)
    assert min(apart.layers_applied) > 0
    assert apart.losses == pytest.approx(whole.losses, abs=1e-4 if precision == "32" else 5e-2)  # 18 steps of about 1


def test_feature_cache_stores_the_output_of_the_last_constant_layer():
    """Pooling in the head learns nothing: a pooled vector is stored, not a map."""
    steps, model, *_ = fit(composed("finetune=frozen"), cached=True, epochs=1)
    assert set(steps.shapes) == {(model.network.get_submodule("head.out").in_features,)}


def test_feature_cache_stores_outputs_in_the_runs_precision():
    for precision, dtype in (("32", np.float32), ("bf16", np.int16)):
        _, _, data, _ = fit(composed("finetune=frozen", f"trainer.precision={precision}"), cached=True, epochs=1)
        assert data.images("train").inputs.dtype == dtype
    assert len(files()) == 2


def test_feature_cache_is_not_shared_by_other_weights_input_or_images():
    fit(composed("finetune=frozen"), cached=True, epochs=1)
    assert len(files()) == 1
    fit(composed("finetune=frozen", "optim.lr=0.1", "data.batch_size=7"), cached=True, epochs=1)
    assert len(files()) == 1, "what does not change the outputs must not change the key"
    for number, other in enumerate(
        ("seed=1", "model.scaling=imagenet", "data.sample_seed=1", "model.interpolation=nearest")
    ):
        fit(composed("finetune=frozen", "data.seed=0", other), cached=True, epochs=1)
        assert len(files()) == number + 2, other


def test_feature_cache_is_new_after_one_changed_weight_or_statistic():
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
        apart = torch.cat([scores for scores, _ in trainer.predict(model, data.split_dataloader("val"))])
        assert len(files()) == count, name
        data.images("val").serve_pixels()
        trainer.callbacks.pop()
        whole = torch.cat([scores for scores, _ in trainer.predict(model, data.split_dataloader("val"))])
        assert torch.allclose(apart, whole, atol=1e-6)


def test_views_are_augmented_and_drawn_anew_in_each_epoch():
    cfg = composed("finetune=frozen", "finetune.views=3", "augment=light")
    steps, model, data, _ = fit(cfg, cached=True)
    again, *_ = fit(cfg, cached=True)
    assert steps.losses == again.losses
    images = data.images("train")
    stored = images.inputs[np.arange(3 * len(images))].reshape(len(images), 3, -1)
    assert len(stored) == len(data.rows("train"))
    plain = torch.cat([model.scaled(batch.inputs) for batch in data.pixel_batches(data.rows("train"))])
    with torch.inference_mode():
        bare = model.network(plain, end=steps.layers_applied[0]).numpy()
    assert not np.isclose(stored, bare[:, None], atol=1e-4).all(2).any(), "an augmented view equals the plain image"
    assert not np.isclose(stored[:, 0], stored[:, 1], atol=1e-4).all(1).any()
    assert np.corrcoef(stored.mean(1).ravel(), bare.ravel())[0, 1] > 0.9, "views belong to other images"
    drawn = images._positions[images.rows] - np.arange(len(images)) * 3
    assert set(drawn) == {0, 1, 2}
    whole, *_ = fit(cfg, cached=False)
    assert steps.validation[0] == pytest.approx(whole.validation[0], abs=0.1)


def test_training_images_are_predicted_from_pixels_after_training_on_views():
    """Views are for training: a prediction of a training image is of the image itself."""
    cfg = composed("finetune=frozen", "finetune.views=2", "augment=light")
    _, model, data, _ = fit(cfg, cached=True, epochs=1)
    behind = model.network.num_constant_layers(model.first_trainable_stage)
    for split, layers_applied in (("train", 0), ("val", behind)):
        trainer = build_trainer(
            trainer_settings(cfg), logger=False, enable_checkpointing=False, enable_progress_bar=False
        )
        trainer.callbacks.append(create_feature_cache(cfg, model, data))
        trainer.predict(model, data.split_dataloader(split))
        assert next(iter(data.split_dataloader(split))).layers_applied == layers_applied


def test_feature_cache_without_room_warns_and_trains_on(monkeypatch, caplog):
    cfg = composed("finetune=frozen")
    expected, *_ = fit(cfg, cached=False)
    build(cfg)  # packs the pixels
    monkeypatch.setenv("FACEATTR_CACHE_GB", "0.0002")
    steps, _, _, cache = fit(cfg, cached=True)
    assert steps.losses == expected.losses
    assert cache.stored_arrays == [] and files() == []
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
def test_reason_disabled_names_the_key(overrides, reason):
    model, _ = build(cfg := composed(*overrides))
    why = reason_without_feature_cache(cfg, model)
    assert why is None if reason is None else reason in why


@pytest.mark.parametrize("model", MODELS)
def test_network_can_be_split_below_each_stage_of_every_model(model):
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


def test_network_whose_features_are_no_chain_is_one_layer():
    cfg = compose_config("model=timm", "model.name=vit_tiny_patch16_224", "model.pretrained=false")
    network = create_network(cfg, Task.from_config(["no", "yes"], ordinal=False, loss="auto"))
    last = len(network.stage_names) - 1
    assert [network.num_constant_layers(start) for start in range(last + 1)] == [0] * last + [1]


HEAD_FIRST = (*TINY, "augment=none", "finetune.train_from=[[0,head],[1,-2]]", "trainer.patience=null")


def run(folder: Path, *arguments: str) -> str:
    ended = inside("train", *arguments, *HEAD_FIRST, cwd=folder)
    assert ended.code == 0, ended.err
    return ended.out + ended.err


def test_train_records_its_feature_cache_and_evaluates_as_evaluate_does(tmp_path):
    output = run(tmp_path, "trainer.max_epochs=2", "hydra.run.dir=cached")
    run(tmp_path, "trainer.max_epochs=2", "hydra.run.dir=whole", "finetune.cache=off")
    assert output.count("Output of the frozen stages for 60 images: stored") == 2
    stored = json.loads((tmp_path / "cached" / "run.json").read_text())["feature_cache"]
    assert [entry["trained_from"] for entry in stored] == ["head", "block4"]
    assert json.loads((tmp_path / "whole" / "run.json").read_text())["feature_cache"] == "finetune.cache=off"
    for name in ("test_metrics.json", "val_metrics.json"):
        metrics, expected = (json.loads((tmp_path / folder / name).read_text()) for folder in ("cached", "whole"))
        assert metrics["accuracy"] == expected["accuracy"]
    ended = inside(
        "evaluate",
        "ckpt=cached/checkpoints/best.ckpt",
        "trainer.precision=32",
        FIGURES,
        "hydra.run.dir=evaluated",
        cwd=tmp_path,
    )
    assert ended.code == 0, ended.err
    own, evaluated = (pd.read_csv(tmp_path / folder / "predictions_test.csv") for folder in ("cached", "evaluated"))
    pd.testing.assert_frame_equal(own, evaluated, atol=1e-6)


def test_views_are_of_training_images_only(tmp_path):
    given = ("finetune=frozen", "augment=light", "finetune.views=2", "trainer.max_epochs=1", "hydra.run.dir=run")
    ended = inside("train", *TINY, *given, cwd=tmp_path)
    assert ended.code == 0, ended.err
    counts = json.loads((tmp_path / "run" / "run.json").read_text())["images"]
    output, rest = ended.out + ended.err, counts["val"] + counts["test"]
    assert output.count("frozen stages for") == 3
    assert f"frozen stages for 2 augmented views of {counts['train']} images: stored" in output
    assert f"frozen stages for {rest} images: stored" in output and f"frozen stages for {rest} images: found" in output


def test_resumed_run_with_feature_cache_ends_as_an_uninterrupted_one(tmp_path):
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
def test_feature_cache_of_a_sweeps_first_job_is_found_by_the_second(tmp_path):
    output = run(
        tmp_path,
        "-m",
        "optim.lr=1e-3,1e-2",
        "trainer.max_epochs=1",
        "hydra.sweep.dir=sweep",
    )
    made, rest = output.count("frozen stages for 60 images: stored"), output.count("frozen stages for 60 images: found")
    assert (made, rest) == (1, 3)  # the first job evaluates with it, the second trains and evaluates


@pytest.mark.slow
def test_feature_cache_is_shared_by_seeds_with_equal_weights_and_images(tmp_path, caplog):
    """Pretrained weights do not depend on the seed, and the order of the table does not depend on the split."""
    caplog.set_level(logging.INFO)
    first, _ = build(composed())
    torch.save(first.network.state_dict(), tmp_path / "weights.pth")
    for seed in (0, 1):
        output = run(tmp_path, f"seed={seed}", "trainer.max_epochs=1", f"model.weights={tmp_path / 'weights.pth'}")
        assert ("frozen stages for 60 images: found" in output.partition("epoch  0/0")[0]) == bool(seed)
    assert len(list(Path(disk_cache.folder()).glob("prefix-*.npy"))) == 1
