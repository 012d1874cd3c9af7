"""Metrics by kind of target, from probabilities kept until the end of an epoch, and the interval of an accuracy.

Scores are gathered and computed once, on the CPU: average precision and AUROC over running state would keep every score
anyway, and cost a synchronisation a step.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchmetrics.functional.classification import (
    multiclass_auroc,
    multiclass_average_precision,
    multiclass_cohen_kappa,
    multiclass_confusion_matrix,
    multiclass_f1_score,
    multiclass_recall,
)

from faceattr.targets import Target


def wilson(accuracy: float, n: int) -> tuple[float, float]:
    """95% interval (low, high) of a proportion measured on `n` images (Wilson 1927); nan without images."""
    if n == 0:
        return math.nan, math.nan
    z = 1.959963984540054
    centre = (accuracy + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(accuracy * (1 - accuracy) / n + z * z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def evaluate(target: Target, probabilities: Tensor, truth: Tensor) -> dict[str, Any]:
    """Flat metrics from probabilities [N, classes] and class positions [N].

    A figure that the images cannot give (the recall of a class that is not among them, a ranking with one class only)
    is None, and averages are over the classes that are there. Binary: average precision, AUROC and F1 of the positive class.
    """
    k = len(target.classes)
    predicted = probabilities.argmax(1)
    n = len(truth)
    accuracy = float((predicted == truth).double().mean()) if n else math.nan
    low, high = wilson(accuracy, n)
    found: dict[str, Any] = {"accuracy": accuracy, "accuracy_low": low, "accuracy_high": high, "n": n}
    if n == 0:
        return _plain(found)
    present = torch.bincount(truth, minlength=k) > 0
    recall = multiclass_recall(predicted, truth, k, average="none")
    found["balanced_accuracy"] = float(recall[present].mean())
    found |= _ranking(target, probabilities, truth, present)
    if target.kind == "binary":
        f1 = float(multiclass_f1_score(predicted, truth, k, average="none")[-1])
        found["f1"] = f1 if present[-1] else math.nan
        found["positive_class"] = target.classes[-1]
    else:
        found["f1"] = float(multiclass_f1_score(predicted, truth, k, average="none")[present].mean())
    if target.kind == "ordinal":
        found["mean_absolute_error"] = float((predicted - truth).abs().double().mean())
        found["quadratic_kappa"] = float(multiclass_cohen_kappa(predicted, truth, k, weights="quadratic"))
    if target.loss == "one_vs_rest":  # as Keras counts under a pair of sigmoid units
        own = torch.nn.functional.one_hot(truth, k).bool()
        found["accuracy_per_unit"] = float(((probabilities > 0.5) == own).double().mean())
    true_probability = probabilities.gather(1, truth[:, None]).double()
    found["log_loss"] = float(-true_probability.clamp_min(1e-12).log().mean())
    for position, name in enumerate(target.classes):
        found[f"recall_{name}"] = float(recall[position]) if present[position] else math.nan
        found[f"n_{name}"] = int((truth == position).sum())
    return _plain(found)


def _ranking(target: Target, probabilities: Tensor, truth: Tensor, present: Tensor) -> dict[str, float]:
    k = len(target.classes)
    if present.sum() < 2:
        return {"average_precision": math.nan, "auroc": math.nan}
    precision = multiclass_average_precision(probabilities, truth, k, average="none")
    area = multiclass_auroc(probabilities, truth, k, average="none")
    if target.kind == "binary":
        return {"average_precision": float(precision[-1]), "auroc": float(area[-1])}
    return {"average_precision": float(precision[present].mean()), "auroc": float(area[present].mean())}


@dataclass(frozen=True)
class Paired:
    """How much more often one model is right than another on the same images. `wins` and `losses` count the images (of all
    runs) that only it, or only the other, has right; `p` is McNemar's exact test of them."""

    difference: float
    low: float
    high: float
    wins: int
    losses: int
    p: float


def paired(right: np.ndarray, other: np.ndarray) -> Paired:
    """Accuracy of `right` minus that of `other`, booleans [runs, images] of the same images (one run: [1, images]).

    The 95% interval is of the mean over images of the mean over runs: an image that several runs judge is one image.
    McNemar's test (1947) pools the runs, which a thousand runs on ten images would make look like evidence: where the two
    disagree, believe the interval.
    """
    from scipy.stats import binomtest  # a second, which only comparisons have to spend

    if right.shape != other.shape:
        raise ValueError(f"not the same images: {right.shape} and {other.shape}")
    gains = right.mean(0) - other.mean(0)
    difference, half = float(gains.mean()), 1.959963984540054 * float(gains.std(ddof=1)) / math.sqrt(len(gains))
    wins, losses = int((right & ~other).sum()), int((other & ~right).sum())
    p = float(binomtest(wins, wins + losses).pvalue) if wins + losses else 1.0
    return Paired(difference, difference - half, difference + half, wins, losses, p)


def published_map(probabilities: Tensor, truth: Tensor) -> float:
    """What study S3 calls mAP: the share of images with |p - y| < .5, p being the probability of a binary target's last
    class. That is accuracy, but for a tie; the average precision is another thing."""
    return float(((probabilities[:, -1] - truth).abs() < 0.5).double().mean())


def _plain(found: dict[str, Any]) -> dict[str, Any]:
    return {key: None if isinstance(value, float) and math.isnan(value) else value for key, value in found.items()}


def confusion(target: Target, probabilities: Tensor, truth: Tensor) -> Tensor:
    """Counts [classes, classes]: rows are true, columns predicted."""
    return multiclass_confusion_matrix(probabilities.argmax(1), truth, len(target.classes))


def describe_published(entry: Mapping[str, Any], ours: float | None) -> str:
    """One line: a preset's published figure with its interval, where it is printed, and ours."""
    what = f"{entry['split']} {entry['metric']}"
    here = "none here" if ours is None else f"here {ours:.3f}"
    if entry["value"] is None:
        return f"{what} without a number ({entry['source']}), {here}"
    low, high = wilson(entry["value"], entry["n"])
    return f"{what} {entry['value']:.3f} (95% {low:.3f}–{high:.3f}, n = {entry['n']:,}; {entry['source']}), {here}"


def describe(metrics: dict[str, Any]) -> str:
    """One line for a person: accuracy with its interval, then average precision."""
    if not metrics.get("n"):
        return "no images"
    text = (
        f"accuracy {metrics['accuracy']:.3f} "
        f"(95% {metrics['accuracy_low']:.3f}–{metrics['accuracy_high']:.3f}, n = {metrics['n']:,})"
    )
    if metrics.get("average_precision") is not None:
        of = f" of {metrics['positive_class']}" if metrics.get("positive_class") else " (macro)"
        text += f", average precision{of} {metrics['average_precision']:.3f}"
    return text
