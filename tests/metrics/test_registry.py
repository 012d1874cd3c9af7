"""The contract of every registered metric: scikit-learn's value, the same value from its vectorised form, and its uses."""

import math
import warnings
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn import metrics as sk
from torchmetrics.functional.classification import multiclass_calibration_error

from faceattr.errors import FaceattrError
from faceattr.metrics import compute_metrics, registry
from faceattr.metrics.metric_inputs import Predictions, Resampler, problems
from faceattr.metrics.registry import METRICS
from faceattr.models.task import Task

TASKS = {
    "binary": Task.from_config(["woman", "man"], ordinal=False, loss="auto"),
    "ordinal": Task.from_config(["young", "middle", "old"], ordinal=True, loss="auto"),
    "multiclass": Task.from_config(["cat", "dog", "horse", "cow"], ordinal=False, loss="auto"),
    "one_vs_rest": Task.from_config(["female", "male"], ordinal=False, loss="one_vs_rest"),
    "multilabel": Task.from_config(["Male", "Young", "Bald", "Hat"], ordinal=False, loss="auto", multilabel=True),
}
CASES = ("usual", "ties", "missing class", "one class", "constant prediction", "one image")


def draw(task: Task, case: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Random probabilities [N, K], and a truth with unequal classes; multilabel: with labels that are not known."""
    rng, k, n = np.random.default_rng(CASES.index(case)), len(task.classes), 1 if case == "one image" else 200
    shape = (n, k) if task.multilabel else n
    share = np.arange(1, k + 1) / np.arange(1, k + 1).sum()
    truth = (rng.random(shape) < share + 0.2).astype(int) if task.multilabel else rng.choice(k, n, p=share)
    logits = rng.normal(size=(n, k)) + 1.2 * (truth if task.multilabel else np.eye(k)[truth])
    if case == "ties":
        logits = logits.round()
    if case == "missing class":
        truth = np.where(truth == 0, k - 1, truth) if not task.multilabel else truth * (np.arange(k) != 1)
    if case == "one class":
        truth = np.zeros_like(truth)
    if case == "constant prediction":
        logits = logits - (10 if task.multilabel else 10 * (np.arange(k) > 0))
    scores = torch.from_numpy(logits).float()
    if not task.multilabel:
        return scores.sigmoid() if task.loss == "one_vs_rest" else scores.softmax(1), torch.from_numpy(truth)
    known = np.where(rng.random(shape) < 0.2, np.nan, truth)
    known[0] = truth[0]
    return scores.sigmoid(), torch.from_numpy(known).float()


def of_columns(score: Callable[..., float]) -> Callable[[np.ndarray, np.ndarray], float]:
    """The positive class's of two classes, else the mean over the present classes, each against the rest."""

    def reference(y: np.ndarray, p: np.ndarray) -> float:
        columns = [1] if p.shape[1] == 2 else np.unique(y)
        return float(np.mean([score(y == column, p[:, column]) for column in columns])) if len(set(y)) > 1 else math.nan

    return reference


def f1(y: np.ndarray, p: np.ndarray) -> float:
    labels = [1] if p.shape[1] == 2 else np.unique(y)
    return float(sk.f1_score(y, p.argmax(1), labels=labels, average="macro")) if set(labels) <= set(y) else math.nan


def kappa(y: np.ndarray, p: np.ndarray) -> float:
    return float(sk.cohen_kappa_score(y, p.argmax(1), weights="quadratic", labels=range(p.shape[1])))


def ece(y: np.ndarray, p: np.ndarray) -> float:
    return float(multiclass_calibration_error(torch.from_numpy(p), torch.from_numpy(y), p.shape[1], n_bins=15))


REFERENCES: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "accuracy": lambda y, p: sk.accuracy_score(y, p.argmax(1)),
    "balanced_accuracy": lambda y, p: sk.recall_score(y, p.argmax(1), labels=np.unique(y), average="macro"),
    "average_precision": of_columns(sk.average_precision_score),
    "auroc": of_columns(sk.roc_auc_score),
    "f1": f1,
    "matthews_corrcoef": lambda y, p: sk.matthews_corrcoef(y, p.argmax(1)) if len(set(y)) > 1 else math.nan,
    "accuracy_within_one": lambda y, p: np.mean(np.abs(y - p.argmax(1)) <= 1),
    "quadratic_kappa": kappa,
    "accuracy_per_unit": lambda y, p: sk.accuracy_score(np.eye(p.shape[1])[y].ravel(), p.ravel() > 0.5),
    "ece": ece,
    "brier": lambda y, p: np.mean(np.sum((p - np.eye(p.shape[1])[y]) ** 2, 1)),
    "log_loss": lambda y, p: -np.log(p[np.arange(len(y)), y].astype(float)).mean(),
    "mean_absolute_error": lambda y, p: sk.mean_absolute_error(y, p.argmax(1)),
}


