"""Metrics by kind of task, from probabilities kept until the end of an epoch.

Scores are gathered and computed once, on the CPU: average precision and AUROC over running state would keep every score
anyway, and cost a synchronisation a step.
"""

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import torch
from torch import Tensor
from torchmetrics.functional.classification import (
    binary_auroc,
    binary_average_precision,
    multiclass_auroc,
    multiclass_average_precision,
    multiclass_cohen_kappa,
    multiclass_confusion_matrix,
    multiclass_f1_score,
    multiclass_recall,
)

from faceattr.metrics import calibration, intervals
from faceattr.models.task import Task


def evaluate(task: Task, probabilities: Tensor, truth: Tensor) -> dict[str, Any]:
    """Flat metrics from probabilities [N, classes] and the truth as `Task` has it.

    A figure that the images cannot give (the recall of a class that is not among them, a ranking with one class only)
    is None, and averages are over the classes that are there. Binary: average precision, AUROC and F1 of the positive class.
    Multilabel: everything is the mean over attributes, each of its known labels, which `<figure>_<attribute>` give.
    """
    k, n = len(task.classes), len(truth)
    found: dict[str, Any] = accuracy(task, probabilities, truth) | {"n": n}
    if n == 0:
        return _plain(found)
    if task.multilabel:
        return _plain(found | _of_attributes(task, probabilities, truth))
    predicted = probabilities.argmax(1)
    present = torch.bincount(truth, minlength=k) > 0
    recall = multiclass_recall(predicted, truth, k, average="none")
    found["balanced_accuracy"] = float(recall[present].mean())
    found |= _ranking(task, probabilities, truth, present)
    if task.kind == "binary":
        f1 = float(multiclass_f1_score(predicted, truth, k, average="none")[-1])
        found["f1"] = f1 if present[-1] else math.nan
        found["positive_class"] = task.classes[-1]
    else:
        found["f1"] = float(multiclass_f1_score(predicted, truth, k, average="none")[present].mean())
    if task.kind == "ordinal":
        distance = (predicted - truth).abs()
        found["mean_absolute_error"] = float(distance.double().mean())
        found |= {f"off_by_{far}": float((distance == far).double().mean()) for far in range(1, k)}
        found["accuracy_within_one"] = float((distance <= 1).double().mean())
        found["quadratic_kappa"] = float(multiclass_cohen_kappa(predicted, truth, k, weights="quadratic"))
    if task.loss == "one_vs_rest":  # as Keras counts under a pair of sigmoid units
        own = torch.nn.functional.one_hot(truth, k).bool()
        found["accuracy_per_unit"] = float(((probabilities > 0.5) == own).double().mean())
    found["log_loss"] = calibration.log_loss(probabilities.numpy(), truth.numpy())
    for position, name in enumerate(task.classes):
        found[f"recall_{name}"] = float(recall[position]) if present[position] else math.nan
        found[f"n_{name}"] = int((truth == position).sum())
    return _plain(found)


def accuracy(task: Task, probabilities: Tensor, truth: Tensor) -> dict[str, float]:
    """`accuracy` with its 95% interval `accuracy_low` and `accuracy_high` (Wilson's).

    The labels of one image are no independent draws: for attributes, the mean over them, Wilson's n is the number of
    `independent_labels` with the same standard error over images (Kish's effective sample size), between images and labels.
    """
    n = len(truth)
    if task.multilabel and n:
        share, draws = _independent_labels(probabilities, truth)
        found = {"independent_labels": draws}
    else:
        share, draws, found = float(task.correct(probabilities, truth).mean()) if n else math.nan, n, {}
    return dict(zip(ACCURACY, (share, *intervals.wilson(share, draws)), strict=True)) | found


