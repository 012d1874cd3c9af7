"""How well a class is told from the rest at every threshold: ROC, and precision against recall."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes

from faceattr.report.charts import COLOURS, DASHES, INK, MUTED


class Ranked(NamedTuple):
    """How a class was told from the rest: its scores [N], which images are of it, which were said to be; and a threshold that
    was chosen."""

    name: str
    scores: np.ndarray
    positive: np.ndarray
    predicted: np.ndarray
    threshold: float | None = None

    def curve(self, *, roc: bool) -> tuple[np.ndarray, np.ndarray]:
        """False positive rate and recall, or recall and precision, from the highest score on; at most 500 points."""
        order = np.argsort(-self.scores, kind="stable")
        ends = np.flatnonzero(np.append(np.diff(self.scores[order]) != 0, True))
        if len(ends) > 500:
            ends = ends[np.linspace(0, len(ends) - 1, 500).round().astype(int)]
        hits = self.positive[order].cumsum()[ends]
        recall, missed = hits / self.positive.sum(), (ends + 1 - hits) / max(1, (~self.positive).sum())
        if roc:
            return np.append(0, missed), np.append(0, recall)
        precision = hits / (ends + 1)
        return np.append(0, recall), np.append(precision[0], precision)

    def point(self, said: np.ndarray, *, roc: bool) -> tuple[float, float]:
        """Where `said` [N], which images are called positive, lies in the same plane; nan: none is, and precision is not known."""
        hits, recall = (said & self.positive).sum(), float((said & self.positive).sum() / self.positive.sum())
        if roc:
            return float((said & ~self.positive).sum() / max(1, (~self.positive).sum())), recall
        return recall, float(hits / said.sum()) if said.any() else float("nan")


def ranking(axes: Axes, ranked: Sequence[Ranked], *, roc: bool) -> None:
    """ROC or precision against recall of each class; dots: as it was predicted, a diamond: at the threshold that was chosen."""
    if roc:
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=0.9, linestyle=":")
    for one, colour, dash in zip(ranked, COLOURS, DASHES, strict=False):
        style: dict[str, Any] = {"color": colour, "linestyle": dash, "linewidth": 1.8, "label": one.name}
        axes.plot(*one.curve(roc=roc), drawstyle="default" if roc else "steps-pre", **style)
        axes.plot(*one.point(one.predicted, roc=roc), "o", color=colour, markeredgecolor="white", markersize=9)
        if one.threshold is not None:
            chosen = one.point(one.scores >= one.threshold, roc=roc)
            axes.plot(*chosen, "D", color="white", markeredgecolor=INK, markersize=7, label="chosen threshold")
    names = ("false positive rate", "recall", "ROC") if roc else ("recall", "precision", "precision and recall")
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), **dict(zip(("xlabel", "ylabel", "title"), names, strict=True)))
    axes.grid()
