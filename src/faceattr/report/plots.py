"""The charts of a run: learning curves, confusion matrix, and images by class and split.

Drawn through matplotlib's object API, never pyplot: no display, safe in any process. Lines differ in dash and marker as
well as in colour, so that the charts survive colour blindness and a black-and-white printer.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

INK, MUTED, GRID = "#222222", "#6b6b6b", "#e4e4e4"
STYLE: Any = {
    **{"axes.edgecolor": GRID, "axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True},
    **{"axes.titlelocation": "left", "axes.titlesize": 10, "axes.titlecolor": MUTED},
    **{"axes.labelcolor": MUTED, "axes.labelsize": 9, "grid.color": GRID, "text.parse_math": False},
    **{"xtick.color": GRID, "ytick.color": GRID, "xtick.labelcolor": MUTED, "ytick.labelcolor": MUTED},
    **{"xtick.labelsize": 9, "ytick.labelsize": 9, "xtick.major.size": 0, "ytick.major.size": 0},
    **{"figure.constrained_layout.use": True, "figure.facecolor": "white", "savefig.dpi": 150},
}
# Okabe and Ito's vermilion and blue: told apart with every kind of colour blindness, and in grey.
LINES: dict[str, dict[str, Any]] = {
    "train": {"color": "#d55e00", "linestyle": (0, (4, 2)), "marker": "s", "markersize": 3.5, "label": "train"},
    "val": {"color": "#0072b2", "linewidth": 2.0, "marker": "o", "markersize": 4, "label": "validation"},
}


@matplotlib.rc_context(STYLE)
def curves(history: pd.DataFrame, path: str | Path, *, judged_epoch: int | None, title: str) -> None:
    """Draws loss and accuracy over the epochs, train and validation, and marks the epoch whose checkpoint is judged.

    `history` has a row per epoch with `epoch`, `train_loss`, `train_accuracy`, `val_loss`, `val_accuracy`; a value
    that is missing leaves a gap in nothing but itself. The suffix of `path` decides the format.
    """
    figure = _figure(9.0, 3.7, title)
    for axes, metric in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        axes.set(title=metric, xlabel="epoch")
        axes.xaxis.set_major_locator(MaxNLocator(nbins=8, steps=[1, 2, 5, 10], integer=True, min_n_ticks=1))
        axes.margins(x=0.03, y=0.12)
        axes.grid(axis="y")
        for split, style in LINES.items():
            points = history[["epoch", f"{split}_{metric}"]].dropna()
            crowded: dict[str, Any] = {"marker": ""} if len(points) > 25 else {}
            axes.plot(points["epoch"], points[f"{split}_{metric}"], **(style | crowded))
        best = history[history["epoch"] == judged_epoch][f"val_{metric}"].dropna()
        if len(best):
            _mark(axes, int(judged_epoch or 0), float(best.iloc[0]), below=metric == "accuracy")
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=9, handlelength=3)
    figure.savefig(path)


def _mark(axes: Axes, epoch: int, value: float, *, below: bool) -> None:
    axes.axvline(epoch, color=MUTED, linewidth=0.9, linestyle=":", zorder=1)
    star: dict[str, Any] = {"color": INK, "markersize": 12, "markeredgecolor": "white", "zorder": 5}
    axes.plot([epoch], [value], "*", label=f"judged epoch ({epoch})", **star)
    late = epoch > sum(axes.get_xlim()) / 2
    where: dict[str, Any] = {"xytext": (-7 if late else 7, -16 if below else 8), "ha": "right" if late else "left"}
    style: dict[str, Any] = {"textcoords": "offset points", "fontsize": 9, "fontweight": "bold", "color": INK}
    axes.annotate(f"{value:.3f}", (epoch, value), **where, **style)


@matplotlib.rc_context(STYLE | {"axes.spines.left": False, "axes.spines.bottom": False})
def confusion(matrix: ArrayLike, classes: Sequence[str], path: str | Path, *, title: str) -> None:
    """Draws counts (rows: true class, columns: predicted) over a shade of their share of the row.

    The shade and the percentages are of the true class, so the diagonal is the recall; it stands once more, exactly,
    at the right. A class without images has no recall and shows a dash.
    """
    counts, k = np.asarray(matrix, dtype=np.int64), len(classes)
    totals = counts.sum(axis=1)
    shares = counts / np.maximum(totals, 1)[:, None]
    cell = float(np.interp(k, [2, 5, 10, 20], [1.25, 0.95, 0.7, 0.56]))  # inches
    figure = _figure(max(k * cell, 2.4) + 2.6, max(k * cell, 1.8) + 1.5, title)
    axes = figure.add_subplot()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1.15)  # the darkest blue stays legible under white text
    right, images = int(np.trace(counts)), int(totals.sum())
    axes.set(
        xlabel="predicted", ylabel="true", title=f"accuracy {right / max(images, 1):.1%} ({right:,} of {images:,})"
    )
    long = max(map(len, classes)) * 0.085 > cell
    turned: dict[str, Any] = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if long else {}
    axes.set_xticks(range(k), classes, color=INK, **turned)
    axes.set_yticks(range(k), classes, color=INK)
    recall = [f"{share:.1%} of {n:,}" if n else "– of 0" for share, n in zip(np.diag(shares), totals, strict=True)]
    axes.secondary_yaxis("right").set_yticks(range(k), recall, color=INK)
    axes.annotate("recall", (1, 1), (3.5, 6), xycoords="axes fraction", textcoords="offset points", color=MUTED)
    size = float(np.interp(k, [2, 5, 10, 20], [12, 10, 7.5, 6.5]))
    for (row, column), count in np.ndenumerate(counts):
        share = shares[row, column]
        text = f"{count:,}\n{share:.1%}" if count else "0"
        colour = "white" if share > 0.6 else INK if count else MUTED
        axes.text(column, row, text, ha="center", va="center", fontsize=size, color=colour)
    figure.savefig(path)


BARS = {"train": ("#d55e00", ""), "val": ("#0072b2", "///"), "test": ("#999999", "...")}
"""Colour and hatch of each split."""


@matplotlib.rc_context(STYLE)
def counts(images: pd.DataFrame, path: str | Path, *, title: str) -> None:
    """Draws the number of images of each class (index) in each split (columns)."""
    k, splits = len(images), len(images.columns)
    figure = _figure(7.0, 1.3 + 0.23 * k * (splits + 0.7), title)
    axes = figure.add_subplot()
    thick = 1 / (splits + 0.7)
    for position, split in enumerate(images):
        colour, hatch = BARS[str(split)]
        label = f"{split} {images[split].sum():,}"
        style: dict[str, Any] = {"color": colour, "hatch": hatch, "edgecolor": "white", "linewidth": 0, "label": label}
        bars = axes.barh(np.arange(k) + (position - (splits - 1) / 2) * thick, images[split], thick * 0.9, **style)
        axes.bar_label(bars, fmt="{:,.0f}", padding=3, fontsize=8, color=INK)
    axes.set_yticks(range(k), images.index.astype(str), color=INK)
    axes.set(ylim=(k - 0.5, -0.5), xlabel="images")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.margins(x=0.1)
    axes.grid(axis="x")
    figure.legend(loc="outside lower center", ncols=splits, frameon=False, fontsize=9)
    figure.savefig(path)


@matplotlib.rc_context(STYLE)
def reliability(bins: pd.DataFrame, kept: pd.DataFrame, path: str | Path, *, title: str, ece: float) -> None:
    """Draws accuracy against the predicted class's probability (a mark's area is its share of the images; on the diagonal
    probabilities mean what they say), and accuracy against the share of images kept when the least certain are left out."""
    figure = _figure(9.0, 4.0, title)
    left, right = figure.subplots(1, 2)
    left.plot([0, 1], [0, 1], color=MUTED, linewidth=0.9, linestyle=":")
    left.plot(bins["confidence"], bins["accuracy"], color=LINES["val"]["color"], linewidth=1)
    left.scatter(
        bins["confidence"],
        bins["accuracy"],
        20 + 600 * bins["n"] / bins["n"].sum(),
        color=LINES["val"]["color"],
        alpha=0.7,
    )
    low = min(0.5, float(bins["confidence"].min()), float(bins["accuracy"].min()))
    left.set(
        xlim=(low - 0.04, 1.04), ylim=(low - 0.04, 1.04), xlabel="probability of the predicted class", ylabel="accuracy"
    )
    left.set_title(f"calibration error {ece:.3f}")
    right.plot(kept["coverage"], kept["accuracy"], **(LINES["val"] | {"label": None}))
    right.set(xlim=(0, 1.02), xlabel="share of images kept, most certain first", ylabel="accuracy")
    right.set_title("accuracy when the least certain are left out")
    for axes in (left, right):
        axes.grid()
    figure.savefig(path)


@matplotlib.rc_context(STYLE)
def slices(table: pd.DataFrame, path: str | Path, *, title: str, most: int = 30) -> None:
    """Draws the accuracy of each slice with its interval, the worst gap to the rest first, as `slices.slices` gives them.

    A filled mark is a gap that is no chance (p < .05 after Holm's correction); slices that are too small to compare are left out.
    """
    compared = table[table["gap"].notna()] if len(table) else table
    shown = compared.head(most)
    figure = _figure(8.0, 1.5 + 0.24 * max(1, len(shown)), title)
    axes = figure.add_subplot()
    for row, (_, of) in enumerate(shown.iterrows()):
        error = [[of["accuracy"] - of["accuracy_low"]], [of["accuracy_high"] - of["accuracy"]]]
        fill = INK if of["p"] < 0.05 else "white"
        style: dict[str, Any] = {"fmt": "o", "color": INK, "markerfacecolor": fill, "markersize": 5, "linewidth": 1.2}
        axes.errorbar(of["accuracy"], row, xerr=error, **style)
        gap = f"n = {of['n']:,}, {of['gap']:+.3f}"
        axes.annotate(gap, (1.01, row), xycoords=("axes fraction", "data"), va="center", fontsize=8, color=MUTED)
    axes.set_yticks(range(len(shown)), [f"{of['column']}: {of['value']}" for _, of in shown.iterrows()], color=INK)
    axes.set(
        ylim=(max(len(shown), 1) - 0.5, -0.5), xlabel="accuracy, 95% interval; filled: the gap to the rest is no chance"
    )
    left_out = len(compared) - len(shown)
    axes.set_title(f"the {most} worst of {len(compared)}" if left_out else "worst gap to the rest first")
    axes.grid(axis="x")
    figure.savefig(path)


def _figure(width: float, height: float, title: str) -> Figure:
    figure = Figure(figsize=(width, height))
    figure.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold", color=INK)
    return figure
