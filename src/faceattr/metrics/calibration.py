"""Whether a model's probabilities mean what they say: how far off they are, one temperature that mends them, what is won by
leaving out the least certain images, and the threshold for a wished precision or recall."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

BINS = 15


def tempered(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Probabilities [N, classes] as if the logits had been divided by `temperature` (Guo et al. 2017): above 1 less certain.

    Found from the probabilities alone: a softmax does not see what is added to all logits. The predicted class stays.
    """
    scaled = np.log(probabilities.astype(np.float64).clip(1e-12)) / temperature
    scaled = np.exp(scaled - scaled.max(1, keepdims=True))
    return (scaled / scaled.sum(1, keepdims=True)).astype(np.float32)


def fit_temperature(probabilities: np.ndarray, truth: np.ndarray) -> float:
    """The temperature with the least log loss on these images, from 1/20 to 20: take others than it will be judged on."""
    from scipy.optimize import minimize_scalar  # half a second, which only a calibration has to spend

    def loss(log_temperature: float) -> float:
        return log_loss(tempered(probabilities, float(np.exp(log_temperature))), truth)

    return float(np.exp(minimize_scalar(loss, bounds=(-3, 3), method="bounded").x))


def log_loss(probabilities: np.ndarray, truth: np.ndarray) -> float:
    """Mean of minus the logarithm of the true class's probability."""
    return float(-np.log(probabilities[np.arange(len(truth)), truth].astype(np.float64).clip(1e-12)).mean())


def reliability(probabilities: np.ndarray, truth: np.ndarray) -> pd.DataFrame:
    """Of the predicted class, in `BINS` equal bins of its probability that hold images: n, confidence (mean), accuracy."""
    confidence, right = probabilities.max(1), probabilities.argmax(1) == truth
    place = np.minimum((confidence * BINS).astype(int), BINS - 1)
    rows = pd.DataFrame({"bin": place, "confidence": confidence, "accuracy": right}).groupby("bin")
    return rows.mean().assign(n=rows.size()).reset_index()


def figures(probabilities: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """`ece`, the expected calibration error (Naeini et al. 2015: the mean gap between confidence and accuracy over the bins),
    `brier` (mean squared distance to the truth, summed over classes: 0 to 2) and `log_loss`."""
    bins = reliability(probabilities, truth)
    ece = float((bins["n"] * (bins["confidence"] - bins["accuracy"]).abs()).sum() / len(truth))
    brier = float(((probabilities - np.eye(probabilities.shape[1])[truth]) ** 2).sum(1).mean())
    return {"ece": ece, "brier": brier, "log_loss": log_loss(probabilities, truth)}


def coverage(probabilities: np.ndarray, truth: np.ndarray) -> pd.DataFrame:
    """Accuracy of the most certain images, for shares of them from 5% to all: `coverage`, `accuracy`, and the `confidence`
    below which the others are left out."""
    order = np.argsort(-probabilities.max(1), kind="stable")
    right, confidence = (probabilities.argmax(1) == truth)[order], probabilities.max(1)[order]
    kept = np.unique(np.ceil(np.linspace(0.05, 1, 20) * len(truth)).astype(int))
    accuracy = right.cumsum()[kept - 1] / kept
    return pd.DataFrame({"coverage": kept / len(truth), "accuracy": accuracy, "confidence": confidence[kept - 1]})


def threshold(
    scores: np.ndarray, positive: np.ndarray, *, precision: float | None = None, recall: float | None = None
) -> dict[str, float] | None:
    """The threshold on the probability of a binary target's positive class that reaches a wished precision with the most
    recall, or a wished recall with the most precision: `threshold`, `precision_at_threshold`, `recall_at_threshold` on these
    images; None where none reaches it."""
    order = np.argsort(-scores, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))
    hits = positive[order].cumsum()[ends]
    table = pd.DataFrame({"threshold": scores[order][ends], "precision": hits / (ends + 1)})
    table["recall"] = hits / max(1, positive.sum())
    wished, other, least = ("precision", "recall", precision) if recall is None else ("recall", "precision", recall)
    enough = table[table[wished] >= least]
    if enough.empty:
        return None
    best = enough.sort_values(other, kind="stable").iloc[-1]
    return {"threshold": float(best["threshold"])} | {
        f"{k}_at_threshold": float(best[k]) for k in ("precision", "recall")
    }


def describe_threshold(reached: Mapping[str, float], positive_class: str) -> str:
    """One line: from which probability on an image is to count as the positive class, and what that gives."""
    given = f"precision {reached['precision_at_threshold']:.3f}, recall {reached['recall_at_threshold']:.3f}"
    return f"{positive_class} from probability {reached['threshold']:.3f} on: {given}"
