"""Slices: for whom is a model worse? Its metrics by every further column of the table, and by what the images look like."""

import re
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pandas as pd
import torch

from faceattr.data.decode import UnreadableImage, open_image
from faceattr.data.table import CONTRACT
from faceattr.errors import FaceattrError, optional
from faceattr.message_text import did_you_mean, listed
from faceattr.metrics import compute_metrics, per_class
from faceattr.metrics.accuracy import ACCURACY, accuracy
from faceattr.metrics.metric_inputs import problems
from faceattr.models.task import Task
from faceattr.progress import Progress

VALUES = 12
"""Most values of a column. Beyond, numbers are cut into quarters, and other columns (names, ids) are left out."""
LEAST = 30
"""Images; a smaller slice is listed last and not compared."""
MEASURED = ("brightness", "sharpness", "file_pixels")
"""What is measured on the images and is used like a column."""
NUMBERING = re.compile(
    r"(column|unnamed:) \d+|(.*[_ -])?(id|ids|idx|index|identity|no|nr|number|row|line)([_ -]?\d*)?|\d+", re.IGNORECASE
)
"""Names of columns that number images or people: no name of their own (as `table_file` calls those), or one that says so."""
TRUE_CLASS = "true_class"
"""The label, used like a column: is one class predicted worse than the others?"""


def check(table: pd.DataFrame, requested: Sequence[str] | None) -> None:
    """Raises FaceattrError where `evaluate.slices` names an unknown column, before anything is computed."""
    present = [*(str(name) for name in table if name not in CONTRACT), *MEASURED]
    present += [TRUE_CLASS] if "label" in table else []
    if unknown := [name for name in requested or () if name not in present]:
        near = did_you_mean(unknown[0], present)
        raise FaceattrError(f"evaluate.slices: no column {listed(unknown)}.{near} There are: {listed(present, 50)}")


def cuts_of(rows: pd.DataFrame, requested: Sequence[str] | None) -> dict[str, pd.Series]:
    """The values [N] that cut the images, as text (None: in no slice), by column: the `requested` ones, or all.

    Of all, the true class comes first; columns that number the images or repeat the label are left out. A column with one
    value only, or with more than `VALUES` that are not numbers, never cuts.
    """
    names = requested
    if names is None:
        further = [str(name) for name in rows if name not in CONTRACT]
        names = [TRUE_CLASS, *further] if "label" in rows else further
    cuts: dict[str, pd.Series] = {}
    for name in names:
        with optional(f"The slice by {name}"):
            if requested is None and name in rows and (_numbers_images(rows[name]) or _repeats_label(rows, name)):
                continue
            cut = _cut(rows["label" if name == TRUE_CLASS and TRUE_CLASS not in rows else name])
            cuts |= {} if cut is None else {name: cut}
    return cuts


def _numbers_images(column: pd.Series) -> bool:
    """A row number or an id: many whole numbers, each once, or in a column that has no name of its own or one such as `id`."""
    present = column.dropna()
    if not pd.api.types.is_numeric_dtype(present) or present.nunique() <= VALUES or (present % 1 != 0).any():
        return False
    return bool(present.is_unique or NUMBERING.fullmatch(str(column.name)))


def _repeats_label(rows: pd.DataFrame, name: str) -> bool:
    """The label in other words: one value for each class, and one class for each value."""
    if "label" not in rows:
        return False
    pairs = rows[["label", name]].dropna().astype(str).drop_duplicates()
    return len(pairs) > 1 and pairs["label"].is_unique and pairs[name].is_unique


def _cut(column: pd.Series) -> pd.Series | None:
    if pd.api.types.is_float_dtype(column):
        column = column.where(np.isfinite(column.to_numpy(float, na_value=np.nan)))
    present = column[column.notna() & (column.astype(str) != "")]
    if present.nunique() > VALUES and pd.api.types.is_numeric_dtype(present):
        quarters = pd.qcut(present, 4, duplicates="drop")
        bounds = [(present[quarters == q].min(), present[quarters == q].max()) for q in quarters.cat.categories]
        written = ([f"{low:.{digits}g} to {high:.{digits}g}" for low, high in bounds] for digits in (4, 8, 17))
        present = quarters.cat.rename_categories(next(names for names in written if len(set(names)) == len(names)))
    text = present.map("{:g}".format) if pd.api.types.is_float_dtype(present) else present.astype(str)
    return text.reindex(column.index) if 2 <= present.nunique() <= VALUES else None