def _independent_labels(probabilities: Tensor, truth: Tensor) -> tuple[float, float]:
    """Mean accuracy over attributes, and of how many independent labels that would have the standard error it has."""
    known = truth.isfinite()
    right = (((probabilities > 0.5) == (truth > 0.5)) & known).double()
    labels = known.sum(0)
    there = labels > 0
    each = right.sum(0)[there] / labels[there]
    share = float(each.mean())
    pulls = (right - known * (right.sum(0) / labels.clamp_min(1))) / labels.clamp_min(1) / there.sum()
    variance = float(pulls.sum(1).square().sum())
    independent = share * (1 - share) / variance if variance else 0
    return share, min(max(independent, len(truth)), int(labels.sum()))


ACCURACY = ("accuracy", "accuracy_low", "accuracy_high")


def _of_attributes(task: Task, probabilities: Tensor, truth: Tensor) -> dict[str, Any]:
    known, has, said = truth.isfinite(), truth > 0.5, probabilities > 0.5
    positive, negative = (has & known).sum(0), (~has & known).sum(0)
    hits, rejected, claimed = (has & said & known).sum(0), (~has & ~said & known).sum(0), (said & known).sum(0)
    labels, both = positive + negative, (positive > 0) & (negative > 0)  # others give no ranking
    precision, area = torch.full((2, len(task.classes)), math.nan, dtype=torch.float64)
    for place in both.nonzero()[:, 0].tolist():
        scores, truths = probabilities[known[:, place], place], has[known[:, place], place].long()
        precision[place], area[place] = binary_average_precision(scores, truths), binary_auroc(scores, truths)
    of = {
        "accuracy": (hits + rejected).double() / labels,
        "balanced_accuracy": ((hits / positive + rejected / negative) / 2).double(),
        "average_precision": precision,
        "auroc": area,
        "f1": (2 * hits.double() / (positive + claimed)).where(positive > 0, math.nan),
        "recall": hits.double() / positive,
    }
    means = {name: float(values.nanmean()) for name, values in of.items() if name not in ("accuracy", "recall")}
    scores, decided = task.flatten_labels(probabilities, truth)
    found = means | {"log_loss": calibration.log_loss(scores.numpy(), decided.numpy()), "labels": int(labels.sum())}
    commonest = torch.maximum(positive, negative).double() / labels
    found["commonest_answers"] = float(commonest.nanmean())
    for position, name in enumerate(task.classes):
        found |= {
            f"{figure}_{name}": float(of[figure][position]) for figure in ("accuracy", "average_precision", "recall")
        }
        found |= {f"n_{name}": int(labels[position]), f"positive_{name}": int(positive[position])}
    return found


def _ranking(task: Task, probabilities: Tensor, truth: Tensor, present: Tensor) -> dict[str, float]:
    k = len(task.classes)
    if present.sum() < 2:
        return {"average_precision": math.nan, "auroc": math.nan}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about classes that are not there: they are left out below
        precision = multiclass_average_precision(probabilities, truth, k, average="none")
        area = multiclass_auroc(probabilities, truth, k, average="none")
    if task.kind == "binary":
        return {"average_precision": float(precision[-1]), "auroc": float(area[-1])}
    return {"average_precision": float(precision[present].mean()), "auroc": float(area[present].mean())}


def intervals_of(
    found: Mapping[str, Any], task: Task, probabilities: Tensor, truth: Tensor, groups: Sequence[Any] | None
) -> dict[str, Any]:
    """`<name>_low` and `<name>_high` of the figures in `found`: recalls by Wilson, what has no closed form by
    `intervals.bootstrap`; and what was resampled: images, or whole groups where there are any."""
    binary = task.kind == "binary"
    if task.multilabel:
        sides = intervals.bootstrap_attributes(probabilities.numpy(), truth.numpy(), groups=groups)
    else:
        sides = intervals.bootstrap(probabilities.numpy(), truth.numpy(), binary=binary, groups=groups)
    known = {name: side for name, side in sides.items() if found.get(name) is not None}
    bounds = {
        f"{name}_{which}": bound
        for name, side in known.items()
        for which, bound in zip(("low", "high"), side, strict=True)
    }
    of = {f"recall_{name}": found[f"positive_{name}" if task.multilabel else f"n_{name}"] for name in task.classes}
    of |= {f"accuracy_{name}": found[f"n_{name}"] for name in task.classes if task.multilabel}
    of |= {name: found["n"] for name in ("accuracy_within_one",) if name in found}
    for figure, n in of.items():
        if found.get(figure) is not None:
            low, high = intervals.wilson(found[figure], n)
            bounds |= {f"{figure}_low": low, f"{figure}_high": high}
    return _plain(bounds | {"interval_unit": "image" if groups is None else "group"})


