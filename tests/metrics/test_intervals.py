"""How sure a figure is: intervals against their definitions, against scikit-learn, and by how often they hold the truth."""

import math
import time

import numpy as np
import pytest
import torch
from sklearn import metrics as sklearn

from faceattr.metrics.intervals import _from_confusion, _Ranking, bootstrap, paired, wilson
from faceattr.metrics.registry import evaluate, intervals_of
from faceattr.models.task import Task


@pytest.mark.parametrize(
    ("right", "n", "low", "high"),
    [
        (982, 1000, 0.9717, 0.9886),
        (6, 6, 0.6097, 1.0),
        (72, 75, 0.8889, 0.9863),
        (0, 10, 0.0, 0.2775),
        (81, 263, 0.2553, 0.3662),  # Newcombe 1998, table I, method 3
    ],
)
def test_the_interval_is_wilsons(right, n, low, high):
    assert wilson(right / n, n) == pytest.approx((low, high), abs=6e-5)


def test_the_interval_of_nothing_is_unknown():
    assert all(map(math.isnan, wilson(0.0, 0)))
    assert all(map(math.isnan, wilson(math.nan, 0)))


# paired comparison -------------------------------------------------------------------------------------------------


def test_paired_counts_mcnemars_table_and_its_exact_p():
    right = np.array([[1] * 8 + [0] * 2 + [1] * 30], bool)
    other = np.array([[0] * 8 + [1] * 2 + [1] * 30], bool)
    found = paired(right, other)
    assert (found.wins, found.losses) == (8, 2)
    assert found.p == pytest.approx(2 * sum(math.comb(10, k) for k in range(3)) / 2**10)
    assert found.difference == pytest.approx(6 / 40)
    gains = np.array([1] * 8 + [-1] * 2 + [0] * 30)
    variance = (((gains - gains.mean()) ** 2).sum() + 2) / 39 / 40  # one more image won and one lost
    assert found.high - found.difference == pytest.approx(1.959964 * math.sqrt(variance))


def test_more_runs_on_the_same_images_do_not_narrow_the_interval():
    rng = np.random.default_rng(0)
    right, other = rng.random((1, 400)) < 0.8, rng.random((1, 400)) < 0.7
    once, often = paired(right, other), paired(right.repeat(5, 0), other.repeat(5, 0))
    assert (often.low, often.high) == pytest.approx((once.low, once.high))
    assert often.wins == 5 * once.wins and often.p < once.p


@pytest.mark.parametrize("spread", [0.0, 0.02, 0.04])
def test_the_interval_covers_the_true_difference_whatever_training_does(spread):
    """Two recipes that are 0.1 apart on average; each run of them is off by its own luck."""
    rng = np.random.default_rng(1)
    inside = 0
    for _ in range(300):
        hard = rng.random(300)
        right, other = (
            hard + 0.3 * rng.random((3, 300)) < limit + spread * rng.standard_normal((3, 1)) for limit in (0.85, 0.75)
        )
        found = paired(right, other)
        inside += found.low <= 0.1 <= found.high
    assert 0.92 <= inside / 300 <= 1


def test_no_disagreement_is_no_certainty():
    right = np.array([[True, False, True]])
    found = paired(right, right)
    assert (found.difference, found.p) == (0, 1) and found.low < -0.5 and found.high > 0.5
    many = np.ones((1, 2000), bool)
    assert paired(many, many).high < 0.002
    with pytest.raises(ValueError, match="not the same images"):
        paired(right, right[:, :2])


def test_groups_that_agree_among_themselves_widen_the_interval():
    rng = np.random.default_rng(2)
    who = np.arange(400) // 8
    right, other = (np.repeat(rng.random(50) < accuracy, 8)[None] for accuracy in (0.8, 0.7))
    alone, grouped = paired(right, other), paired(right, other, who.tolist())
    assert grouped.difference == alone.difference
    assert (grouped.high - grouped.low) / (alone.high - alone.low) == pytest.approx(math.sqrt(8), rel=0.05)


# bootstrap ---------------------------------------------------------------------------------------------------------


def scored(n: int, k: int, seed: int = 0, strength: float = 1.5) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities [n, k] with ties, and class positions [n]."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, k, n)
    logits = rng.normal(size=(n, k)) + strength * np.eye(k)[truth]
    odds = np.exp(logits.round(1))
    return (odds / odds.sum(1, keepdims=True)).astype(np.float32), truth


