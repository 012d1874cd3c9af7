"""What a run leaves behind while it trains: metrics.csv (a row per epoch), its checkpoints, and run.json."""

import logging
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint

from faceattr.data.batches import Batch
from faceattr.files import write_atomically
from faceattr.message_text import counted
from faceattr.metrics import registry
from faceattr.progress import Progress

log = logging.getLogger(__name__)

QUIET = 60.0
"""Seconds of an epoch before its tenths are logged."""
SHOWN = ("train_loss", "train_accuracy", "val_loss", "val_accuracy", "val_accuracy_low", "val_accuracy_high")


class History(pl.Callback):
    """A row per epoch, stored in the checkpoint too, so that a resumed run has them all.

    `images_per_second` counts training only: from the epoch's start to its last step.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.rows: list[dict[str, Any]] = []

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._started, self._images = time.perf_counter(), 0
        title = "" if sys.stderr.isatty() else f"epoch {trainer.current_epoch}"  # a terminal has Lightning's bar
        self._progress = Progress(title, trainer.num_training_batches, unit="batch", delay=QUIET)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any) -> None:
        batch: Batch = args[1]
        self._images += len(batch.rows) * trainer.world_size
        self._progress.update()
        if trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
            if pl_module.device.type == "cuda":
                torch.cuda.synchronize()
            self._trained = time.perf_counter()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        row = {
            "epoch": trainer.current_epoch,
            **{name: metrics[name] for name in sorted(metrics, key=lambda name: (not name.startswith("train"), name))},
            "lr": max(group["lr"] for group in trainer.optimizers[0].param_groups),
            "seconds": time.perf_counter() - self._started,
            "images_per_second": self._images / (self._trained - self._started),
        }
        self.rows = [old for old in self.rows if old["epoch"] < row["epoch"]] + [row]
        if trainer.is_global_zero:
            self.write()
            log.info(
                "epoch %2d/%d  train loss %.4f accuracy %.3f · val loss %.4f accuracy %.3f (%.3f–%.3f) · %.0f s, %.0f images/s",
                row["epoch"],
                (trainer.max_epochs or 0) - 1,
                *(row.get(name, float("nan")) for name in SHOWN),
                row["seconds"],
                row["images_per_second"],
            )

    def write(self) -> None:
        """metrics.csv as it stands."""
        with write_atomically(self.file) as stream:
            pd.DataFrame(self.rows).to_csv(stream, index=False)

    @property
    def steady_rate(self) -> float | None:
        """Median images per second of the training epochs after the first (of the first, where it is the only one)."""
        rates = [row["images_per_second"] for row in self.rows]
        return statistics.median(rates[1:] or rates) if rates else None

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows = list(state_dict["rows"])


class Checkpoints(ModelCheckpoint):
    """`best.ckpt` by a monitored metric and `last.ckpt`, written at the boundaries of epochs only, the start included:
    an interrupted run always has a `last.ckpt`, and resuming from one is exact."""

    def __init__(self, folder: Path, monitor: str) -> None:
        super().__init__(
            folder,
            filename="best",
            monitor=monitor,
            mode=registry.monitors()[monitor],
            auto_insert_metric_name=False,
            enable_version_counter=False,
            save_on_train_epoch_end=True,
        )

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        if trainer.current_epoch == 0:
            trainer.save_checkpoint(self.file("last"))

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_train_epoch_end(trainer, pl_module)
        trainer.save_checkpoint(self.file("last"))  # Lightning's `save_last` writes only when the best one improved

    def file(self, name: str) -> Path:
        """`best` or `last` in the run's folder."""
        return Path(str(self.dirpath)) / f"{name}.ckpt"

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """A run's folder may have been moved since: its checkpoints are looked for where it is now."""
        here = {str(self.file("best")): score for score in state_dict["best_k_models"].values()}
        paths = {name: str(self.file("best")) for name in ("best_model_path", "kth_best_model_path") if here}
        moved = {"dirpath": self.dirpath, "best_k_models": here}
        super().load_state_dict({**state_dict, **paths, **moved})


class Patience(EarlyStopping):
    """Early stopping that logs when it stops. A resumed run may change its patience."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """A run that had stopped, and was interrupted while it was evaluated, does not train one more epoch; with more patience
        it trains on."""
        if self.wait_count >= self.patience:
            trainer.should_stop = True
            log.info(
                "Nothing is trained: %s has not improved for %s (trainer.patience=%d)",
                *(self.monitor, counted(self.wait_count, "epoch"), self.patience),
            )
        else:
            self.stopped_epoch = 0

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.stopped_epoch and self.stopped_epoch + 1 != trainer.max_epochs:
            epochs = counted(self.wait_count, "epoch")
            log.info(
                "Stopped early: %s has not improved for %s (trainer.patience=%d)", self.monitor, epochs, self.patience
            )

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict({**state_dict, "patience": self.patience})
