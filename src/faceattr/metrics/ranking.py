"""How well scores separate one class from the rest: ROC and precision-recall curves, average precision and AUROC."""

import numpy as np

Curve = tuple[np.ndarray, np.ndarray]
Point = tuple[float, float]


class Ranking:
    """Images by falling score. Equal scores share one threshold.

    `scores` [N] and `positive` [N] (bool: images of the class), with N > 0. `thresholds` [T] are the distinct scores, highest
    first; `hits` [T] counts the positive images and `selected` [T] all images with at least that score.
    """

    def __init__(self, scores: np.ndarray, positive: np.ndarray) -> None:
        self.order = np.argsort(-scores, kind="stable")
        ranked = scores[self.order]
        self.ends = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))
        self.thresholds = ranked[self.ends]
        self.positive = positive[self.order].astype(np.float32)
        self.hits, self.selected = positive[self.order].cumsum()[self.ends], self.ends + 1
        self.num_positive, self.num_negative = int(positive.sum()), int((~positive).sum())

    def precision_recall(self) -> Curve:
        """Precision [T] and recall [T] at each threshold; recall is 0 without positive images."""
        return self.hits / self.selected, self.hits / max(1, self.num_positive)

    def precision_recall_curve(self, points: int = 500) -> Curve:
        """Recall (x) and precision (y) from recall 0 on; at most `points` thresholds, evenly spaced."""
        precision, recall = (values[self._spread(points)] for values in self.precision_recall())
        return np.append(0, recall), np.append(precision[0], precision)

    def roc_curve(self, points: int = 500) -> Curve:
        """False positive rate (x) and recall (y) from (0, 0) on; at most `points` thresholds, evenly spaced."""
        chosen = self._spread(points)
        false_positives = (self.selected - self.hits)[chosen] / max(1, self.num_negative)
        return np.append(0, false_positives), np.append(0, self.hits[chosen] / max(1, self.num_positive))

    def _spread(self, points: int) -> np.ndarray:
        count = len(self.ends)
        return np.arange(count) if count <= points else np.linspace(0, count - 1, points).round().astype(int)

    def weighted(self, weights: np.ndarray) -> Curve:
        """Average precision [R] and AUROC [R] under each row of weights [R, N]; nan where a row has one class only."""
        ranked = weights[:, self.order]
        hits = np.cumsum(ranked * self.positive, 1)[:, self.ends]  # counts: exact in float32
        selected = np.cumsum(ranked, 1)[:, self.ends]
        new_hits = np.diff(hits, prepend=0, axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            precision = np.where(selected > 0, hits / selected, 0)
            average_precision = (new_hits * precision).sum(1, dtype=np.float64) / hits[:, -1]
            false_positives = selected - hits
            steps = np.diff(false_positives, prepend=0, axis=1) * (hits - new_hits / 2)
            area = steps.sum(1, dtype=np.float64) / (hits[:, -1].astype(np.float64) * false_positives[:, -1])
        both = (hits[:, -1] > 0) & (false_positives[:, -1] > 0)
        return np.where(both, average_precision, np.nan), np.where(both, area, np.nan)


def roc_point(predicted: np.ndarray, positive: np.ndarray) -> Point:
    """False positive rate and recall of a decision: `predicted` [N] and `positive` [N] are bool."""
    return float((predicted & ~positive).sum() / max(1, (~positive).sum())), _recall(predicted, positive)


def precision_recall_point(predicted: np.ndarray, positive: np.ndarray) -> Point:
    """Recall and precision of a decision; precision is nan where nothing is predicted positive."""
    hits = (predicted & positive).sum()
    return _recall(predicted, positive), float(hits / predicted.sum()) if predicted.any() else float("nan")


def _recall(predicted: np.ndarray, positive: np.ndarray) -> float:
    return float((predicted & positive).sum() / max(1, positive.sum()))
