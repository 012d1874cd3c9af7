"""One split's results as a report shows them: metrics with intervals, charts with captions, slices and images."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial, wraps
from typing import TYPE_CHECKING, Any, ParamSpec

import numpy as np
import pandas as pd
import torch

from faceattr.errors import optional
from faceattr.message_text import MOST_LISTED, counted
from faceattr.metrics import calibration, per_class
from faceattr.metrics.ranking import Ranking, precision_recall_point, roc_point
from faceattr.metrics.registry import METRICS
from faceattr.models.task import Task
from faceattr.report import charts, result_sentences
from faceattr.report.accuracy_sentence import SPLITS
from faceattr.report.charts import ThresholdCurve
from faceattr.report.render_html import Chart, Row, interval, number

if TYPE_CHECKING:
    from faceattr.report.image_grid import ExplainedImage

MOST_LINES, MOST_CLASSES, MOST_CELLS = 6, MOST_LISTED, 20
"""Most classes in a chart of thresholds, recalls among the metrics, and classes in a confusion matrix."""

Of = ParamSpec("Of")


def optional_charts(draw: Callable[Of, list[Chart]]) -> Callable[Of, list[Chart]]:
    """`draw`, whose failure costs its own charts only: none are drawn, with a warning."""

    @wraps(draw)
    def drawn(*args: Of.args, **kwargs: Of.kwargs) -> list[Chart]:
        with optional(f"A part of the report ({draw.__name__.replace('_', ' ')})"):
            return draw(*args, **kwargs)
        return []

    return drawn


@dataclass(frozen=True)
class SplitResult:
    """One split's images, evaluated with one model.

    `metrics` is <split>_metrics.json, `scores` float [N, classes], `truth` positions [N] (multilabel: float [N, classes] of 1, 0
    and nan), `slices` as metrics.slices gives them, `predictions` is predictions_<split>.csv, `tiles` as image_grid.tiles
    gives them.
    """

    split: str
    task: Task
    metrics: Mapping[str, Any]
    scores: np.ndarray
    truth: np.ndarray
    slices: pd.DataFrame
    predictions: pd.DataFrame = field(default_factory=pd.DataFrame)
    tiles: Mapping[str, Sequence["ExplainedImage"]] = field(default_factory=dict)

    @property
    def images(self) -> str:
        return SPLITS[self.split]

    @property
    def multilabel(self) -> bool:
        return self.task.multilabel

    @cached_property
    def metric_rows(self) -> list[Row]:
        """The metrics whose higher value is better, then the recall of each class."""
        positive = self.metrics.get("positive_class")
        note = f"of {positive}" if positive else f"mean of the {'attributes' if self.multilabel else 'classes'}"
        better = [metric for metric in METRICS.values() if metric.higher_is_better]
        rows = [self._row(metric.name, metric.label, note if metric.of_positive_class else "") for metric in better]
        rows = [row for row in rows if row.value is not None]
        classes = () if self.multilabel or len(self.task.classes) > MOST_CLASSES else self.task.classes
        n_of = {name: self.metrics.get(f"n_{name}", 0) for name in classes}
        return rows + [self._row(f"recall_{name}", f"Recall of {name}", f"n = {n:,}") for name, n in n_of.items()]

    def _row(self, key: str, label: str, note: str = "") -> Row:
        value, low, high = (self.metrics.get(name) for name in (key, f"{key}_low", f"{key}_high"))
        return Row(label, value, low, high, note)

    @property
    def error_rows(self) -> list[tuple[str, str, str, str]]:
        """The metrics whose lower value is better: label, value, interval, and the value before calibration."""
        rows = []
        for name, metric in METRICS.items():
            if not metric.higher_is_better and self.metrics.get(name) is not None:
                before = self.metrics.get(f"{name}_uncalibrated")
                sides = interval(self.metrics.get(f"{name}_low"), self.metrics.get(f"{name}_high"))
                rows.append((metric.label, number(self.metrics[name]), sides, "" if before is None else number(before)))
        return rows

    @cached_property
    def baseline(self) -> tuple[str, float] | None:
        """The most frequent class, and the accuracy of always predicting it."""
        if self.multilabel or not len(self.truth):
            return None
        n = np.bincount(self.truth, minlength=len(self.task.classes))
        return self.task.classes[int(n.argmax())], float(n.max() / n.sum())

    @property
    def commonest_of_uneven(self) -> result_sentences.CommonestAnswer | None:
        """Where classes are uneven, what the most frequent answer gives: balanced accuracy then belongs into the headline."""
        return result_sentences.commonest_of_uneven(self.metrics)

    @cached_property
    def certain_text(self) -> str:
        """The accuracy of the most certain predictions beside that of the rest; "" for fewer than 200."""
        with optional("The accuracy of the most certain predictions"):
            if certain := calibration.most_certain(*self._labels):
                return result_sentences.describe_certain(*certain)
        return ""

    @property
    def certainty_misleads(self) -> bool:
        return result_sentences.MISLEADS in self.certain_text

    @cached_property
    def _labels(self) -> tuple[np.ndarray, np.ndarray]:
        """Probabilities and truth of each label; see `Task.flatten_labels`."""
        scores, truth = self.task.flatten_labels(torch.tensor(self.scores), torch.tensor(self.truth))
        return scores.numpy(), truth.numpy()

    @cached_property
    def attributes(self) -> list[Row]:
        """Multilabel: the accuracy of each attribute, worst first."""
        rows = []
        for name in self.task.classes if self.multilabel else ():
            precision = number(self.metrics.get(f"average_precision_{name}"))
            n, positive = (self.metrics.get(f"{key}_{name}") or 0 for key in ("n", "positive"))
            share = f", {positive / n:.0%} have it" if n else ""
            rows.append(self._row(f"accuracy_{name}", name, f"AP {precision}, n = {n:,}{share}"))
        return sorted((row for row in rows if row.value is not None), key=lambda row: row.value or 0)

    @cached_property
    def worst_slices(self) -> list[Row]:
        """The slices that were compared, the worst gap to the rest first."""
        compared = self.slices[self.slices["gap"].notna()] if len(self.slices) else self.slices
        return [
            Row(
                f"{row['column']}: {row['value']}",
                *(row["accuracy"], row["accuracy_low"], row["accuracy_high"]),
                f"n = {row['n']:,}, gap {number(row['gap'], '+.3f')} ({interval(row['gap_low'], row['gap_high'], '+.3f')})",
                filled=bool(row["p"] < 0.05),
            )
            for _, row in compared.iterrows()
        ]

    @property
    def slice_table(self) -> pd.DataFrame:
        """All slices, with intervals; the recall of each class where there are at most four."""
        slices, recalls = self.slices, self.slices.filter(like="recall_")
        columns = {
            "slice": slices["column"].astype(str) + ": " + slices["value"].astype(str),
            "n": slices["n"],
            "accuracy": [_with_interval(row, "accuracy", ".3f") for row in slices.to_dict("records")],
            "AP": slices["average_precision"].map(number),
            **({name: recalls[name].map(number) for name in recalls} if recalls.shape[1] <= 4 else {}),
            "gap to the rest": [_with_interval(row, "gap", "+.3f") for row in slices.to_dict("records")],
            "p (Holm)": slices["p"].map(lambda p: number(p, ".2g")),
        }
        return pd.DataFrame(columns)

    @property
    def leakage_text(self) -> str:
        """Where it was requested: accuracy on images with a copy, or their person, in train, and on the others."""
        requested = len(self.slices) and (self.slices["column"] == "in_train").any()
        return result_sentences.describe_leakage(self.slices) if requested else ""

    @property
    def slices_text(self) -> str:
        return result_sentences.describe_slices(self.slices).replace(" -", " −")

    @property
    def has_overlays(self) -> bool:
        return any(tile.overlay is not None for tiles in self.tiles.values() for tile in tiles)

    @cached_property
    @optional_charts
    def confusion_charts(self) -> list[Chart]:
        """The confusion matrix, and for ordered classes how far off the errors are."""
        classes, k = self.task.classes, len(self.task.classes)
        if self.multilabel or not len(self.truth):
            return []
        matrix = per_class.confusion(self.task, torch.from_numpy(self.scores), torch.from_numpy(self.truth))
        errors = matrix - np.diag(np.diag(matrix))
        caption = f"{np.trace(matrix):,} of {matrix.sum():,} correct."
        if errors.any():
            true, predicted = np.unravel_index(errors.argmax(), errors.shape)
            images = counted(int(errors.max()), "image")
            caption += f" Most frequent error: {images} of {classes[true]} predicted as {classes[predicted]}."
        draw = partial(charts.confusion, matrix, classes, title="")
        svg_name = self._name("confusion", caption)
        panels = [Chart(charts.svg(lambda file: draw(path=file), *svg_name), caption)] if k <= MOST_CELLS else []
        if self.task.kind == "ordinal":
            far = np.abs(np.subtract.outer(np.arange(k), np.arange(k)))
            shares = [matrix[far == step].sum() / matrix.sum() for step in range(k)]
            caption = f"{shares[0]:.1%} exactly right, {shares[1]:.1%} one class off, {sum(shares[2:]):.1%} further."
            panels.append(self._panel("distances", partial(charts.distances, matrix=matrix), caption))
        return panels

    @cached_property
    @optional_charts
    def threshold_charts(self) -> list[Chart]:
        """ROC and precision-recall: of the positive class, or of each class against the rest (the worst ones of many)."""
        curves = list(self._threshold_curves())
        panels = []
        for i, (name, axes) in enumerate(charts.PLANES.items() if curves else ()):
            drawn = [pair[i] for pair in curves]
            points = [(curve.label, *curve.predicted) for curve in drawn]
            values = "; ".join(f"{label} {x:.3f}, {y:.3f}" if y == y else f"{label} never" for label, x, y in points)
            draw = partial(charts.threshold_curves, curves=drawn, roc=name == "roc")
            panels.append(self._panel(name, draw, f"Dots, as predicted ({', '.join(axes)}): {values}."))
        return panels

    def _threshold_curves(self) -> Iterator[tuple[ThresholdCurve, ThresholdCurve]]:
        """ROC and precision-recall of each class that some but not all images have."""
        threshold = self.metrics.get("threshold")
        for name in self._ranked_classes():
            place = self.task.classes.index(name)
            has_label = np.isfinite(self.truth[:, place]) if self.multilabel else np.ones(len(self.truth), bool)
            scores = self.scores[has_label, place]
            positive = self.truth[has_label, place] > 0.5 if self.multilabel else self.truth == place
            predicted = scores > 0.5 if self.multilabel else self.scores.argmax(1) == place
            if not 0 < positive.sum() < len(positive):
                continue
            ranking = Ranking(scores, positive)
            pair = []
            for (x, y), point in (
                (ranking.roc_curve(), roc_point),
                (ranking.precision_recall_curve(), precision_recall_point),
            ):
                chosen = None if threshold is None else point(scores >= threshold, positive)
                pair.append(ThresholdCurve(name, x, y, point(predicted, positive), chosen))
            yield pair[0], pair[1]

    def _ranked_classes(self) -> list[str]:
        names, metrics = list(self.task.classes), self.metrics
        if self.task.kind == "binary":
            return names[-1:]
        if len(names) > MOST_LINES:
            names.sort(key=lambda name: metrics.get(f"average_precision_{name}") or metrics.get(f"recall_{name}") or 0)
        return names[:MOST_LINES]

    @cached_property
    @optional_charts
    def calibration_charts(self) -> list[Chart]:
        """Whether probabilities mean what they say, and the accuracy without the least certain images."""
        if not len(self.truth) or self.metrics.get("ece") is None:
            return []
        scores, truth = self._labels
        bins, shares = calibration.reliability(scores, truth), calibration.coverage(scores, truth)
        ece, half = self.metrics["ece"], shares.iloc[(shares["coverage"] - 0.5).abs().argmin()]
        accuracy = shares["accuracy"].iloc[-1]
        gap = (bins["confidence"] * bins["n"]).sum() / bins["n"].sum() - accuracy
        side = "high" if gap > 0 else "low"
        caption = f"On average the probabilities are {abs(gap):.3f} too {side}; calibration error {ece:.3f}."
        of_half = (
            f"Accuracy on all: {accuracy:.1%}; on the most certain {half['coverage']:.0%}: {half['accuracy']:.1%}."
        )
        of_half += f" {self.certain_text}." if self.certain_text else ""
        return [
            self._panel("reliability_diagram", partial(charts.reliability_diagram, bins=bins, ece=ece), caption),
            self._panel("coverage", partial(charts.coverage, shares=shares), of_half),
        ]

    def _panel(self, name: str, draw: Any, caption: str) -> Chart:
        return Chart(charts.panel_svg(draw, *self._name(name, caption)), caption)

    def _name(self, name: str, caption: str) -> tuple[str, str]:
        return f"{self.split}-{name}", f"{name}, {self.images}: {caption}"


def _with_interval(row: Mapping[Any, Any], name: str, form: str) -> str:
    bounds = interval(row[f"{name}_low"], row[f"{name}_high"], form)
    return number(row[name], form) + (f" ({bounds})" if bounds else "")
