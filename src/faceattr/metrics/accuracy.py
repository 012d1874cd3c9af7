"""Accuracy with its Wilson interval, also where one image has several labels; and the figure that study S3 calls mAP."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from faceattr.metrics.intervals import wilson

if TYPE_CHECKING:
    from torch import Tensor

    from faceattr.models.task import Task

ACCURACY = ("accuracy", "accuracy_low", "accuracy_high")


def accuracy(task: Task, probabilities: Tensor, truth: Tensor) -> dict[str, float]:
    """`accuracy` with its 95% interval `accuracy_low` and `accuracy_high` (Wilson's); nan without images.

    Multilabel: the mean over attributes. The labels of one image are not independent, so Wilson's n is `independent_labels`:
    so many independent labels have the same standard error over images (Kish's effective sample size). It lies between the
    number of images and the number of labels.
    """
    n = len(truth)
    if task.multilabel and n:
        share, independent = _independent_labels(probabilities, truth)
        more = {"independent_labels": independent}
    else:
        share, independent, more = float(task.correct(probabilities, truth).mean()) if n else math.nan, n, {}
    return dict(zip(ACCURACY, (share, *wilson(share, independent)), strict=True)) | more


def _independent_labels(probabilities: Tensor, truth: Tensor) -> tuple[float, float]:
    """Mean accuracy over attributes, and the number of independent labels with its standard error."""
    known = truth.isfinite()
    correct = (((probabilities > 0.5) == (truth > 0.5)) & known).double()
    labels = known.sum(0)
    present = labels > 0
    share = float((correct.sum(0)[present] / labels[present]).mean())
    deviations = (correct - known * (correct.sum(0) / labels.clamp_min(1))) / labels.clamp_min(1) / present.sum()
    variance = float(deviations.sum(1).square().sum())
    independent = share * (1 - share) / variance if variance else 0
    return share, min(max(independent, len(truth)), int(labels.sum()))


def published_map(probabilities: Tensor, truth: Tensor) -> float:
    """What study S3 calls mAP: the share of images with |p - y| < 0.5, where p is the probability of a binary task's last class.

    That is accuracy, except for a tie. It is not average precision.
    """
    return float(((probabilities[:, -1] - truth).abs() < 0.5).double().mean())