def measure(batches: Iterable[np.ndarray], files: Sequence[str]) -> pd.DataFrame:
    """`MEASURED` of each image: brightness (mean, 0 to 255) and sharpness (variance of the grey image's Laplacian) of what the
    network gets, uint8 [B, H, W, 3]; and the number of pixels in its file."""
    import cv2

    rows = []
    with Progress("Measuring images", len(files)) as progress:
        for images in batches:
            for image in images:
                grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
                rows.append((float(grey.mean()), float(cv2.Laplacian(grey, cv2.CV_32F).var())))
            progress.update(len(images))
    with ThreadPoolExecutor() as pool:
        sizes = list(pool.map(_pixels_of, files))
    return pd.DataFrame(rows, columns=list(MEASURED[:2])).assign(file_pixels=sizes)


def _pixels_of(file: str) -> float:
    try:
        with open_image(file) as image:
            return float(image.width * image.height)
    except (OSError, UnreadableImage):  # removed since it was decoded
        return float("nan")


def slices(cuts: Mapping[str, pd.Series], task: Task, probabilities: torch.Tensor, truth: torch.Tensor) -> pd.DataFrame:
    """A row per value of each column, the worst gap first: n, accuracy with its interval, average precision, recall of each
    class, `gap` (accuracy minus that of all other images with a value in the column) with its interval, and `p`.

    The gap's interval is Newcombe's (1998, method 10); `p` is Fisher's exact test (for the share of an image's attributes,
    Welch's), after Holm's correction for the number of slices compared. All treat images as independent. Slices below `LEAST`
    images, or with fewer in the rest, are last. Attributes: the means over them, without recalls.
    """
    correct = task.correct(probabilities, truth).numpy()
    rows = []
    for name, cut in cuts.items():
        has_value = cut.notna().to_numpy()
        for value in sorted(cut.dropna().unique()):
            inside = (cut == value).to_numpy()
            outside = has_value & ~inside
            row = {"column": name, "value": value} | _metrics(inside, task, probabilities, truth)
            if min(inside.sum(), outside.sum()) < LEAST:
                rows.append(row | dict.fromkeys(("gap", "gap_low", "gap_high", "p"), np.nan))
                continue
            rest = accuracy(task, probabilities[torch.tensor(outside)], truth[torch.tensor(outside)])
            p = _p_value(correct[inside], correct[outside], attributes=task.multilabel)
            rows.append(row | _gap(row, rest) | {"p": p})
    table = pd.DataFrame(rows)
    if table.empty:
        return table
    compared = table["gap"].notna()
    table.loc[compared, "p"] = _holm(table.loc[compared, "p"].to_numpy(float))
    return table.sort_values("gap", kind="stable", na_position="last", ignore_index=True)


def _metrics(rows: np.ndarray, task: Task, probabilities: torch.Tensor, truth: torch.Tensor) -> dict[str, Any]:
    chosen = torch.tensor(rows)  # a copy: the array is pandas' own
    probabilities, truth = probabilities[chosen], truth[chosen]
    share = accuracy(task, probabilities, truth)
    metrics = {"n": len(truth), **{name: share[name] for name in ACCURACY}}
    metrics["average_precision"] = compute_metrics.one_metric("average_precision", task, probabilities, truth)
    if not task.multilabel:
        classes = per_class.class_metrics(task, problems(task, probabilities, truth)[0])
        metrics |= {f"recall_{name}": classes[f"recall_{name}"] for name in task.classes}
    return metrics


def _gap(inside: Mapping[str, Any], outside: Mapping[str, Any]) -> dict[str, float]:
    a, a_low, a_high = (inside[name] for name in ACCURACY)
    b, b_low, b_high = (outside[name] for name in ACCURACY)
    low = a - b - float(np.hypot(a - a_low, b_high - b))
    high = a - b + float(np.hypot(a_high - a, b - b_low))
    return {"gap": a - b, "gap_low": low, "gap_high": high}


def _p_value(correct: np.ndarray, others: np.ndarray, *, attributes: bool) -> float:
    """Of the hypothesis that images inside and outside are equally often correct, both [N]."""
    from scipy.stats import fisher_exact, ttest_ind

    if attributes:
        return float(np.nan_to_num(ttest_ind(correct, others, equal_var=False).pvalue, nan=1.0))
    counts = [[int(each.sum()), len(each) - int(each.sum())] for each in (correct, others)]
    return float(fisher_exact(counts).pvalue)


def _holm(p: np.ndarray) -> np.ndarray:
    """Adjusted p-values (Holm 1979): the smallest times their number, the next times one less, …, never falling."""
    order = np.argsort(p)
    raised = np.maximum.accumulate(p[order] * (len(p) - np.arange(len(p))))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(raised, 1)
    return adjusted
