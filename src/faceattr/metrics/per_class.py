"""Metrics of single classes and single attributes, and the confusion matrix."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from faceattr.metrics.metric_inputs import Predictions

if TYPE_CHECKING:
    from torch import Tensor

    from faceattr.models.task import Task


def confusion(task: Task, probabilities: Tensor, truth: Tensor) -> np.ndarray:
    """Counts [classes, classes]: rows are true, columns predicted."""
    k = len(task.classes)
    return (truth * k + probabilities.argmax(1)).bincount(minlength=k * k).view(k, k).numpy()


def class_metrics(task: Task, p: Predictions) -> dict[str, Any]:
    """`recall_<class>` (nan without images of the class) and `n_<class>`; binary: `positive_class`; ordinal: `off_by_<k>`, the
    share of images whose prediction is k classes off."""
    counts = p.truth.bincount(minlength=p.num_classes)
    recall = p.truth[p.predicted == p.truth].bincount(minlength=p.num_classes) / counts
    metrics: dict[str, Any] = {"positive_class": task.classes[-1]} if task.kind == "binary" else {}
    if task.kind == "ordinal":
        distance = (p.predicted - p.truth).abs()
        metrics |= {f"off_by_{far}": float((distance == far).double().mean()) for far in range(1, p.num_classes)}
    for position, name in enumerate(task.classes):
        metrics |= {f"recall_{name}": float(recall[position]), f"n_{name}": int(counts[position])}
    return metrics


def attribute_metrics(
    names: Sequence[str], parts: Sequence[Predictions], accuracy: Sequence[float], average_precision: Sequence[float]
) -> dict[str, Any]:
    """`accuracy_`, `average_precision_`, `recall_`, `n_` (known labels) and `positive_<attribute>`, and of all attributes: `labels`
    (known ones) and `commonest_answers`, the mean accuracy of always giving each attribute's commoner answer."""
    import torch

    metrics: dict[str, Any] = {}
    commonest = []
    for name, part, *values in zip(names, parts, accuracy, average_precision, strict=True):
        labels, positive = len(part.truth), int(part.truth.sum())
        hits = int(part.truth[part.predicted == 1].sum())
        commonest.append(max(positive, labels - positive) / labels if labels else math.nan)
        metrics |= {f"accuracy_{name}": values[0], f"average_precision_{name}": values[1]}
        metrics[f"recall_{name}"] = hits / positive if positive else math.nan
        metrics |= {f"n_{name}": labels, f"positive_{name}": positive}
    total = sum(len(part.truth) for part in parts)
    return {
        "labels": total,
        "commonest_answers": float(torch.tensor(commonest, dtype=torch.float64).nanmean()),
    } | metrics


def shares(metrics: Mapping[str, Any], task: Task) -> dict[str, int]:
    """The metrics of single classes or attributes that are a share of something, and of how many images or labels."""
    n_of = {f"recall_{name}": metrics[f"{'positive' if task.multilabel else 'n'}_{name}"] for name in task.classes}
    n_of |= {f"accuracy_{name}": metrics[f"n_{name}"] for name in task.classes if task.multilabel}
    return {name: n for name, n in n_of.items() if metrics[name] is not None}


def attribute_table(metrics: Mapping[str, Any], task: Task) -> pd.DataFrame:
    """A row per attribute with known labels: name, n (of them), positive, accuracy with its interval, average_precision, recall."""
    columns = ("n", "positive", "accuracy", "average_precision", "recall")
    rows = [{"name": name} | {column: metrics[f"{column}_{name}"] for column in columns} for name in task.classes]
    table = pd.DataFrame([row for row in rows if row["n"]])
    for side in ("low", "high"):
        table[f"accuracy_{side}"] = [metrics[f"accuracy_{name}_{side}"] for name in table["name"]]
    return table
