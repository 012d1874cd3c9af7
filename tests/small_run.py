"""A small training run by the code that train.py uses, without its files: for tests that compare runs."""

from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from composing import compose_config

from faceattr.commands.build_from_config import (
    create_classifier,
    create_data,
    create_feature_cache,
    create_task,
    read_table,
    reason_without_feature_cache,
    trainer_settings,
)
from faceattr.training.compiled_step import compile_steps
from faceattr.training.trainer import build_trainer

SMALL = ("model=cnn", "model.image_size=[32,32]", "data.n=130", "data.image_size=32", "data.batch_size=16")


class Losses(pl.Callback):
    def __init__(self) -> None:
        self.steps: list[float] = []
        self.validation: list[float] = []

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, *_: Any) -> None:
        self.steps.append(float(outputs["loss"]))

    def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
        self.validation.append(float(trainer.callback_metrics["val_loss"]))


class Run:
    """`epochs` of training, with all that trainer.compile, data.pack and finetune.cache ask for; batches are made on `device`."""

    def __init__(
        self, *overrides: str, epochs: int = 2, ckpt: Path | None = None, device: torch.device | None = None
    ) -> None:
        cfg = compose_config(*SMALL, *overrides)
        pl.seed_everything(cfg.seed, verbose=False)
        table = read_table(cfg)
        task = create_task(cfg, table)
        self.data = create_data(cfg, table)
        self.model = create_classifier(cfg, task)
        if device is not None:
            self.data.move_to(device)
        compile_steps(self.model, str(cfg.trainer.compile), cfg.data.batch_size)
        self.losses, callbacks = Losses(), []
        if reason_without_feature_cache(cfg, self.model) is None:
            callbacks = [create_feature_cache(cfg, self.model, self.data)]
        quiet = {
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "num_sanity_val_steps": 0,
        }
        clip = {"gradient_clip_val": cfg.trainer.gradient_clip}
        self.trainer = build_trainer(
            trainer_settings(cfg), callbacks=[self.losses, *callbacks], max_epochs=epochs, **quiet, **clip
        )
        self.trainer.fit(self.model, datamodule=self.data, ckpt_path=ckpt, weights_only=True)

    @property
    def state(self) -> dict[str, torch.Tensor]:
        return {name: tensor.cpu() for name, tensor in self.model.state_dict().items()}
