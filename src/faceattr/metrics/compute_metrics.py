"""The metrics of predictions: their values (`all_metrics`) and their 95% intervals (`intervals_of`), for every kind of task."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from faceattr.errors import optional
from faceattr.metrics import intervals, per_class
from faceattr.metrics.accuracy import accuracy
from faceattr.metrics.metric_inputs import Predictions, Resampler, all_labels, nanmean, problems
from faceattr.metrics.registry import METRICS, Metric
from faceattr.models.task import Task


def all_metrics(task: Task, probabilities: Tensor, truth: Tensor) -> dict[str, Any]:
    """Flat metrics from probabilities [N, classes] and the truth as `Task` has it.

    A metric that the images cannot give (the recall of a class that is not present, a ranking with one class only) is None,
    and averages are over the classes that are present. So is one that fails, with a warning. Multilabel: each metric is the
    mean over attributes, each over its known labels; `<metric>_<attribute>` are those of one attribute.
    """
    metrics: dict[str, Any] = accuracy(task, probabilities, truth) | {"n": len(truth)}
    if len(truth) == 0:
        return _plain(metrics)
    parts, labels = problems(task, probabilities, truth), all_labels(task, probabilities, truth)
    applied = [metric for metric in METRICS.values() if metric.applies(task)]
    values = {metric.name: _values_or_nan(metric, labels if metric.over_labels else parts) for metric in applied}
    means = {name: _nanmean(each) for name, each in values.items()}
    if task.multilabel:
        more = per_class.attribute_metrics(task.classes, parts, values["accuracy"], values["average_precision"])
    else:
        more = per_class.class_metrics(task, parts[0])
    return _plain(metrics | {name: mean for name, mean in means.items() if name not in metrics} | more)


def one_metric(name: str, task: Task, probabilities: Tensor, truth: Tensor) -> float:
    """One metric by its name; nan where the images cannot give it."""
    metric = METRICS[name]
    return _nanmean(_values(metric, (all_labels if metric.over_labels else problems)(task, probabilities, truth)))


def _values(metric: Metric, parts: Sequence[Predictions]) -> list[float]:
    return [metric.value(part) if len(part.truth) else math.nan for part in parts]


def _values_or_nan(metric: Metric, parts: Sequence[Predictions]) -> list[float]:
    """A metric of someone else's package may fail: it must not cost the others."""
    with optional(f"The metric {metric.name}"):
        return _values(metric, parts)
    return [math.nan] * len(parts)


def _nanmean(values: Sequence[float]) -> float:
    return float(torch.tensor(values, dtype=torch.float64).nanmean())


def intervals_of(
    metrics: Mapping[str, Any], task: Task, probabilities: Tensor, truth: Tensor, groups: Sequence[Any] | None
) -> dict[str, Any]:
    """`<name>_low` and `<name>_high` (95%) of `metrics`, as `all_metrics` gives them: Wilson's of shares, else by bootstrap.

    `interval_unit` says what was resampled: images, or whole `groups` [N] (identities), where they are known.
    """
    sides = _bootstrap(task, probabilities, truth, groups)
    for name, n in per_class.shares(metrics, task).items():
        sides[name] = intervals.wilson(metrics[name], n)
    for name, metric in METRICS.items():
        if metric.interval == "wilson" and f"{name}_low" not in metrics and metrics.get(name) is not None:
            sides[name] = intervals.wilson(metrics[name], metrics["n"])
    bounds: dict[str, Any] = {}
    for name, (low, high) in sides.items():
        if metrics.get(name) is not None:
            bounds |= {f"{name}_low": low, f"{name}_high": high}
    return _plain(bounds | {"interval_unit": "image" if groups is None else "group"})


def _bootstrap(
    task: Task, probabilities: Tensor, truth: Tensor, groups: Sequence[Any] | None
) -> dict[str, tuple[float, float]]:
    resamplers = [Resampler(part) for part in problems(task, probabilities, truth) if len(part.truth)]
    resampled = {name: m.interval for name, m in METRICS.items() if m.applies(task) and callable(m.interval)}
    whole = [resampler(np.ones((1, len(truth)), np.float32)) for resampler in resamplers]
    for name, interval in list(resampled.items()):  # one that fails is left out, with one warning
        with optional(f"The interval of {name}"), np.errstate(invalid="ignore", divide="ignore"):
            for resamples in whole:
                interval(resamples)
            continue
        del resampled[name]

    def compute_all(weights: np.ndarray) -> dict[str, np.ndarray]:
        values: dict[str, list[np.ndarray]] = {name: [] for name in resampled}
        sizes = []
        for resampler in resamplers:
            resamples = resampler(weights)
            sizes.append(resamples.size)
            with np.errstate(invalid="ignore", divide="ignore"):
                for name, interval in resampled.items():
                    values[name].append(interval(resamples))
        return {name: _mean(np.array(each), np.array(sizes), METRICS[name]) for name, each in values.items()}

    return intervals.bootstrap(len(truth), groups, compute_all, cost=len(task.classes) if task.multilabel else 1)


def _mean(values: np.ndarray, sizes: np.ndarray, metric: Metric) -> np.ndarray:
    """Of values [problems, R]: over all labels, by the number of labels [problems, R] of each problem, or over problems."""
    if len(values) == 1 or not metric.over_labels:
        return nanmean(values, 0)
    return np.where(sizes > 0, values * sizes, 0).sum(0) / sizes.sum(0)


def _plain(metrics: dict[str, Any]) -> dict[str, Any]:
    return {key: None if isinstance(value, float) and math.isnan(value) else value for key, value in metrics.items()}
