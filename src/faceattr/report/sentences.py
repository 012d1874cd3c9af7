"""Results in one sentence each, for the log and the report."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from faceattr.metrics.intervals import Paired, wilson
from faceattr.metrics.slices import LEAST


def describe_metrics(metrics: Mapping[str, Any]) -> str:
    """Accuracy with its interval, then average precision; for attributes, the means."""
    if not metrics.get("n"):
        return "no images"
    multilabel = "labels" in metrics
    text = (
        f"{'mean ' if multilabel else ''}accuracy {metrics['accuracy']:.3f} "
        f"(95% {metrics['accuracy_low']:.3f}–{metrics['accuracy_high']:.3f}, n = {metrics['n']:,})"
    )
    text += describe_uneven(metrics)
    if metrics.get("average_precision") is None:
        return text
    mean = " (mean of attributes)" if multilabel else " (macro)"
    of = f" of {metrics['positive_class']}" if metrics.get("positive_class") else mean
    text += f", average precision{of} {metrics['average_precision']:.3f}"
    if metrics.get("average_precision_low") is not None:
        text += f" ({metrics['average_precision_low']:.3f}–{metrics['average_precision_high']:.3f})"
    return text


def describe_uneven(metrics: Mapping[str, Any]) -> str:
    """Where one class has half as many images again as another: balanced accuracy, and what always predicting the most frequent
    class gives; else nothing."""
    present = {key[2:]: n for key, n in metrics.items() if key.startswith("n_") and n}
    if (
        metrics.get("balanced_accuracy") is None
        or len(present) < 2
        or max(present.values()) < 1.5 * min(present.values())
    ):
        return ""
    most, always = max(present, key=present.__getitem__), max(present.values()) / sum(present.values())
    return (
        f", balanced accuracy {metrics['balanced_accuracy']:.3f} "
        f"(always {most}: accuracy {always:.3f}, balanced {1 / len(present):.3f})"
    )


def describe_certain(certain: float, rest: float, n: int) -> str:
    """Accuracy among the most certain predictions, and a warning where it is lower than among the rest."""
    text = f"Accuracy among the {n:,} most certain predictions: {certain:.1%}; among the rest: {rest:.1%}"
    return f"{text}. Certainty misleads here: do not trust a prediction for its probability" if certain < rest else text


def describe_published(entry: Mapping[str, Any], ours: float | None) -> str:
    """A preset's published figure with its interval, its source, and ours."""
    name = f"{entry['split']} {entry['metric']}"
    here = "none here" if ours is None else f"here {ours:.3f}"
    if entry["value"] is None or entry["n"] is None:
        return f"{name} without a number ({entry['source']}), {here}"
    low, high = wilson(entry["value"], entry["n"])
    return f"{name} {entry['value']:.3f} (95% {low:.3f}–{high:.3f}, n = {entry['n']:,}; {entry['source']}), {here}"


def describe_pair(pair: Paired, *, multilabel: bool) -> str:
    """The difference in accuracy of two models on the same images, and whether it may be chance."""
    difference = f"Difference {pair.difference:+.3f} (95% {pair.low:+.3f} to {pair.high:+.3f}); "
    if multilabel:
        more = f"more attributes right than compare on {pair.wins:,} images, fewer on {pair.losses:,}"
        return f"{difference}{more}, sign test {pair.p_text}"
    return f"{difference}only ckpt right {pair.wins:,}, only compare right {pair.losses:,}, McNemar {pair.p_text}"


def describe_threshold(reached: Mapping[str, float], positive_class: str) -> str:
    """The threshold that `calibration.threshold` chose, and what it gives."""
    values = f"precision {reached['precision_at_threshold']:.3f}, recall {reached['recall_at_threshold']:.3f}"
    return f"{positive_class} from probability {reached['threshold']:.3f} on: {values}"


def describe_slices(slices: pd.DataFrame) -> str:
    """The slice with the largest gap, and whether the gap may be chance."""
    compared = slices[slices["gap"].notna()] if len(slices) else slices
    if compared.empty:
        return f"Slices: none has {LEAST} images"
    worst = compared.iloc[0]
    gap = f"{worst['gap']:+.3f} to the rest (95% {worst['gap_low']:+.3f} to {worst['gap_high']:+.3f}, Holm p {worst['p']:.2g})"
    name = f"{worst['column']} {worst['value']}, accuracy {worst['accuracy']:.3f} (n = {worst['n']:,})"
    return f"Worst of {len(compared)} slices: {name}, {gap}"


def describe_leakage(slices: pd.DataFrame) -> str:
    """The accuracy of images with a copy, or their person, in train, beside that of the others."""
    rows = slices[slices["column"] == "in_train"] if len(slices) else slices
    values = [
        f"{row['value']} {row['accuracy']:.3f} ({row['accuracy_low']:.3f}–{row['accuracy_high']:.3f}, n = {row['n']:,})"
        for _, row in rows.iterrows()
    ]
    return f"Leakage, accuracy: {'; '.join(values)}" if values else "Leakage: the images do not differ in it"
