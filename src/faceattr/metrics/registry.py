"""Every metric, one entry each: how it is computed, how its interval is found, its name in the report, what it can be used for.

To add a metric, register one entry here. It then has an interval, and is in `<split>_metrics.json`, in the report, in the
leaderboard, in metrics.csv and a choice of `trainer.monitor`. Metrics are computed once per epoch from all scores, on the CPU.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from faceattr.errors import FaceattrError
from faceattr.message_text import did_you_mean
from faceattr.metrics import calibration
from faceattr.metrics.accuracy import ACCURACY
from faceattr.metrics.metric_inputs import Predictions, Resamples, nanmean

if TYPE_CHECKING:  # torch and torchmetrics are imported when something is computed: the names alone are quick
    from faceattr.models.task import Task


@dataclass(frozen=True)
class Metric:
    """`label` names the metric in the report. `value` computes it; nan if the images do not define it, such as a
    recall without images of the class.

    `interval` gives the same figure [R] of R resamples, or is `wilson` for a share of the images, or None (no interval).
    `applies` says which tasks have the metric. `monitored`: logged each epoch as `val_<name>`, a choice of `trainer.monitor`.
    `of_positive_class`: with two classes the value of the last class; with more, the mean over the classes. `over_labels`:
    with attributes the value over all labels together; otherwise the mean of the values of the attributes.
    """

    name: str
    label: str
    value: Callable[[Predictions], float]
    interval: Callable[[Resamples], np.ndarray] | Literal["wilson"] | None
    higher_is_better: bool = True
    applies: Callable[[Task], bool] = lambda task: True
    monitored: bool = True
    of_positive_class: bool = False
    over_labels: bool = False


METRICS: dict[str, Metric] = {}
"""By name, in the order of the report."""


def register(metric: Metric) -> None:
    """Adds a metric; a package of your own may do so too, before training starts."""
    METRICS[metric.name] = metric


def _ordinal(task: Task) -> bool:
    return task.kind == "ordinal"


# The metrics


register(Metric("accuracy", "Accuracy", lambda p: float((p.predicted == p.truth).double().mean()), "wilson"))


def _balanced_accuracy(p: Predictions) -> float:
    from torchmetrics.functional.classification import multiclass_recall

    recall = multiclass_recall(p.predicted, p.truth, p.num_classes, average="none")
    if p.kind == "attribute" and not bool(p.present.all()):
        return math.nan
    return float(recall[p.present].mean())


def _balanced_accuracy_resampled(r: Resamples) -> np.ndarray:
    true, hits = r.confusion.sum(2), np.diagonal(r.confusion, axis1=1, axis2=2)
    recall = np.where(true > 0, hits / true, np.nan)
    return recall.mean(1) if r.attribute else nanmean(recall, 1)


register(Metric("balanced_accuracy", "Balanced accuracy", _balanced_accuracy, _balanced_accuracy_resampled))


def _ranking(p: Predictions, name: str) -> float:
    """A binary metric of torchmetrics: of the positive class, or the mean over the present classes, each against the rest."""
    import torch
    from torchmetrics.functional import classification

    if p.present.sum() < 2:
        return math.nan
    columns = [p.num_classes - 1] if p.binary else p.present.nonzero()[:, 0].tolist()
    compute = getattr(classification, f"binary_{name}")
    values = [compute(p.probabilities[:, column], (p.truth == column).long()) for column in columns]
    return float(torch.stack(values).mean())


register(
    Metric(
        "average_precision",
        "Average precision",
        lambda p: _ranking(p, "average_precision"),
        lambda r: r.rankings[0],
        of_positive_class=True,
    )
)
register(Metric("auroc", "AUROC", lambda p: _ranking(p, "auroc"), lambda r: r.rankings[1], of_positive_class=True))


def _f1(p: Predictions) -> float:
    from torchmetrics.functional.classification import multiclass_f1_score

    return p.of_classes(multiclass_f1_score(p.predicted, p.truth, p.num_classes, average="none"))


def _f1_resampled(r: Resamples) -> np.ndarray:
    true, predicted, hits = r.confusion.sum(2), r.confusion.sum(1), np.diagonal(r.confusion, axis1=1, axis2=2)
    return r.of_classes(np.where(true > 0, 2 * hits / (true + predicted), np.nan))


register(Metric("f1", "F1", _f1, _f1_resampled, of_positive_class=True))


def _matthews_corrcoef(p: Predictions) -> float:
    from torchmetrics.functional.classification import multiclass_matthews_corrcoef

    if p.present.sum() < 2:
        return math.nan
    if bool((p.predicted == p.predicted[0]).all()):
        return 0.0  # torchmetrics gives a value near 0 that depends on its epsilon
    return float(multiclass_matthews_corrcoef(p.predicted, p.truth, p.num_classes))


def _matthews_corrcoef_resampled(r: Resamples) -> np.ndarray:
    n, true, predicted = r.confusion.sum((1, 2)), r.confusion.sum(2), r.confusion.sum(1)
    covariance = np.trace(r.confusion, axis1=1, axis2=2) * n - (true * predicted).sum(1)
    of_truth, of_prediction = (n**2 - (counts**2).sum(1) for counts in (true, predicted))
    correlation = covariance / np.sqrt(of_truth * of_prediction)
    return np.where(of_truth == 0, np.nan, np.where(of_prediction == 0, 0, correlation))


register(Metric("matthews_corrcoef", "Matthews correlation", _matthews_corrcoef, _matthews_corrcoef_resampled))

register(
    Metric(
        "accuracy_within_one",
        "At most one class off",
        lambda p: float(((p.predicted - p.truth).abs() <= 1).double().mean()),
        "wilson",
        applies=_ordinal,
        monitored=False,
    )
)


def _quadratic_kappa(p: Predictions) -> float:
    from torchmetrics.functional.classification import multiclass_cohen_kappa

    return float(multiclass_cohen_kappa(p.predicted, p.truth, p.num_classes, weights="quadratic"))


def _quadratic_kappa_resampled(r: Resamples) -> np.ndarray:
    squared, true, predicted = r.distances**2.0, r.confusion.sum(2), r.confusion.sum(1)
    by_chance = np.einsum("ri,ij,rj->r", true, squared, predicted) / r.confusion.sum((1, 2))
    return 1 - (r.confusion * squared).sum((1, 2)) / by_chance


register(Metric("quadratic_kappa", "Quadratic kappa", _quadratic_kappa, _quadratic_kappa_resampled, applies=_ordinal))

register(
    Metric(  # as Keras counts under a pair of sigmoid units
        "accuracy_per_unit",
        "Accuracy per output unit",
        lambda p: float(((p.probabilities > 0.5) == p.one_hot).double().mean()),
        None,
        applies=lambda task: task.loss == "one_vs_rest",
    )
)


def _calibration(name: str, label: str, interval: Callable[[Resamples], np.ndarray] | None = None) -> Metric:
    def value(p: Predictions) -> float:
        return getattr(calibration, name)(p.probabilities.numpy(), p.truth.numpy())

    return Metric(name, label, value, interval, higher_is_better=False, monitored=False, over_labels=True)


register(_calibration("ece", "Calibration error (ECE)"))
register(_calibration("brier", "Brier score"))
register(_calibration("log_loss", "Log loss", lambda r: r.log_loss))

register(
    Metric(
        "mean_absolute_error",
        "Mean absolute error, in classes",
        lambda p: float((p.predicted - p.truth).abs().double().mean()),
        lambda r: (r.confusion * r.distances).sum((1, 2)) / r.confusion.sum((1, 2)),
        higher_is_better=False,
        applies=_ordinal,
        monitored=False,
    )
)


# What they are used for


def logged(metrics: Mapping[str, Any]) -> dict[str, float]:
    """What an epoch logs of its validation metrics, as `val_<name>`; those that are None are left out."""
    names = dict.fromkeys([*ACCURACY, *(name for name, metric in METRICS.items() if metric.monitored)])
    return {f"val_{name}": metrics[name] for name in names if metrics.get(name) is not None}


def monitors() -> dict[str, Literal["min", "max"]]:
    """The choices of `trainer.monitor`, and whether the least or the greatest value is best."""
    monitored = [metric for metric in METRICS.values() if metric.monitored]
    modes: dict[str, Literal["min", "max"]] = {"val_loss": "min"}
    return modes | {f"val_{metric.name}": "max" if metric.higher_is_better else "min" for metric in monitored}


def check_monitor(monitor: str, task: Task | None = None) -> None:
    """Raises FaceattrError where `trainer.monitor` is no monitored metric, or not one of this task."""
    choices = monitors()
    if monitor not in choices:
        hint = did_you_mean(monitor, choices) or did_you_mean(f"val_{monitor}", choices)
        raise FaceattrError(f"trainer.monitor={monitor}: no such metric.{hint}\nChoose one of {', '.join(choices)}.")
    metric = METRICS.get(monitor.removeprefix("val_"))
    if task and metric and not metric.applies(task):
        raise FaceattrError(f"trainer.monitor={monitor}: a {task.kind} task with loss={task.loss} has no such metric.")