def attributes(found: Mapping[str, Any], task: Task) -> pd.DataFrame:
    """A row per attribute with known labels: name, n (of them), positive, accuracy with its interval, average_precision, recall."""
    figures = ("n", "positive", "accuracy", "average_precision", "recall")
    rows = [{"name": name} | {figure: found[f"{figure}_{name}"] for figure in figures} for name in task.classes]
    table = pd.DataFrame([row for row in rows if row["n"]])
    for side in ("low", "high"):
        table[f"accuracy_{side}"] = [found[f"accuracy_{name}_{side}"] for name in table["name"]]
    return table


def published_map(probabilities: Tensor, truth: Tensor) -> float:
    """What study S3 calls mAP: the share of images with |p - y| < .5, p being the probability of a binary task's last
    class. That is accuracy, but for a tie; the average precision is another thing."""
    return float(((probabilities[:, -1] - truth).abs() < 0.5).double().mean())


def _plain(found: dict[str, Any]) -> dict[str, Any]:
    return {key: None if isinstance(value, float) and math.isnan(value) else value for key, value in found.items()}


def confusion(task: Task, probabilities: Tensor, truth: Tensor) -> Tensor:
    """Counts [classes, classes]: rows are true, columns predicted."""
    return multiclass_confusion_matrix(probabilities.argmax(1), truth, len(task.classes))


def describe_published(entry: Mapping[str, Any], ours: float | None) -> str:
    """One line: a preset's published figure with its interval, where it is printed, and ours."""
    what = f"{entry['split']} {entry['metric']}"
    here = "none here" if ours is None else f"here {ours:.3f}"
    if entry["value"] is None or entry["n"] is None:
        return f"{what} without a number ({entry['source']}), {here}"
    low, high = intervals.wilson(entry["value"], entry["n"])
    return f"{what} {entry['value']:.3f} (95% {low:.3f}–{high:.3f}, n = {entry['n']:,}; {entry['source']}), {here}"


def describe_pair(pair: intervals.Paired, *, multilabel: bool) -> str:
    """One line: how much more often the first of two models is right on the same images, and whether that may be chance."""
    said = f"Difference {pair.difference:+.3f} (95% {pair.low:+.3f} to {pair.high:+.3f}); "
    if multilabel:
        more = f"more attributes right than compare on {pair.wins:,} images, fewer on {pair.losses:,}"
        return f"{said}{more}, sign test {pair.chance}"
    return f"{said}only ckpt right {pair.wins:,}, only compare right {pair.losses:,}, McNemar {pair.chance}"


def describe(metrics: Mapping[str, Any]) -> str:
    """One line for a person: accuracy with its interval, then average precision; of attributes, the means."""
    if not metrics.get("n"):
        return "no images"
    text = (
        f"{'mean ' if 'labels' in metrics else ''}accuracy {metrics['accuracy']:.3f} "
        f"(95% {metrics['accuracy_low']:.3f}–{metrics['accuracy_high']:.3f}, n = {metrics['n']:,})"
    )
    if metrics.get("average_precision") is not None:
        macro = " (mean of attributes)" if "labels" in metrics else " (macro)"
        of = f" of {metrics['positive_class']}" if metrics.get("positive_class") else macro
        text += f", average precision{of} {metrics['average_precision']:.3f}"
        if metrics.get("average_precision_low") is not None:
            text += f" ({metrics['average_precision_low']:.3f}–{metrics['average_precision_high']:.3f})"
    return text