def expected(name: str, task: Task, probabilities: torch.Tensor, truth: torch.Tensor) -> float:
    """The reference of a metric: of classes, the mean over attributes, or over all labels."""
    if METRICS[name].over_labels or not task.multilabel:
        p, y = (part.numpy() for part in task.flatten_labels(probabilities, truth))
        return REFERENCES[name](y, p)
    values = []
    for part in problems(task, probabilities, truth):
        both = len(set(part.truth.tolist())) == 2 or name != "balanced_accuracy"
        values.append(REFERENCES[name](part.truth.numpy(), part.probabilities.numpy()) if both else math.nan)
    return float(np.nanmean(values)) if not np.isnan(values).all() else math.nan


@pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore::UserWarning")
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("kind", TASKS)
def test_all_metrics_gives_the_reference_of_every_metric(kind, case):
    task = TASKS[kind]
    probabilities, truth = draw(task, case)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        metrics = compute_metrics.all_metrics(task, probabilities, truth)
    names = [name for name, metric in METRICS.items() if metric.applies(task)]
    assert set(names) == set(METRICS) & set(metrics)
    values = {name: math.nan if metrics[name] is None else metrics[name] for name in names}
    reference = {name: expected(name, task, probabilities, truth) for name in names}
    assert values == pytest.approx(reference, abs=2e-6, nan_ok=True)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("kind", TASKS)
def test_interval_form_of_every_metric_equals_its_value_on_repeated_images(kind, case):
    task = TASKS[kind]
    forms = {name: m for name, m in METRICS.items() if m.applies(task) and callable(m.interval)}
    for part in problems(task, *draw(task, case)):
        n = len(part.truth)
        weights = np.random.default_rng(1).integers(0, 4, (3, n)).astype(np.float32)
        weights[:, 0] = 1
        resamples = Resampler(replace(part, rows=None))(weights)
        with np.errstate(all="ignore"):
            resampled = {name: metric.interval(resamples) for name, metric in forms.items()}
        for i, row in enumerate(weights):
            places = torch.from_numpy(np.repeat(np.arange(n), row.astype(int)))
            repeated = Predictions(part.kind, part.probabilities[places], part.truth[places])
            values = {name: metric.value(repeated) for name, metric in forms.items()}
            assert {name: of[i] for name, of in resampled.items()} == pytest.approx(values, abs=3e-6, nan_ok=True)


@pytest.mark.parametrize("name", [name for name, metric in METRICS.items() if metric.interval == "wilson"])
def test_metric_with_a_wilson_interval_is_a_share_of_the_images(name):
    probabilities, truth = draw(TASKS["ordinal"], "usual")
    images = METRICS[name].value(Predictions("ordinal", probabilities, truth)) * len(truth)
    assert images == pytest.approx(round(images)) and 0 < images < len(truth)


def test_monitors_are_the_loss_and_the_monitored_metrics_with_their_direction():
    monitors = registry.monitors()
    assert monitors["val_loss"] == "min" and monitors["val_matthews_corrcoef"] == "max"
    assert set(monitors) == {"val_loss", *(f"val_{name}" for name, metric in METRICS.items() if metric.monitored)}


def test_check_monitor_names_the_nearest_choice():
    registry.check_monitor("val_auroc", TASKS["binary"])
    with pytest.raises(
        FaceattrError, match=r"trainer\.monitor=val_acuracy: .*Did you mean val_accuracy\?\nChoose one of"
    ):
        registry.check_monitor("val_acuracy")
    with pytest.raises(FaceattrError, match=r"Did you mean val_f1\?"):
        registry.check_monitor("f1")
    with pytest.raises(FaceattrError, match="val_quadratic_kappa: a binary task"):
        registry.check_monitor("val_quadratic_kappa", TASKS["binary"])


def test_logged_holds_the_accuracys_interval_and_no_unknown_metric():
    logged = registry.logged(compute_metrics.all_metrics(TASKS["binary"], *draw(TASKS["binary"], "one class")))
    assert {"val_accuracy", "val_accuracy_low", "val_accuracy_high", "val_balanced_accuracy"} == set(logged)


def test_register_adds_a_metric_to_values_intervals_and_monitors():
    task = TASKS["binary"]
    probabilities, truth = draw(task, "usual")
    constant = registry.Metric(
        "constant", "A constant", lambda p: 0.25, lambda r: 0 * r.size + 0.25, higher_is_better=False
    )
    registry.register(constant)
    try:
        metrics = compute_metrics.all_metrics(task, probabilities, truth)
        bounds = compute_metrics.intervals_of(metrics, task, probabilities, truth, None)
        assert (metrics["constant"], bounds["constant_low"], bounds["constant_high"]) == (0.25, 0.25, 0.25)
        assert registry.monitors()["val_constant"] == "min" and registry.logged(metrics)["val_constant"] == 0.25
    finally:
        del METRICS["constant"]
