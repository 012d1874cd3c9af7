"""From a classifier and batches to probabilities, with torch."""

import logging
import threading
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import Tensor
from torch.utils.data import IterableDataset

from faceattr.config.instantiate import group_settings
from faceattr.config.schema import Trainer
from faceattr.data.batches import Batch
from faceattr.models.gradcam import overlay
from faceattr.models.task import Task
from faceattr.progress import Progress
from faceattr.training.checkpoint_format import load
from faceattr.training.lightning_module import Classifier
from faceattr.training.prediction_rows import RowFormat, SubjectBatches
from faceattr.training.trainer import build_trainer

log = logging.getLogger(__name__)


def probabilities(
    model: Classifier, loader: Iterable[Batch], settings: Trainer, *callbacks: Callback
) -> tuple[Tensor, Tensor]:
    """Float32 [N, classes] and the row [N] of each, in the loader's order, without gradients, on the trainer's device."""
    collected = CollectedScores()
    trainer = build_trainer(settings, single=True, callbacks=[*callbacks, collected])
    trainer.predict(model, loader, return_predictions=False)
    scores = np.frombuffer(collected.scores, np.float32).reshape(-1, len(model.task.classes))
    return torch.from_numpy(scores), torch.from_numpy(np.frombuffer(collected.rows, np.int64))


class CollectedScores(Callback):
    """Scores and rows of all batches, each in one buffer that grows. Many small tensors between large short-lived ones would
    fragment the heap: several kilobytes an image."""

    def __init__(self) -> None:
        self.scores, self.rows = bytearray(), bytearray()

    def on_predict_start(self, trainer: Any, *_: Any) -> None:
        self._progress = Progress("Evaluating", sum(trainer.num_predict_batches), unit="batch")

    def on_predict_end(self, *_: Any) -> None:
        self._progress.__exit__()

    def on_predict_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, *_: Any) -> None:
        scores, rows = outputs
        self.scores += scores.cpu().numpy().tobytes()
        self.rows += rows.cpu().numpy().tobytes()
        self._progress.update()


def predictions_table(paths: pd.Series, task: Task, scores: Tensor) -> pd.DataFrame:
    """predictions_<split>.csv: the columns `path`, `predicted` and probabilities of `RowFormat`. scores: float32 [N, classes]."""
    rows = RowFormat(task.classes, task.multilabel)
    if task.multilabel:
        predicted = [rows.predicted(row) for row in scores.numpy()]
    else:  # as `Task.correct` takes it
        predicted = [task.classes[position] for position in scores.argmax(1).tolist()]
    probability = dict(zip(rows.probabilities, scores.numpy().T, strict=True))
    return pd.DataFrame({"path": paths.to_numpy(), "predicted": predicted} | probability)


class TorchBackend:
    """The classifier in a checkpoint, as a `Backend`. Threads may share it: one computes at a time."""

    explains = True

    def __init__(self, path: Path, trainer: Trainer | None = None, *, accelerator: str | None = None) -> None:
        """trainer: device and precision; None: as in training. accelerator: replaces the trainer's."""
        self.model, description = load(path)
        self.name, self.data = description["config"]["name"], description["config"]["data"]
        self.spec = self.model.spec
        self.classes, self.multilabel = tuple(self.model.task.classes), self.model.task.multilabel
        self.temperature, self.usual_inputs = self.model.temperature, self.model.usual_inputs
        trainer = trainer or group_settings(description["config"]["trainer"], Trainer)
        self._settings = trainer if accelerator is None else replace(trainer, accelerator=accelerator)
        self._trainer: pl.Trainer | None = None
        self._receiver, self._lock = _Receiver(), threading.Lock()

    def predict(self, subjects: SubjectBatches) -> None:
        with self._lock, closing(subjects.batches()) as batches:
            trainer, self._trainer = self._trainer or self._create_trainer(), None
            self._receiver.subjects = subjects
            trainer.predict(self.model, _TensorBatches(batches), return_predictions=False)
            self._receiver.subjects = None  # they hold the images
            self._trainer = trainer  # for the next call: making one takes longer than classifying a small image
        subjects.finish()

    def _create_trainer(self) -> pl.Trainer:
        return build_trainer(self._settings, single=True, callbacks=[self._receiver])

    def explain(self, pixels: np.ndarray, position: int) -> np.ndarray:
        batch = torch.from_numpy(np.stack([pixels])).permute(0, 3, 1, 2)
        with self._lock:
            return overlay(pixels, self.model.explain(batch, torch.tensor([position]))[0])


class _Receiver(Callback):
    """Gives `subjects` the scores of each batch."""

    subjects: SubjectBatches | None = None

    def on_predict_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, *_: Any) -> None:
        assert self.subjects is not None
        self.subjects.add(outputs[0].float().cpu().numpy())


class _TensorBatches(IterableDataset[Batch]):
    """Batches of pixels, uint8 [B, H, W, 3], as the module takes them."""

    def __init__(self, batches: Iterable[np.ndarray]) -> None:
        self._batches = batches

    def __iter__(self) -> Iterator[Batch]:
        for pixels in self._batches:
            unknown = torch.full((len(pixels),), -1)
            yield Batch(torch.from_numpy(pixels).permute(0, 3, 1, 2), unknown, unknown)
