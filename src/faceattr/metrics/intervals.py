"""95% intervals: of a share, of any metric by resampling, and of the difference between two models."""

import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

Z = 1.959963984540054
RESAMPLES, DRAWS = 2000, 40_000_000
"""Number of resamples, and of draws in all. So more than 20,000 images, whose intervals are narrow, get fewer resamples."""
LEAST_UNITS = 10
BLOCK = 500_000
"""Draws at a time: what fits into the CPU's caches."""


def wilson(accuracy: float, n: float) -> tuple[float, float]:
    """95% interval (low, high) of a proportion measured on `n` images (Wilson 1927); nan without images."""
    if n == 0:
        return math.nan, math.nan
    centre = (accuracy + Z * Z / (2 * n)) / (1 + Z * Z / n)
    half = Z / (1 + Z * Z / n) * math.sqrt(accuracy * (1 - accuracy) / n + Z * Z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


@dataclass(frozen=True)
class PairedDifference:
    """Difference in accuracy of two models on the same images, with its 95% interval. `wins` and `losses` count the images (of
    all runs) that only the first, or only the second, has right; `p` is McNemar's exact test of them."""

    difference: float
    low: float
    high: float
    wins: int
    losses: int
    p: float

    @property
    def p_text(self) -> str:
        return "p < 0.001" if self.p < 0.001 else f"p = {self.p:.3f}"


def over_runs(values: np.ndarray) -> float:
    """Half the width of the 95% interval of a mean over runs (Student's t): the variation due to training. 0 for one run."""
    from scipy.stats import t  # takes a second to import, which only comparisons need

    k = len(values)
    return float(t.ppf(0.975, k - 1) * values.std(ddof=1)) / math.sqrt(k) if k > 1 else 0.0


def paired_difference(correct: np.ndarray, other: np.ndarray, groups: Sequence[Any] | None = None) -> PairedDifference:
    """Accuracy of `correct` minus that of `other`, both [runs, images] of the same images (one run: [1, images]): 1 or true where
    an image is classified correctly, else 0; for attributes the share of them.

    The 95% interval covers two kinds of chance: which images are in the split (units are images, or whole `groups` [images] of
    one identity; the mean over runs counts an image once) and, with several runs, the variation of training (Student's t over
    the runs' differences). McNemar's test (1947) ignores groups and pools runs: a thousand runs on ten images would look like
    evidence. Where the two disagree, believe the interval. Raises ValueError where the shapes differ.
    """
    from scipy.stats import binomtest  # takes a second to import, which only comparisons need

    if correct.shape != other.shape:
        raise ValueError(f"not the same images: {correct.shape} and {other.shape}")
    n = correct.shape[1]
    gains = correct.mean(0) - other.mean(0)
    difference = float(gains.mean())
    unit = np.arange(n) if groups is None else np.unique(np.asarray(groups, str), return_inverse=True)[1]
    sums = np.bincount(unit, gains - difference)
    # 2: one more image won and one lost (Agresti and Min 2005); else no disagreement would give an interval of no width
    half = Z * math.sqrt((float((sums**2).sum()) + 2) * len(sums) / max(1, len(sums) - 1)) / n
    half = math.hypot(half, over_runs(correct.mean(1) - other.mean(1)))
    wins, losses = int((correct > other).sum()), int((other > correct).sum())
    p = float(binomtest(wins, wins + losses).pvalue) if wins + losses else 1.0
    return PairedDifference(difference, difference - half, difference + half, wins, losses, p)


def bootstrap(
    n: int, groups: Sequence[Any] | None, values: Callable[[np.ndarray], dict[str, np.ndarray]], cost: int = 1
) -> dict[str, tuple[float, float]]:
    """95% percentile intervals of metrics, from 2,000 resamples of `n` images (seeded: the same again).

    `values` gives each metric [R] under weights [R, n]: how often each image is in each of R resamples. With `groups` [n] whole
    groups are drawn: photos of one person are not independent. Fewer than `LEAST_UNITS` images or groups give no intervals.
    `cost`: work per image, such as the number of attributes. Where n * cost is above 20,000 there are fewer resamples (at least
    400).
    """
    unit = np.arange(n) if groups is None else np.unique(np.asarray(groups, str), return_inverse=True)[1]
    units = int(unit.max()) + 1 if n else 0
    if units < LEAST_UNITS:
        return {}

    def block(rows: range) -> dict[str, np.ndarray]:
        drawn = np.random.default_rng([0, rows.start]).integers(0, units, (len(rows), units))
        places = drawn + np.arange(len(rows))[:, None] * units
        weights = np.bincount(places.ravel(), minlength=len(rows) * units).reshape(len(rows), units).astype(np.float32)
        return values(weights if groups is None else weights[:, unit])

    resamples, step = min(RESAMPLES, max(400, DRAWS // (n * cost))), max(1, BLOCK // n)
    with ThreadPoolExecutor(
        min(4, os.cpu_count() or 1)
    ) as pool:  # NumPy releases the GIL; each thread holds some 25 MB
        blocks = list(pool.map(block, (range(at, min(at + step, resamples)) for at in range(0, resamples, step))))
    return {name: _percentiles(np.concatenate([each[name] for each in blocks])) for name in blocks[0]}


def _percentiles(values: np.ndarray) -> tuple[float, float]:
    """nan where most resamples give no value: the few that do are alike."""
    finite = values[np.isfinite(values)]
    low, high = np.percentile(finite, [2.5, 97.5]) if 2 * len(finite) > len(values) else (math.nan, math.nan)
    return float(low), float(high)
