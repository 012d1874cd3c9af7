"""Intervals: against published ones, and by how often they hold the true value."""

import math

import numpy as np
import pytest
import torch
from sklearn import metrics as sklearn

from faceattr.metrics.intervals import bootstrap, paired_difference, wilson
from faceattr.metrics.metric_inputs import Predictions, Resampler
from faceattr.metrics.registry import METRICS


@pytest.mark.parametrize(
    ("correct", "n", "low", "high"),
    [
        (982, 1000, 0.9717, 0.9886),
        (6, 6, 0.6097, 1.0),
        (72, 75, 0.8889, 0.9863),
        (0, 10, 0.0, 0.2775),
        (81, 263, 0.2553, 0.3662),  # Newcombe 1998, table I, method 3
    ],
)
def test_wilson_gives_published_intervals(correct, n, low, high):
    assert wilson(correct / n, n) == pytest.approx((low, high), abs=6e-5)


def test_wilson_without_images_is_nan():
    assert all(map(math.isnan, wilson(0.0, 0)))
    assert all(map(math.isnan, wilson(math.nan, 0)))


# paired comparison -------------------------------------------------------------------------------------------------


def test_paired_difference_gives_mcnemars_counts_and_exact_p():
    correct = np.array([[1] * 8 + [0] * 2 + [1] * 30], bool)
    other = np.array([[0] * 8 + [1] * 2 + [1] * 30], bool)
    pair = paired_difference(correct, other)
    assert (pair.wins, pair.losses) == (8, 2)
    assert pair.p == pytest.approx(2 * sum(math.comb(10, k) for k in range(3)) / 2**10)
    assert pair.difference == pytest.approx(6 / 40)
    gains = np.array([1] * 8 + [-1] * 2 + [0] * 30)
    variance = (((gains - gains.mean()) ** 2).sum() + 2) / 39 / 40  # one more image won and one lost
    assert pair.high - pair.difference == pytest.approx(1.959964 * math.sqrt(variance))


def test_paired_difference_interval_does_not_narrow_with_runs_on_the_same_images():
    rng = np.random.default_rng(0)
    correct, other = rng.random((1, 400)) < 0.8, rng.random((1, 400)) < 0.7
    once, often = paired_difference(correct, other), paired_difference(correct.repeat(5, 0), other.repeat(5, 0))
    assert (often.low, often.high) == pytest.approx((once.low, once.high))
    assert often.wins == 5 * once.wins and often.p < once.p


@pytest.mark.parametrize("spread", [0.0, 0.02, 0.04])
def test_paired_difference_interval_covers_the_true_difference(spread):
    """Two recipes that are 0.1 apart on average; each run of them is off by its own luck."""
    rng = np.random.default_rng(1)
    inside = 0
    for _ in range(300):
        hard = rng.random(300)
        correct, other = (
            hard + 0.3 * rng.random((3, 300)) < limit + spread * rng.standard_normal((3, 1)) for limit in (0.85, 0.75)
        )
        pair = paired_difference(correct, other)
        inside += pair.low <= 0.1 <= pair.high
    assert 0.92 <= inside / 300 <= 1


def test_paired_difference_without_disagreement_has_an_interval():
    correct = np.array([[True, False, True]])
    pair = paired_difference(correct, correct)
    assert (pair.difference, pair.p) == (0, 1) and pair.low < -0.5 and pair.high > 0.5
    many = np.ones((1, 2000), bool)
    assert paired_difference(many, many).high < 0.002
    with pytest.raises(ValueError, match="not the same images"):
        paired_difference(correct, correct[:, :2])


def test_paired_difference_of_groups_has_a_wider_interval():
    rng = np.random.default_rng(2)
    groups = np.arange(400) // 8
    correct, other = (np.repeat(rng.random(50) < accuracy, 8)[None] for accuracy in (0.8, 0.7))
    alone, grouped = paired_difference(correct, other), paired_difference(correct, other, groups.tolist())
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


AUROC = METRICS["auroc"]


def auroc_interval(
    probabilities: np.ndarray, truth: np.ndarray, groups: list[int] | None = None
) -> tuple[float, float]:
    resampler = Resampler(Predictions("binary", torch.from_numpy(probabilities), torch.from_numpy(truth)))
    sides = bootstrap(len(truth), groups, lambda weights: {"auroc": AUROC.interval(resampler(weights))})
    return sides.get("auroc", (math.nan, math.nan))


def test_bootstrap_covers_the_truth_as_often_as_it_says(monkeypatch):
    monkeypatch.setattr("faceattr.metrics.intervals.RESAMPLES", 400)
    all_of_them = scored(200_000, 2, seed=1)
    true = sklearn.roc_auc_score(all_of_them[1], all_of_them[0][:, 1])
    inside = 0
    for start in range(0, 150 * 200, 200):
        probabilities, truth = (a[start : start + 200] for a in all_of_them)
        low, high = auroc_interval(probabilities, truth)
        inside += low <= true <= high
    assert 0.89 <= inside / 150 <= 0.99


def test_bootstrap_draws_whole_groups():
    probabilities, truth = scored(60, 2)
    eight_times = probabilities.repeat(8, 0), truth.repeat(8)
    groups = np.arange(60).repeat(8).tolist()
    once = auroc_interval(probabilities, truth)
    grouped, alone = auroc_interval(*eight_times, groups), auroc_interval(*eight_times)
    assert grouped == pytest.approx(once, abs=0.01)
    assert alone[1] - alone[0] < 0.5 * (grouped[1] - grouped[0])


def test_bootstrap_gives_nan_where_most_resamples_have_no_value():
    probabilities, truth = scored(50, 2)
    assert all(map(math.isnan, auroc_interval(probabilities, np.ones_like(truth))))


def test_bootstrap_of_few_images_or_groups_gives_no_interval():
    def never(weights: np.ndarray) -> dict[str, np.ndarray]:
        raise AssertionError

    assert bootstrap(40, (np.arange(40) // 8).tolist(), never) == {}
    assert bootstrap(9, None, never) == bootstrap(0, None, never) == {}


@pytest.mark.parametrize(("n", "cost", "resamples"), [(100, 1, 2000), (1000, 40, 1000), (1000, 400, 400)])
def test_bootstrap_draws_fewer_resamples_of_more_images_and_attributes(n, cost, resamples):
    rows: list[int] = []

    def count(weights: np.ndarray) -> dict[str, np.ndarray]:
        assert weights.shape[1] == n and (weights.sum(1) == n).all()
        rows.append(len(weights))
        return {"share": weights.mean(1)}

    assert bootstrap(n, None, count, cost)["share"] == (1, 1)
    assert sum(rows) == resamples
