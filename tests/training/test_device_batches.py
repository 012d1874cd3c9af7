"""Training on batches gathered on the device, with the CPU as that device: the run of the ordinary loader, digit by digit."""

from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from composing import compose_config

from faceattr.commands.settings import (
    create_classifier,
    create_data,
    create_feature_cache,
    read_table,
    reason_without_feature_cache,
    trainer_settings,
)
from faceattr.data.device_batches import DeviceBatches
from faceattr.models.task import Task
from faceattr.training.trainer import build_trainer

SMALL = ("name=test", "model=cnn", "model.image_size=[32,32]", "data.n=60", "data.image_size=32", "data.batch_size=16")
ON_CPU = ("trainer=cpu", "trainer.precision=32")


class Losses(pl.Callback):
    def __init__(self) -> None:
        self.steps: list[float] = []

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, *_: Any) -> None:
        self.steps.append(float(outputs["loss"]))


def train(*overrides: str, on_device: bool) -> tuple[list[float], dict[str, torch.Tensor]]:
    cfg = compose_config(*SMALL, *ON_CPU, *overrides)
    pl.seed_everything(cfg.seed, verbose=False)
    table = read_table(cfg)
    model = create_classifier(cfg, Task.from_config(table.attrs["classes"], ordinal=False, loss=cfg.loss))
    data = create_data(cfg, table)
    if on_device:
        data.move_to(torch.device("cpu"))
        assert isinstance(data.train_dataloader(), DeviceBatches)
    losses, callbacks = Losses(), []
    if reason_without_feature_cache(cfg, model) is None:
        callbacks = [create_feature_cache(cfg, model, data)]
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "num_sanity_val_steps": 0}
    trainer = build_trainer(trainer_settings(cfg), callbacks=[losses, *callbacks], max_epochs=2, **quiet)
    trainer.fit(model, datamodule=data)
    return losses.steps, model.state_dict()


@pytest.mark.parametrize(
    "overrides", [("augment=light",), ("finetune=last_block", "augment=none")], ids=["pixels", "features"]
)
def test_training_on_device_batches_is_the_same_run(overrides):
    (losses, state), (expected, expected_state) = (train(*overrides, on_device=on) for on in (True, False))
    assert losses == expected and len(losses) > 4
    assert all(torch.equal(state[name], tensor) for name, tensor in expected_state.items())
