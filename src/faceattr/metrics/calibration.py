"""Calibration: do probabilities mean what they say? Errors, temperature scaling, accuracy without the least certain images, and
the threshold for a requested precision or recall."""

import math

import numpy as np
import pandas as pd

from faceattr.metrics.ranking import Ranking

BINS = 15


def tempered(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Probabilities [N, classes] as if the logits had been divided by `temperature` (Guo et al. 2017); above 1 less certain.

    The logarithms of the probabilities serve as logits: a softmax ignores a constant. The predicted class does not change.
    """
    scaled = np.log(probabilities.astype(np.float64).clip(1e-12)) / temperature
    scaled = np.exp(scaled - scaled.max(1, keepdims=True))
    return (scaled / scaled.sum(1, keepdims=True)).astype(np.float32)


def fit_temperature(probabilities: np.ndarray, truth: np.ndarray) -> float:
    """The temperature (1/20 to 20) with the least log loss on these images. Evaluate it on other images."""
    from scipy.optimize import minimize_scalar  # takes half a second to import, which only a calibration needs

    def loss(log_temperature: float) -> float:
        return log_loss(tempered(probabilities, float(np.exp(log_temperature))), truth)

    return float(np.exp(minimize_scalar(loss, bounds=(-3, 3), method="bounded").x))


def log_loss(probabilities: np.ndarray, truth: np.ndarray) -> float:
    """Mean of minus the logarithm of the true class's probability."""
    return float(-np.log(probabilities[np.arange(len(truth)), truth].astype(np.float64).clip(1e-12)).mean())


def brier(probabilities: np.ndarray, truth: np.ndarray) -> float:
    """Mean squared distance of the probabilities to the truth, summed over classes: 0 to 2."""
    return float(((probabilities - np.eye(probabilities.shape[1])[truth]) ** 2).sum(1).mean())


def ece(probabilities: np.ndarray, truth: np.ndarray) -> float:
    """Expected calibration error (Naeini et al. 2015): the mean gap between confidence and accuracy over the bins."""
    if np.isnan(probabilities).any():
        return math.nan
    bins = reliability(probabilities, truth)
    return float((bins["n"] * (bins["confidence"] - bins["accuracy"]).abs()).sum() / len(truth))


def metrics(probabilities: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """`ece`, `brier` and `log_loss`: the metrics that a temperature changes."""
    return {metric.__name__: metric(probabilities, truth) for metric in (ece, brier, log_loss)}


def reliability(probabilities: np.ndarray, truth: np.ndarray) -> pd.DataFrame:
    """Of the predicted class, in `BINS` equal bins of its probability that hold images: n, confidence (mean), accuracy."""
    confidence, correct = probabilities.max(1), probabilities.argmax(1) == truth
    place = np.minimum((confidence * BINS).astype(int), BINS - 1)
    rows = pd.DataFrame({"bin": place, "confidence": confidence, "accuracy": correct}).groupby("bin")
    return rows.mean().assign(n=rows.size()).reset_index()


def coverage(probabilities: np.ndarray, truth: np.ndarray) -> pd.DataFrame:
    """Accuracy on the most certain images, for shares of them from 5% to all: `coverage`, `accuracy`, and `confidence`, the
    least one among them."""
    order = np.argsort(-probabilities.max(1), kind="stable")
    correct, confidence = (probabilities.argmax(1) == truth)[order], probabilities.max(1)[order]
    n = np.unique(np.ceil(np.linspace(0.05, 1, 20) * len(truth)).astype(int))
    accuracy = correct.cumsum()[n - 1] / n
    return pd.DataFrame({"coverage": n / len(truth), "accuracy": accuracy, "confidence": confidence[n - 1]})


def most_certain(probabilities: np.ndarray, truth: np.ndarray, share: float = 0.05) -> tuple[float, float, int] | None:
    """Accuracy among the `share` most certain predictions, that of the rest, and the number of the first; None for under ten."""
    n = int(share * len(truth))
    if n < 10:
        return None
    correct = (probabilities.argmax(1) == truth)[np.argsort(-probabilities.max(1), kind="stable")]
    return float(correct[:n].mean()), float(correct[n:].mean()), n


def threshold(
    scores: np.ndarray, positive: np.ndarray, *, precision: float | None = None, recall: float | None = None
) -> dict[str, float] | None:
    """The threshold on the probability of a binary task's positive class that reaches the requested precision with the most
    recall, or the requested recall with the most precision; None where no threshold reaches it.

    Returns `threshold`, and on these images `precision_at_threshold` and `recall_at_threshold`.
    """
    ranking = Ranking(scores, positive)
    table = pd.DataFrame({"threshold": ranking.thresholds})
    table["precision"], table["recall"] = ranking.precision_recall()
    requested, other, least = ("precision", "recall", precision) if recall is None else ("recall", "precision", recall)
    enough = table[table[requested] >= least]
    if enough.empty:
        return None
    best = enough.sort_values(other, kind="stable").iloc[-1]
    return {"threshold": float(best["threshold"])} | {
        f"{name}_at_threshold": float(best[name]) for name in ("precision", "recall")
    }
