"""The pictures of a run: learning curves and confusion matrix.

Drawn through matplotlib's object API, never pyplot: no global state, no display, safe in any process. Lines differ in
dash and marker as well as in colour, so that both pictures survive colour blindness and a black-and-white printer.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike, NDArray

DPI = 150
INK, MUTED, GRID = "#222222", "#6b6b6b", "#e4e4e4"
# Okabe and Ito's vermilion and blue: told apart with every kind of colour blindness, and in grey.
SERIES: tuple[tuple[str, dict[str, Any]], ...] = (
    ("train", {"color": "#d55e00", "linestyle": (0, (4, 2)), "linewidth": 1.6, "marker": "s", "markersize": 3.5}),
    ("val", {"color": "#0072b2", "linestyle": "-", "linewidth": 2.0, "marker": "o", "markersize": 4}),
)
LABELS = {"train": "train", "val": "validation"}


def curves(history: pd.DataFrame, path: str | Path, *, best_epoch: int | None, title: str) -> None:
    """Draws loss and accuracy over the epochs, train and validation, and marks the epoch of the best checkpoint.

    `history` has a row per epoch with `epoch`, `train_loss`, `train_accuracy`, `val_loss`, `val_accuracy`; a value
    that is missing leaves a gap in nothing but itself. The suffix of `path` decides the format.
    """
    figure = _figure(9.0, 3.7)
    _title(figure, title)
    loss, accuracy = figure.subplots(1, 2)
    for axes, metric in ((loss, "loss"), (accuracy, "accuracy")):
        _draw_metric(axes, history, metric, best_epoch)
    handles, labels = accuracy.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=9, handlelength=3)
    _save(figure, path)


def _draw_metric(axes: Axes, history: pd.DataFrame, metric: str, best_epoch: int | None) -> None:
    axes.set_title(metric, loc="left", fontsize=10, color=MUTED)
    axes.set_xlabel("epoch", fontsize=9, color=MUTED)
    first, last = history["epoch"].min(), history["epoch"].max()
    margin = 0.03 * (last - first) or 0.5
    axes.set_xlim(first - margin, last + margin)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, steps=[1, 2, 5, 10], integer=True, min_n_ticks=1))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10]))
    axes.margins(y=0.12)
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GRID)
    axes.tick_params(colors=MUTED, labelsize=9, length=0)
    for split, style in SERIES:
        points = history[["epoch", f"{split}_{metric}"]].dropna()
        crowded: dict[str, Any] = {"marker": ""} if len(points) > 25 else {}
        axes.plot(points["epoch"], points[f"{split}_{metric}"], label=LABELS[split], **(style | crowded))
    _mark_best(axes, history, metric, best_epoch)


def _mark_best(axes: Axes, history: pd.DataFrame, metric: str, best_epoch: int | None) -> None:
    best = history.loc[history["epoch"] == best_epoch, f"val_{metric}"].dropna()
    if best_epoch is None or best.empty:
        return
    value = float(best.iloc[-1])
    axes.axvline(best_epoch, color=MUTED, linewidth=0.9, linestyle=":", zorder=1)
    label = f"best epoch ({best_epoch})"
    axes.plot([best_epoch], [value], "*", color=INK, markersize=12, markeredgecolor="white", zorder=5, label=label)
    low, high = axes.get_xlim()
    beyond = best_epoch > (low + high) / 2
    axes.annotate(
        f"{value:.3f}",
        (best_epoch, value),
        xytext=(-7 if beyond else 7, 8 if metric == "loss" else -16),
        textcoords="offset points",
        ha="right" if beyond else "left",
        fontsize=9,
        fontweight="bold",
        color=INK,
        bbox={"boxstyle": "square,pad=0.1", "facecolor": "white", "edgecolor": "none", "alpha": 0.75},
        zorder=6,
    )


def confusion(matrix: ArrayLike, classes: Sequence[str], path: str | Path, *, title: str) -> None:
    """Draws counts (rows: true class, columns: predicted) over a shade of their share of the row.

    The shade and the percentages are of the true class, so the diagonal is the recall; it stands once more, exactly,
    at the right. A class without images has no recall and shows a dash.
    """
    counts = np.asarray(matrix, dtype=np.int64)
    if counts.shape != (len(classes), len(classes)):
        raise ValueError(f"{len(classes)} classes need a square matrix of that size, not {counts.shape}")
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, totals, out=np.zeros(counts.shape), where=totals > 0)
    side = len(classes) * _cell_inches(len(classes))
    figure = _figure(max(side, 2.4) + 2.6, max(side, 1.8) + 1.5)
    _title(figure, title)
    axes = figure.add_subplot()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1.15)  # the darkest blue stays legible under white text
    correct, images = int(np.trace(counts)), int(counts.sum())
    if images:
        axes.set_title(
            f"accuracy {correct / images:.1%} ({correct:,} of {images:,})", loc="left", fontsize=9.5, color=MUTED
        )
    _label_confusion(axes, classes, totals[:, 0], np.diag(shares))
    _write_cells(axes, counts, shares)
    _save(figure, path)


def _cell_inches(classes: int) -> float:
    return float(np.interp(classes, [2, 5, 10, 20], [1.25, 0.95, 0.7, 0.56]))


def _label_confusion(axes: Axes, classes: Sequence[str], totals: NDArray, recall: NDArray) -> None:
    ticks = range(len(classes))
    long = max(map(len, classes)) * 0.085 > _cell_inches(len(classes))
    turned: dict[str, Any] = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if long else {}
    axes.set_xticks(ticks, classes, parse_math=False, **turned)
    axes.set_yticks(ticks, classes, parse_math=False)
    axes.set_xlabel("predicted", fontsize=9.5, color=MUTED)
    axes.set_ylabel("true", fontsize=9.5, color=MUTED)
    axes.tick_params(length=0, labelsize=9.5, colors=INK)
    axes.spines[:].set_visible(False)
    axes.hlines([i - 0.5 for i in ticks][1:], -0.5, len(classes) - 0.5, color="white", linewidth=1.5)
    axes.vlines([i - 0.5 for i in ticks][1:], -0.5, len(classes) - 0.5, color="white", linewidth=1.5)
    right = axes.secondary_yaxis("right")
    shown = [f"{r:.1%} of {n:,}" if n else "– of 0" for r, n in zip(recall, totals, strict=True)]
    right.set_yticks(ticks, shown)
    right.tick_params(length=0, labelsize=9, colors=INK)
    right.spines[:].set_visible(False)
    heading: dict[str, Any] = {
        "xycoords": "axes fraction",
        "textcoords": "offset points",
        "fontsize": 9.5,
        "color": MUTED,
    }
    axes.annotate("recall", (1, 1), xytext=(3.5, 6), **heading)


def _write_cells(axes: Axes, counts: NDArray, shares: NDArray) -> None:
    classes = len(counts)
    size = float(np.interp(classes, [2, 5, 10, 20], [13, 10.5, 8.5, 7.5]))
    for (row, column), count in np.ndenumerate(counts):
        if count:
            colour = "white" if shares[row, column] > 0.6 else INK
            text: dict[str, Any] = {
                "xy": (column, row),
                "textcoords": "offset points",
                "ha": "center",
                "va": "center",
                "color": colour,
            }
            axes.annotate(f"{count:,}", xytext=(0, 0.55 * size), fontsize=size, **text)
            percent = _percent(float(shares[row, column]), 0 if classes > 5 else 1)
            axes.annotate(percent, xytext=(0, -0.75 * size), fontsize=0.8 * size, **text)
        elif classes <= 10:  # beyond that, hundreds of zeros would only hide the confusions
            axes.text(column, row, "0", ha="center", va="center", fontsize=size, color=MUTED)


def _percent(share: float, digits: int) -> str:
    """As few digits as fit a cell, but what is there never reads as nothing, nor a part as the whole."""
    shown = f"{share:.{digits}%}"
    least = 10.0**-digits
    if share > 0 and float(shown[:-1]) == 0:
        return f"<{least:g}%"
    return f">{100 - least:g}%" if share < 1 and float(shown[:-1]) == 100 else shown


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def _title(figure: Figure, title: str) -> None:
    figure.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold", color=INK, parse_math=False)


def _save(figure: Figure, path: str | Path) -> None:
    """Writes under a temporary name in the same folder, so that a reader or a crash never meets half a picture."""
    path = Path(path)
    part = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        figure.savefig(part)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
