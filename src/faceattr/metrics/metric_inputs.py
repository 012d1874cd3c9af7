"""What a metric is computed from: predictions as they are (its value), or resampled (its interval).

Classes are one problem. Attributes are one problem each, of two classes (has it not, has it), over its known labels; a metric
of many attributes is the mean over them. So a metric is written for classes only.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from faceattr.metrics.ranking import Ranking

if TYPE_CHECKING:
    from torch import Tensor

    from faceattr.models.task import Task


@dataclass(frozen=True)
class Predictions:
    """Probabilities [N, K] and true positions [N] of one problem.

    `kind` is the task's (binary, multiclass, ordinal) or `attribute`. Of two classes the last one is positive. `rows` [N] are
    the images of the problem, where these are not all images.
    """

    kind: str
    probabilities: Tensor
    truth: Tensor
    rows: np.ndarray | None = None

    @property
    def binary(self) -> bool:
        return self.kind in ("binary", "attribute")

    @property
    def num_classes(self) -> int:
        return self.probabilities.shape[1]

    @cached_property
    def predicted(self) -> Tensor:
        """Positions [N]."""
        return self.probabilities.argmax(1)

    @cached_property
    def present(self) -> Tensor:
        """Bool [K]: classes that at least one image has."""
        return self.truth.bincount(minlength=self.num_classes) > 0

    @property
    def one_hot(self) -> Tensor:
        """Bool [N, K]: the truth."""
        from torch.nn.functional import one_hot

        return one_hot(self.truth, self.num_classes).bool()

    def of_classes(self, values: Tensor) -> float:
        """One value of values [K]: the positive class's for two classes (nan without such images), else the mean over the
        present classes."""
        if not self.binary:
            return float(values[self.present].mean())
        return float(values[-1]) if self.present[-1] else float("nan")


def problems(task: Task, probabilities: Tensor, truth: Tensor) -> list[Predictions]:
    """The classes as one problem; multilabel: each attribute is one, over its known labels (there may be none)."""
    if not task.multilabel:
        return [Predictions(task.kind, probabilities, truth)]
    return [of_attribute(probabilities[:, column], truth[:, column]) for column in range(len(task.classes))]


def all_labels(task: Task, probabilities: Tensor, truth: Tensor) -> list[Predictions]:
    """The classes as one problem; multilabel: every known label of every attribute, together, as one."""
    return [Predictions(task.kind, *task.flatten_labels(probabilities, truth))]


def of_attribute(probability: Tensor, truth: Tensor) -> Predictions:
    """Probabilities [N] and truth [N] (1, 0 or nan) of one attribute as a problem of two classes."""
    import torch

    known = truth.isfinite()
    positive = probability[known]
    pair = torch.stack((1 - positive, positive), 1)
    return Predictions("attribute", pair, (truth[known] > 0.5).long(), known.nonzero()[:, 0].numpy())


class Resampler:
    """Predictions of one problem, sorted once, so that metrics of thousands of resamples are quick."""

    def __init__(self, predictions: Predictions) -> None:
        probabilities, truth = predictions.probabilities.numpy(), predictions.truth.numpy()
        n, k = probabilities.shape
        self.kind, self.binary, self.num_classes, self.rows = predictions.kind, predictions.binary, k, predictions.rows
        cells = truth * k + probabilities.argmax(1)
        self.by_cell = np.argsort(cells, kind="stable")
        self.cells, self.starts = np.unique(np.sort(cells), return_index=True)
        self.log_loss = -np.log(probabilities[np.arange(n), truth].astype(np.float64).clip(1e-12)).astype(np.float32)
        ranked = [k - 1] if self.binary else range(k)
        self.rankings = [Ranking(probabilities[:, column], truth == column) for column in ranked]

    def __call__(self, weights: np.ndarray) -> Resamples:
        """Resamples by weights [R, images]: how often each image is in each of them."""
        return Resamples(self, weights if self.rows is None else weights[:, self.rows])


@dataclass(frozen=True)
class Resamples:
    """R resamples of the predictions of one problem: weights [R, N]."""

    resampler: Resampler
    weights: np.ndarray

    @property
    def binary(self) -> bool:
        return self.resampler.binary

    @property
    def attribute(self) -> bool:
        return self.resampler.kind == "attribute"

    @cached_property
    def size(self) -> np.ndarray:
        """Images [R]."""
        return self.weights.sum(1)

    @cached_property
    def confusion(self) -> np.ndarray:
        """Counts [R, true, predicted]."""
        k = self.resampler.num_classes
        counts = np.zeros((len(self.weights), k * k))
        counts[:, self.resampler.cells] = np.add.reduceat(
            self.weights[:, self.resampler.by_cell], self.resampler.starts, axis=1
        )
        return counts.reshape(-1, k, k)

    @property
    def distances(self) -> np.ndarray:
        """How many classes apart the classes are [K, K]."""
        positions = np.arange(self.resampler.num_classes)
        return np.abs(np.subtract.outer(positions, positions))

    @cached_property
    def rankings(self) -> np.ndarray:
        """Average precision and AUROC [2, R]: of the positive class, or the mean over the present classes."""
        return nanmean(np.array([ranking.weighted(self.weights) for ranking in self.resampler.rankings]), 0)

    @property
    def log_loss(self) -> np.ndarray:
        """Mean [R]. No BLAS: its threads would compete with those of the bootstrap."""
        return np.einsum("rn,n->r", self.weights, self.resampler.log_loss) / self.size

    def of_classes(self, values: np.ndarray) -> np.ndarray:
        """Values [R] of values [R, K], as `Predictions.of_classes`; nan marks classes that are not present."""
        return values[:, -1] if self.binary else nanmean(values, 1)


def nanmean(values: np.ndarray, axis: int) -> np.ndarray:
    """Mean of what is not nan; nan, without a warning, where nothing is."""
    known = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        return np.where(known, values, 0).sum(axis) / known.sum(axis)
