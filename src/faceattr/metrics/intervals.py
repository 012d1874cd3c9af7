"""How sure a figure is: 95% intervals of accuracies, of every other metric, and of the difference between two models."""

import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

Z = 1.959963984540054
RESAMPLES, DRAWS = 2000, 40_000_000
"""Resamples, and draws of an image at most: beyond 20,000 images, whose intervals are narrow, there are fewer resamples."""
LEAST_UNITS = 10
BLOCK = 500_000
"""Draws of an image at a time: what fits into the caches."""


def wilson(accuracy: float, n: float) -> tuple[float, float]:
    """95% interval (low, high) of a proportion measured on `n` images (Wilson 1927); nan without images."""
    if n == 0:
        return math.nan, math.nan
    centre = (accuracy + Z * Z / (2 * n)) / (1 + Z * Z / n)
    half = Z / (1 + Z * Z / n) * math.sqrt(accuracy * (1 - accuracy) / n + Z * Z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


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

    @property
    def chance(self) -> str:
        """`p` for a person."""
        return "p < 0.001" if self.p < 0.001 else f"p = {self.p:.3f}"


def over_runs(values: np.ndarray) -> float:
    """Half of the 95% interval of the mean of several runs' figures (Student's t): how training went. 0 for one run, which
    says nothing of that."""
    from scipy.stats import t  # a second, which only comparisons have to spend

    k = len(values)
    return float(t.ppf(0.975, k - 1) * values.std(ddof=1)) / math.sqrt(k) if k > 1 else 0.0


def paired(right: np.ndarray, other: np.ndarray, groups: Sequence[Any] | None = None) -> Paired:
    """Accuracy of `right` minus that of `other`, both [runs, images] of the same images (one run: [1, images]): 1 or true where
    an image is told right, 0 where not; for attributes the share of them.

    The 95% interval takes in both chances: which images are judged (units are images, or whole `groups` [images] of one
    identity; the mean over runs counts an image once) and, with several runs, how training went (Student's t over the runs'
    differences). McNemar's test (1947) knows neither groups nor runs: it pools them, which a thousand runs on ten images
    would make look like evidence. Where the two disagree, believe the interval.
    """
    from scipy.stats import binomtest  # a second, which only comparisons have to spend

    if right.shape != other.shape:
        raise ValueError(f"not the same images: {right.shape} and {other.shape}")
    n = right.shape[1]
    gains = right.mean(0) - other.mean(0)
    difference = float(gains.mean())
    unit = np.arange(n) if groups is None else np.unique(np.asarray(groups, str), return_inverse=True)[1]
    sums = np.bincount(unit, gains - difference)
    # 2: one more image won and one lost (Agresti and Min 2005), or no disagreement would pass for certainty
    half = Z * math.sqrt((float((sums**2).sum()) + 2) * len(sums) / max(1, len(sums) - 1)) / n
    half = math.hypot(half, over_runs(right.mean(1) - other.mean(1)))
    wins, losses = int((right > other).sum()), int((other > right).sum())
    p = float(binomtest(wins, wins + losses).pvalue) if wins + losses else 1.0
    return Paired(difference, difference - half, difference + half, wins, losses, p)


def bootstrap(
    probabilities: np.ndarray, truth: np.ndarray, *, binary: bool, groups: Sequence[Any] | None = None
) -> dict[str, tuple[float, float]]:
    """Percentile intervals of the metrics of `metrics.evaluate`, from 2,000 resamples of the images (seeded: the same again).

    `probabilities` [N, classes] and class positions [N] as there. With `groups` [N] whole groups are drawn: photos of one
    person are not independent. With fewer than `LEAST_UNITS` images or groups nothing is known (no intervals).
    """
    n, k = probabilities.shape
    cells = truth * k + probabilities.argmax(1)
    by_cell, (there, starts) = np.argsort(cells, kind="stable"), np.unique(np.sort(cells), return_index=True)
    loss = -np.log(probabilities[np.arange(n), truth].astype(np.float64).clip(1e-12)).astype(np.float32)
    rankings = [_Ranking(probabilities[:, c], truth == c) for c in ([k - 1] if binary else range(k))]

    def figures(weights: np.ndarray) -> dict[str, np.ndarray]:
        counts = np.zeros((len(weights), k * k))
        counts[:, there] = np.add.reduceat(weights[:, by_cell], starts, axis=1)
        ranked = _mean(np.array([ranking.figures(weights) for ranking in rankings]), 0)
        entropy = np.einsum("rn,n->r", weights, loss) / weights.sum(1)  # no BLAS: its threads would fight ours
        ranking = dict(zip(("average_precision", "auroc"), ranked, strict=True))
        return _from_confusion(counts.reshape(-1, k, k), binary) | ranking | {"log_loss": entropy}

    return _resampled(n, groups, figures)


def bootstrap_attributes(
    probabilities: np.ndarray, truth: np.ndarray, *, groups: Sequence[Any] | None = None
) -> dict[str, tuple[float, float]]:
    """As `bootstrap`, of the means over attributes: `truth` [N, attributes] is 1, 0 or nan. 2,000 resamples of up to 20,000
    labels, 400 of more than 100,000: a ranking of each attribute is drawn anew each time."""
    known, has, said = np.isfinite(truth), truth > 0.5, probabilities > 0.5
    there = [(known[:, c], c) for c in range(truth.shape[1]) if known[:, c].any()]
    rankings = [(rows, _Ranking(probabilities[rows, c], has[rows, c])) for rows, c in there]
    parts = [has & known, ~has & known, has & said & known, ~has & ~said & known]
    log_of_true = np.log(np.where(has, probabilities, 1 - probabilities).astype(np.float64).clip(1e-12))
    parts = [part.astype(np.float32) for part in (*parts, np.where(known, -log_of_true, 0))]

    def figures(weights: np.ndarray) -> dict[str, np.ndarray]:
        positive, negative, hits, rejected, loss = (np.einsum("rn,nk->rk", weights, part) for part in parts)
        ranked = _mean(np.array([ranking.figures(weights[:, rows]) for rows, ranking in rankings]), 0)
        with np.errstate(invalid="ignore", divide="ignore"):
            balanced = (hits / positive + rejected / negative) / 2
            f1 = np.where(positive > 0, 2 * hits / (positive + hits + negative - rejected), np.nan)
        ranking = dict(zip(("average_precision", "auroc"), ranked, strict=True))
        entropy = loss.sum(1) / (positive + negative).sum(1)
        return ranking | {"balanced_accuracy": _mean(balanced, 1), "f1": _mean(f1, 1), "log_loss": entropy}

    return _resampled(len(truth), groups, figures, cost=truth.shape[1])


def _resampled(
    n: int, groups: Sequence[Any] | None, figures: Callable[[np.ndarray], dict[str, np.ndarray]], cost: int = 1
) -> dict[str, tuple[float, float]]:
    """Intervals of what `figures` makes of weights [rows, n]: how often each image is in each of the resamples."""
    unit = np.arange(n) if groups is None else np.unique(np.asarray(groups, str), return_inverse=True)[1]
    units = int(unit.max()) + 1 if n else 0
    if units < LEAST_UNITS:
        return {}

    def values(rows: range) -> dict[str, np.ndarray]:
        drawn = np.random.default_rng([0, rows.start]).integers(0, units, (len(rows), units))
        places = drawn + np.arange(len(rows))[:, None] * units
        weights = np.bincount(places.ravel(), minlength=len(rows) * units).reshape(len(rows), units).astype(np.float32)
        return figures(weights if groups is None else weights[:, unit])

    resamples, step = min(RESAMPLES, max(400, DRAWS // (n * cost))), max(1, BLOCK // n)
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:  # NumPy lets go of the GIL; each holds some 25 MB
        found = list(pool.map(values, (range(at, min(at + step, resamples)) for at in range(0, resamples, step))))
    return {name: _percentiles(np.concatenate([block[name] for block in found])) for name in found[0]}


class _Ranking:
    """Images by falling score, ready for average precision and AUROC under many weightings."""

    def __init__(self, scores: np.ndarray, positive: np.ndarray) -> None:
        self.order = np.argsort(-scores, kind="stable")
        self.positive = positive[self.order].astype(np.float32)
        ranked = scores[self.order]
        self.ends = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))  # equal scores count together

    def figures(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Average precision and AUROC of each row of weights [rows, N]; nan where a row has one class only."""
        ranked = weights[:, self.order]
        hits = np.cumsum(ranked * self.positive, 1)[:, self.ends]  # counts: exact in float32
        seen = np.cumsum(ranked, 1)[:, self.ends]
        new = np.diff(hits, prepend=0, axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            precision = np.where(seen > 0, hits / seen, 0)
            average = (new * precision).sum(1, dtype=np.float64) / hits[:, -1]
            misses = seen - hits
            below = np.diff(misses, prepend=0, axis=1) * (hits - new / 2)
            area = below.sum(1, dtype=np.float64) / (hits[:, -1].astype(np.float64) * misses[:, -1])
        both = (hits[:, -1] > 0) & (misses[:, -1] > 0)
        return np.where(both, average, np.nan), np.where(both, area, np.nan)


def _from_confusion(counts: np.ndarray, binary: bool) -> dict[str, np.ndarray]:
    """Metrics of confusion matrices [rows, true, predicted]."""
    total, true, predicted = counts.sum((1, 2)), counts.sum(2), counts.sum(1)
    hits = np.diagonal(counts, axis1=1, axis2=2)
    far = np.abs(np.subtract.outer(np.arange(counts.shape[1]), np.arange(counts.shape[1])))
    with np.errstate(invalid="ignore", divide="ignore"):
        f1 = np.where(true > 0, 2 * hits / (true + predicted), np.nan)
        by_chance = np.einsum("ri,ij,rj->r", true, far**2.0, predicted) / total
        return {
            "balanced_accuracy": _mean(np.where(true > 0, hits / true, np.nan), 1),
            "f1": f1[:, -1] if binary else _mean(f1, 1),
            "mean_absolute_error": (counts * far).sum((1, 2)) / total,
            "quadratic_kappa": 1 - (counts * far**2).sum((1, 2)) / by_chance,
        }


def _mean(values: np.ndarray, axis: int) -> np.ndarray:
    """Mean of what is not nan; nan where nothing is."""
    known = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        return np.where(known, values, 0).sum(axis) / known.sum(axis)


def _percentiles(values: np.ndarray) -> tuple[float, float]:
    """Unknown where most resamples give none: the few that do are alike."""
    known = values[np.isfinite(values)]
    low, high = np.percentile(known, [2.5, 97.5]) if 2 * len(known) > len(values) else (math.nan, math.nan)
    return float(low), float(high)
