"""Results in one sentence each, for the log and the report."""

from collections.abc import Iterable, Mapping
from pathlib import PurePath
from typing import Any, NamedTuple

import pandas as pd

from faceattr.message_text import counted, listed
from faceattr.metrics.intervals import PairedDifference, wilson
from faceattr.metrics.slices import LEAST, TRUE_CLASS


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
    of_class = f" of {metrics['positive_class']}" if metrics.get("positive_class") else mean
    text += f", average precision{of_class} {metrics['average_precision']:.3f}"
    if metrics.get("average_precision_low") is not None:
        text += f" ({metrics['average_precision_low']:.3f}–{metrics['average_precision_high']:.3f})"
    return text


class CommonestAnswer(NamedTuple):
    """What the same answer for every image gives: the answer, its accuracy and its balanced accuracy."""

    answer: str
    accuracy: float
    balanced_accuracy: float


def commonest_of_uneven(metrics: Mapping[str, Any]) -> CommonestAnswer | None:
    """Where one class has half as many images again as another: what the most frequent class gives; else None. Attributes: the
    commoner answer to each, where that is right as often."""
    if metrics.get("balanced_accuracy") is None:
        return None
    if "labels" in metrics:
        share = metrics.get("commonest_answers") or 0
        return CommonestAnswer("the commoner answer", share, 0.5) if share >= 0.6 else None
    present = {key[2:]: n for key, n in metrics.items() if key.startswith("n_") and n}
    if len(present) < 2 or max(present.values()) < 1.5 * min(present.values()):
        return None
    most = max(present, key=present.__getitem__)
    return CommonestAnswer(most, present[most] / sum(present.values()), 1 / len(present))


def describe_uneven(metrics: Mapping[str, Any]) -> str:
    """Where classes are uneven: balanced accuracy, and what always giving the most frequent answer has; else nothing."""
    if (most := commonest_of_uneven(metrics)) is None:
        return ""
    return (
        f", balanced accuracy {metrics['balanced_accuracy']:.3f} "
        f"(always {most.answer}: accuracy {most.accuracy:.3f}, balanced {most.balanced_accuracy:.3f})"
    )


def describe_certain(certain: float, rest: float, n: int) -> str:
    """Accuracy among the `n` most certain predictions and among the rest; a warning where it is lower and that is hardly chance."""
    text = f"Accuracy among the {n:,} most certain predictions: {certain:.1%}; among the rest: {rest:.1%}"
    return f"{text}. {MISLEADS}" if wilson(certain, n)[1] < rest else text


MISLEADS = "Certainty misleads here: do not trust a prediction for its probability"


def describe_data(data: Mapping[str, Any], keys: Iterable[str] = ()) -> str:
    """A data set's name from its config: the source and the last part of its folder, no path of a machine; then the `keys` that
    the command line gave."""
    source = str(data.get("_target_", "")).removesuffix(".load").rpartition(".")[2]
    folder = PurePath(str(data.get("root") or "")).name
    name = " ".join(dict.fromkeys(part for part in (source, folder) if part)) or "unknown"
    listed_keys = ", ".join(keys)
    return f"{name} ({listed_keys})" if listed_keys else name


def describe_published(entry: Mapping[str, Any], ours: float | None) -> str:
    """A preset's published figure with its interval, its source, and ours."""
    name = f"{entry['split']} {entry['metric']}"
    here = "none here" if ours is None else f"here {ours:.3f}"
    if entry["value"] is None or entry["n"] is None:
        return f"{name} without a number ({entry['source']}), {here}"
    low, high = wilson(entry["value"], entry["n"])
    return f"{name} {entry['value']:.3f} (95% {low:.3f}–{high:.3f}, n = {entry['n']:,}; {entry['source']}), {here}"


def describe_pair(pair: PairedDifference, *, multilabel: bool) -> str:
    """The difference in accuracy of two models on the same images, and whether it may be chance."""
    difference = f"Difference {pair.difference:+.3f} (95% {pair.low:+.3f} to {pair.high:+.3f}); "
    if multilabel:
        more = f"more attributes right than compare on {counted(pair.wins, 'image')}, fewer on {pair.losses:,}"
        return f"{difference}{more}, sign test {pair.p_text}"
    return f"{difference}only ckpt right {pair.wins:,}, only compare right {pair.losses:,}, McNemar {pair.p_text}"


def describe_threshold(reached: Mapping[str, float], positive_class: str) -> str:
    """The threshold that `calibration.threshold` chose, and what it gives."""
    values = f"precision {reached['precision_at_threshold']:.3f}, recall {reached['recall_at_threshold']:.3f}"
    return f"{positive_class} from probability {reached['threshold']:.3f} on: {values}"


def describe_slices(slices: pd.DataFrame) -> str:
    """The accuracy of each true class; the slice with the largest gap, and whether the gap may be chance."""
    classes = slices[slices["column"] == TRUE_CLASS].sort_values("accuracy") if len(slices) else slices
    values = [f"{row['value']} {row['accuracy']:.3f} (n = {row['n']:,})" for row in classes.to_dict("records")]
    by_class = f"By true class: {listed(values)}. " if values else ""
    compared = slices[slices["gap"].notna()] if len(slices) else slices
    if compared.empty:
        return f"{by_class}Slices: none has {LEAST} images"
    worst = compared.iloc[0]
    gap = f"{worst['gap']:+.3f} to the rest (95% {worst['gap_low']:+.3f} to {worst['gap_high']:+.3f}, Holm p {worst['p']:.2g})"
    name = f"{worst['column']} {worst['value']}, accuracy {worst['accuracy']:.3f} (n = {worst['n']:,})"
    return f"{by_class}Worst of {counted(len(compared), 'slice')}: {name}, {gap}"


def describe_leakage(slices: pd.DataFrame) -> str:
    """The accuracy of images with a copy, or their person, in train, beside that of the others."""
    rows = slices[slices["column"] == "in_train"] if len(slices) else slices
    values = [
        f"{row['value']} {row['accuracy']:.3f} ({row['accuracy_low']:.3f}–{row['accuracy_high']:.3f}, n = {row['n']:,})"
        for _, row in rows.iterrows()
    ]
    return f"Leakage, accuracy: {'; '.join(values)}" if values else "Leakage: the images do not differ in it"
