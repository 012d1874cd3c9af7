"""What a report says of one split's images: figures with their intervals, charts with the same in words, slices, images."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from faceattr.metrics import calibration
from faceattr.metrics import slices as cuts
from faceattr.models.task import Task
from faceattr.report import charts
from faceattr.report.ranking import Ranked, ranking
from faceattr.report.render import Chart, Row, interval, number

if TYPE_CHECKING:
    from faceattr.report.image_grid import Explained

FIGURES = {
    **{"accuracy": "Accuracy", "balanced_accuracy": "Balanced accuracy", "average_precision": "Average precision"},
    **{"auroc": "AUROC", "f1": "F1"},
    **{"accuracy_within_one": "At most one class off", "quadratic_kappa": "Quadratic kappa"},
}
ERRORS = {
    **{"ece": "Calibration error (ECE)", "brier": "Brier score", "log_loss": "Log loss"},
    **{"mean_absolute_error": "Mean absolute error, in classes"},
}
MOST_LINES, MOST_CLASSES, MOST_CELLS = 6, 12, 20
"""At most so many classes in a chart of thresholds, recalls among the figures, classes in the confusion."""
PLANES = {"roc": ("false positive rate", "recall"), "precision": ("recall", "precision")}


@dataclass(frozen=True)
class SplitResult:
    """One split's images judged by one model: what its evaluation found, put together for a reader.

    `found` is <split>_metrics.json, `scores` float [N, classes], `truth` positions [N] (multilabel: float [N, classes] of 1, 0 and
    nan), `slices` as slices.slices gives them, `tiles` as galleries.tiles does.
    """

    split: str
    task: Task
    found: Mapping[str, Any]
    scores: np.ndarray
    truth: np.ndarray
    slices: pd.DataFrame
    tiles: Mapping[str, Sequence["Explained"]]

    @property
    def images(self) -> str:
        return {"val": "validation images", "train": "training images", "all": "images"}.get(
            self.split, f"{self.split} images"
        )

    @property
    def multilabel(self) -> bool:
        return self.task.multilabel

    @cached_property
    def figures(self) -> list[Row]:
        """What is better when it is more, with intervals; then the recall of each class."""
        of = self.found.get("positive_class")
        mean = "of " + of if of else f"mean of the {'attributes' if self.multilabel else 'classes'}"
        notes = dict.fromkeys(("average_precision", "auroc", "f1"), mean)
        rows = [self._row(key, label, notes.get(key, "")) for key, label in FIGURES.items()]
        classes = () if self.multilabel or len(self.task.classes) > MOST_CLASSES else self.task.classes
        rows += [self._row(f"recall_{c}", f"Recall of {c}", f"n = {self.found.get(f'n_{c}', 0):,}") for c in classes]
        return [row for row in rows if row.value is not None or row.label.startswith("Recall")]

    def _row(self, key: str, label: str, note: str = "") -> Row:
        value, low, high = (self.found.get(name) for name in (key, f"{key}_low", f"{key}_high"))
        return Row(label, value, low, high, note)

    @property
    def errors(self) -> list[tuple[str, str, str, str]]:
        """What is better when it is less: label, value, interval, and the value before the temperature."""
        found = self.found
        return [
            (
                label,
                number(found[key]),
                interval(found.get(f"{key}_low"), found.get(f"{key}_high")),
                number(found[f"{key}_uncalibrated"]) if f"{key}_uncalibrated" in found else "",
            )
            for key, label in ERRORS.items()
            if found.get(key) is not None
        ]

    @cached_property
    def baseline(self) -> tuple[str, float] | None:
        """The commonest class, and how often saying it of every image would be right."""
        if self.multilabel or not len(self.truth):
            return None
        n = np.bincount(self.truth, minlength=len(self.task.classes))
        return self.task.classes[int(n.argmax())], float(n.max() / n.sum())

    @cached_property
    def attributes(self) -> list[Row]:
        """Multilabel: the accuracy of each attribute, worst first."""
        rows = []
        for name in self.task.classes if self.multilabel else ():
            precision = number(self.found.get(f"average_precision_{name}"))
            n, positive = (self.found.get(f"{key}_{name}") or 0 for key in ("n", "positive"))
            share = f", {positive / n:.0%} have it" if n else ""
            rows.append(self._row(f"accuracy_{name}", name, f"AP {precision}, n = {n:,}{share}"))
        return sorted((row for row in rows if row.value is not None), key=lambda row: row.value or 0)

    @cached_property
    def worst(self) -> list[Row]:
        """The slices that were compared, the worst gap to the rest first."""
        compared = self.slices[self.slices["gap"].notna()] if len(self.slices) else self.slices
        return [
            Row(
                f"{of['column']}: {of['value']}",
                *(of["accuracy"], of["accuracy_low"], of["accuracy_high"]),
                f"n = {of['n']:,}, gap {number(of['gap'], '+.3f')} ({interval(of['gap_low'], of['gap_high'], '+.3f')})",
                filled=bool(of["p"] < 0.05),
            )
            for _, of in compared.iterrows()
        ]

    @property
    def slice_table(self) -> pd.DataFrame:
        """All slices, figures with their intervals; the recall of each class too where there are few."""
        found, recalls = self.slices, self.slices.filter(like="recall_")
        columns = {
            "slice": found["column"].astype(str) + ": " + found["value"].astype(str),
            "n": found["n"],
            "accuracy": [_with_interval(of, "accuracy", ".3f") for of in found.to_dict("records")],
            "AP": found["average_precision"].map(number),
            **({name: recalls[name].map(number) for name in recalls} if recalls.shape[1] <= 4 else {}),
            "gap to the rest": [_with_interval(of, "gap", "+.3f") for of in found.to_dict("records")],
            "p (Holm)": found["p"].map(lambda p: number(p, ".2g")),
        }
        return pd.DataFrame(columns)

    @property
    def leakage(self) -> str:
        """Where it was asked for: the accuracy on images that have a copy, or their person, in train, and on the others."""
        there = len(self.slices) and (self.slices["column"] == "in_train").any()
        return cuts.describe_leakage(self.slices) if there else ""

    @property
    def worst_in_words(self) -> str:
        return cuts.describe(self.slices).replace(" -", " −")

    @property
    def has_overlays(self) -> bool:
        return any(tile.overlay is not None for tiles in self.tiles.values() for tile in tiles)

    @cached_property
    def confusion_charts(self) -> list[Chart]:
        """Confusion, and for ordered classes how far off the errors are."""
        classes, k = self.task.classes, len(self.task.classes)
        if self.multilabel or not len(self.truth):
            return []
        matrix = np.bincount(self.truth * k + self.scores.argmax(1), minlength=k * k).reshape(k, k)
        missed = matrix - np.diag(np.diag(matrix))
        true, said = np.unravel_index(missed.argmax(), missed.shape)
        words = f"{np.trace(matrix):,} of {matrix.sum():,} right."
        if missed.any():
            words += f" The commonest error: {missed.max():,} images of {classes[true]} taken for {classes[said]}."
        name, told = self._name("confusion", words)
        draw = partial(charts.confusion, matrix, classes, title="")
        found = [Chart(charts.svg(lambda file: draw(path=file), name, told), words)] if k <= MOST_CELLS else []
        if self.task.kind == "ordinal":
            far = np.abs(np.subtract.outer(np.arange(k), np.arange(k)))
            shares = [matrix[far == step].sum() / matrix.sum() for step in range(k)]
            words = f"{shares[0]:.1%} exactly right, {shares[1]:.1%} one class off, {sum(shares[2:]):.1%} further."
            found.append(self._panel("distances", partial(charts.distances, matrix=matrix), words))
        return found

    @cached_property
    def thresholds(self) -> list[Chart]:
        """ROC and precision against recall: of the positive class, of each class against the rest, or of the worst ones."""
        ranked = list(self._ranked())
        found = []
        for name, axes in PLANES.items() if ranked else ():
            points = [(one.name, *one.point(one.predicted, roc=name == "roc")) for one in ranked]
            said = "; ".join(f"{of} {x:.3f}, {y:.3f}" if y == y else f"{of} never" for of, x, y in points)
            draw = partial(ranking, ranked=ranked, roc=name == "roc")
            found.append(self._panel(name, draw, f"As predicted (dots; {', '.join(axes)}): {said}."))
        return found

    def _ranked(self) -> Iterator[Ranked]:
        names, found = list(self.task.classes), self.found
        if self.task.kind == "binary":
            names = names[-1:]
        elif len(names) > MOST_LINES:
            names.sort(key=lambda name: found.get(f"average_precision_{name}") or found.get(f"recall_{name}") or 0)
        for name in names[:MOST_LINES]:
            place = self.task.classes.index(name)
            known = np.isfinite(self.truth[:, place]) if self.multilabel else np.ones(len(self.truth), bool)
            scores = self.scores[known, place]
            positive = self.truth[known, place] > 0.5 if self.multilabel else self.truth == place
            predicted = scores > 0.5 if self.multilabel else self.scores.argmax(1) == place
            if 0 < positive.sum() < len(positive):
                yield Ranked(name, scores, positive, predicted, found.get("threshold"))

    @cached_property
    def certainty(self) -> list[Chart]:
        """Whether probabilities mean what they say, and what leaving out the least certain wins."""
        if not len(self.truth) or self.found.get("ece") is None:
            return []
        decided = self.task.flatten_labels(torch.tensor(self.scores), torch.tensor(self.truth))
        scores, truth = (part.numpy() for part in decided)
        bins, kept = calibration.reliability(scores, truth), calibration.coverage(scores, truth)
        ece, half = self.found["ece"], kept.iloc[(kept["coverage"] - 0.5).abs().argmin()]
        gap = (bins["confidence"] * bins["n"]).sum() / bins["n"].sum() - kept["accuracy"].iloc[-1]
        words = f"On average the probabilities are {abs(gap):.3f} too {'high' if gap > 0 else 'low'}; calibration error {ece:.3f}."
        every = f"Of all, {kept['accuracy'].iloc[-1]:.1%} are right"
        left = f"{every}; of the most certain {half['coverage']:.0%}, {half['accuracy']:.1%}."
        return [
            self._panel("reliability_diagram", partial(charts.reliability_diagram, bins=bins, ece=ece), words),
            self._panel("coverage", partial(charts.coverage, kept=kept), left),
        ]

    def _panel(self, name: str, draw: Any, words: str) -> Chart:
        return Chart(charts.panel_svg(draw, *self._name(name, words)), words)

    def _name(self, name: str, words: str) -> tuple[str, str]:
        return f"{self.split}-{name}", f"{name}, {self.images}: {words}"


def _with_interval(of: Mapping[Any, Any], name: str, form: str) -> str:
    bounds = interval(of[f"{name}_low"], of[f"{name}_high"], form)
    return number(of[name], form) + (f" ({bounds})" if bounds else "")
