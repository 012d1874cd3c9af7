"""For whom a model is worse: an evaluation cut by every further column of the table, and by what the pixels are like."""

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image

from faceattr.data.table import CONTRACT
from faceattr.errors import FaceattrError
from faceattr.metrics import registry
from faceattr.models.task import Task

VALUES = 12
"""A column of more values is cut into quarters where it is a number, and does not cut where it is not (a name, an id)."""
LEAST = 30
"""Images; a smaller slice is listed, after the others, but not compared."""
MEASURED = ("brightness", "sharpness", "file_pixels")
"""What is measured of the images themselves and cuts like a column."""


def check(table: pd.DataFrame, wanted: Sequence[str] | None) -> None:
    """Raises FaceattrError where `evaluate.slices` names what is not there, before anything is computed."""
    there = [*(str(name) for name in table if name not in CONTRACT), *MEASURED]
    if unknown := [name for name in wanted or () if name not in there]:
        raise FaceattrError(f"evaluate.slices: no column {', '.join(unknown)}. There are: {', '.join(there)}")


def cuts_of(rows: pd.DataFrame, wanted: Sequence[str] | None) -> dict[str, pd.Series]:
    """The columns that cut, each as text values (None: in no slice): those `wanted`, or all. One that has a single value
    here, or more than `VALUES` that are no numbers, cuts nothing and is left out."""
    names = [str(name) for name in rows if name not in CONTRACT] if wanted is None else wanted
    cuts = {name: _cut(rows[name]) for name in names}
    return {name: cut for name, cut in cuts.items() if cut is not None}


def _cut(column: pd.Series) -> pd.Series | None:
    known = column[column.notna() & (column.astype(str) != "")]
    if known.nunique() > VALUES and pd.api.types.is_numeric_dtype(known):
        quarters = pd.qcut(known, 4, duplicates="drop")
        names = [
            f"{known[quarters == q].min():.4g} to {known[quarters == q].max():.4g}" for q in quarters.cat.categories
        ]
        known = quarters.cat.rename_categories(names)
    text = known.map("{:g}".format) if pd.api.types.is_float_dtype(known) else known.astype(str)
    return text.reindex(column.index) if 2 <= known.nunique() <= VALUES else None


def measure(batches: Iterable[np.ndarray], files: Sequence[str]) -> pd.DataFrame:
    """`MEASURED` of each image: brightness (mean, 0 to 255) and sharpness (variance of the grey image's Laplacian) of what the
    network is given, uint8 [B, H, W, 3]; and the pixels of its file."""
    import cv2

    found = []
    for images in batches:
        for image in images:
            grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
            found.append((float(grey.mean()), float(cv2.Laplacian(grey, cv2.CV_32F).var())))
    with ThreadPoolExecutor() as pool:
        sizes = list(pool.map(_pixels_of, files))
    return pd.DataFrame(found, columns=list(MEASURED[:2])).assign(file_pixels=sizes)


def _pixels_of(file: str) -> float:
    try:
        with Image.open(file) as image:
            return float(image.width * image.height)
    except OSError:  # gone since it was decoded
        return float("nan")


def slices(cuts: Mapping[str, pd.Series], task: Task, probabilities: torch.Tensor, truth: torch.Tensor) -> pd.DataFrame:
    """A row per value of each column, the worst gap first: n, accuracy with its interval, average precision, recall of each
    class, `gap` (accuracy minus that of all other images with a value there) with its interval, and `p`.

    The gap's interval is Newcombe's (1998, method 10); `p` is Fisher's exact test (for the share of an image's attributes,
    Welch's), after Holm's correction for how many slices are compared. All take images as independent. Slices below `LEAST`
    images, or with fewer in the rest, are last. Attributes: the means over them, without recalls.
    """
    right = task.correct(probabilities, truth).numpy()
    found = []
    for name, cut in cuts.items():
        known = cut.notna().to_numpy()
        for value in sorted(cut.dropna().unique()):
            here = (cut == value).to_numpy()
            found.append(
                {"column": name, "value": value} | _one(here, known & ~here, right, task, probabilities, truth)
            )
    table = pd.DataFrame(found)
    if table.empty:
        return table
    compared = table["gap"].notna()
    table.loc[compared, "p"] = _holm(table.loc[compared, "p"].to_numpy(float))
    return table.sort_values("gap", kind="stable", na_position="last", ignore_index=True)


def _one(
    here: np.ndarray,
    rest: np.ndarray,
    right: np.ndarray,
    task: Task,
    probabilities: torch.Tensor,
    truth: torch.Tensor,
) -> dict[str, Any]:
    from scipy.stats import fisher_exact, ttest_ind

    n, others = int(here.sum()), int(rest.sum())
    inside, outside = (torch.tensor(rows) for rows in (here, rest))  # copies: pandas lends its own
    figures = registry.evaluate(task, probabilities[inside], truth[inside])
    kept = ["n", "accuracy", "accuracy_low", "accuracy_high", "average_precision"]
    recalls = [] if task.multilabel else [f"recall_{name}" for name in task.classes]
    row = {key: figures.get(key) for key in [*kept, *recalls]}
    if min(n, others) < LEAST:
        return row | dict.fromkeys(("gap", "gap_low", "gap_high", "p"), np.nan)
    a, a_low, a_high = (figures[name] for name in registry.ACCURACY)
    others_figures = registry.accuracy(task, probabilities[outside], truth[outside])
    b, b_low, b_high = (others_figures[name] for name in registry.ACCURACY)
    low = a - b - float(np.hypot(a - a_low, b_high - b))
    high = a - b + float(np.hypot(a_high - a, b - b_low))
    if task.multilabel:
        p = float(np.nan_to_num(ttest_ind(right[here], right[rest], equal_var=False).pvalue, nan=1.0))
    else:
        hits, other_hits = int(right[here].sum()), int(right[rest].sum())
        p = float(fisher_exact([[hits, n - hits], [other_hits, others - other_hits]]).pvalue)
    return row | {"gap": a - b, "gap_low": low, "gap_high": high, "p": p}


def _holm(p: np.ndarray) -> np.ndarray:
    """Adjusted p-values (Holm 1979): the smallest times their number, the next times one less, …, never falling."""
    order = np.argsort(p)
    raised = np.maximum.accumulate(p[order] * (len(p) - np.arange(len(p))))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(raised, 1)
    return adjusted


def describe_leakage(table: pd.DataFrame) -> str:
    """One line: the accuracy of images with a copy, or their person, in train, against that of the others."""
    known = table[table["column"] == "in_train"] if len(table) else table
    shown = [
        f"{of['value']} {of['accuracy']:.3f} ({of['accuracy_low']:.3f}–{of['accuracy_high']:.3f}, n = {of['n']:,})"
        for _, of in known.iterrows()
    ]
    return f"Leakage, accuracy: {'; '.join(shown)}" if shown else "Leakage: the images do not differ in it"


def describe(table: pd.DataFrame) -> str:
    """One line: the slice with the largest gap, and whether that may be chance."""
    compared = table[table["gap"].notna()] if len(table) else table
    if compared.empty:
        return f"Slices: none has {LEAST} images"
    worst = compared.iloc[0]
    gap = f"{worst['gap']:+.3f} to the rest (95% {worst['gap_low']:+.3f} to {worst['gap_high']:+.3f}, Holm p {worst['p']:.2g})"
    where = f"{worst['column']} {worst['value']}, accuracy {worst['accuracy']:.3f} (n = {worst['n']:,})"
    return f"Worst of {len(compared)} slices: {where}, {gap}"