def test_a_resamples_figures_are_scikit_learns_with_weights():
    probabilities, truth = scored(300, 3)
    weights = np.random.default_rng(1).integers(0, 4, (5, 300)).astype(np.float32)
    average, area = _Ranking(probabilities[:, 1], truth == 1).figures(weights)
    predicted = probabilities.argmax(1)
    counts = np.array([sklearn.confusion_matrix(truth, predicted, sample_weight=row) for row in weights])
    found = _from_confusion(counts, binary=False)
    for i, row in enumerate(weights):
        given = {"sample_weight": row}
        assert average[i] == pytest.approx(sklearn.average_precision_score(truth == 1, probabilities[:, 1], **given))
        assert area[i] == pytest.approx(sklearn.roc_auc_score(truth == 1, probabilities[:, 1], **given))
        assert found["balanced_accuracy"][i] == pytest.approx(
            sklearn.balanced_accuracy_score(truth, predicted, **given)
        )
        assert found["f1"][i] == pytest.approx(sklearn.f1_score(truth, predicted, average="macro", **given))
        kappa = sklearn.cohen_kappa_score(truth, predicted, weights="quadratic", **given)
        assert found["quadratic_kappa"][i] == pytest.approx(kappa)
        assert found["mean_absolute_error"][i] == pytest.approx(np.average(abs(truth - predicted), weights=row))


@pytest.mark.parametrize(("k", "kind"), [(2, "binary"), (3, "ordinal")])
def test_every_figure_has_an_interval_around_it(k, kind):
    probabilities, truth = (torch.from_numpy(a) for a in scored(500, k))
    task = Task(kind, ("a", "b", "c")[:k], "ce")
    found = evaluate(task, probabilities, truth)
    sides = intervals_of(found, task, probabilities, truth, None)
    assert sides.pop("interval_unit") == "image"
    names = ["balanced_accuracy", "average_precision", "auroc", "f1", "log_loss"]
    names += ["mean_absolute_error", "quadratic_kappa", "accuracy_within_one"] if kind == "ordinal" else []
    names += [f"recall_{name}" for name in task.classes]
    assert set(sides) == {f"{name}_{side}" for name in names for side in ("low", "high")}
    for name in names:
        assert sides[f"{name}_low"] < found[name] < sides[f"{name}_high"]
    assert sides == {k: v for k, v in intervals_of(found, task, probabilities, truth, None).items() if k in sides}


def test_the_bootstrap_covers_the_truth_about_as_often_as_it_says(monkeypatch):
    monkeypatch.setattr("faceattr.metrics.intervals.RESAMPLES", 400)
    all_of_them = scored(200_000, 2, seed=1)
    true = sklearn.roc_auc_score(all_of_them[1], all_of_them[0][:, 1])
    inside = 0
    for start in range(0, 150 * 200, 200):
        probabilities, truth = (a[start : start + 200] for a in all_of_them)
        low, high = bootstrap(probabilities, truth, binary=True)["auroc"]
        inside += low <= true <= high
    assert 0.89 <= inside / 150 <= 0.99


def test_whole_groups_are_drawn():
    probabilities, truth = scored(60, 2)
    eight_times = probabilities.repeat(8, 0), truth.repeat(8)
    who = np.arange(60).repeat(8).tolist()
    once = bootstrap(probabilities, truth, binary=True)["auroc"]
    grouped, alone = (bootstrap(*eight_times, binary=True, groups=groups)["auroc"] for groups in (who, None))
    assert grouped == pytest.approx(once, abs=0.01)
    assert alone[1] - alone[0] < 0.5 * (grouped[1] - grouped[0])


def test_one_class_has_no_ranking_and_no_interval_of_it():
    probabilities, truth = scored(50, 2)
    sides = bootstrap(probabilities, np.ones_like(truth), binary=True)
    assert all(map(math.isnan, sides["auroc"])) and not any(map(math.isnan, sides["f1"]))


def test_a_handful_of_people_gives_no_interval():
    probabilities, truth = scored(40, 2)
    assert bootstrap(probabilities, truth, binary=True, groups=(np.arange(40) // 8).tolist()) == {}
    assert bootstrap(probabilities[:9], truth[:9], binary=True) == {}


def test_two_thousand_resamples_of_twenty_thousand_rows_are_quick():
    given = scored(20_000, 2)
    began = time.perf_counter()
    bootstrap(*given, binary=True)
    assert time.perf_counter() - began < 10  # 1.5 s alone on two cores; tests share them
