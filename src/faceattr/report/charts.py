"""The charts of a run and of a sweep: PNG files in the run's folder, or SVG elements (`svg`) in its report.

They use matplotlib's object API, not pyplot: no display, safe in any process. Lines differ in dash and marker as well as in
colour, for colour-blind readers and black-and-white printers.
"""

import re
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import matplotlib
import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import ArrayLike

from faceattr.errors import optional
from faceattr.files import write_atomically
from faceattr.report.fonts import drawable, use_fonts

File = str | Path | BinaryIO
DPI = 150
INK, MUTED, GRID = "#222222", "#616161", "#e4e4e4"
STYLE: Any = {
    **{"axes.edgecolor": GRID, "axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True},
    **{"axes.titlelocation": "left", "axes.titlesize": 10, "axes.titlecolor": MUTED},
    **{"axes.labelcolor": MUTED, "axes.labelsize": 9, "grid.color": GRID, "text.parse_math": False},
    **{"xtick.color": GRID, "ytick.color": GRID, "xtick.labelcolor": MUTED, "ytick.labelcolor": MUTED},
    **{"xtick.labelsize": 9, "ytick.labelsize": 9, "xtick.major.size": 0, "ytick.major.size": 0},
    **{"figure.facecolor": "white", "savefig.dpi": DPI},
}
# Okabe and Ito's colours: distinct with every kind of colour blindness; vermilion and blue in grey too.
BLUE, VERMILION = "#0072b2", "#d55e00"
LINES: dict[str, dict[str, Any]] = {
    "train": {"color": VERMILION, "linestyle": (0, (4, 2)), "marker": "s", "markersize": 3.5, "label": "train"},
    "val": {"color": BLUE, "linewidth": 2.0, "marker": "o", "markersize": 4, "label": "validation"},
}
COLOURS = (BLUE, VERMILION, "#007a59", "#a3487c", INK, "#9a6a00")
DASHES: Any = ("-", (0, (4, 2)), (0, (1, 1.5)), (0, (6, 2, 1, 2)), (0, (8, 3)), (0, (3, 1, 1, 1, 1, 1)))


def svg(draw: Callable[[BinaryIO], None], name: str, alt: str) -> Markup:
    """What `draw` saves, as an element of an HTML page: the same bytes each time, text as text, all ids start with `name`.

    A chart that fails is a warning, and a sentence in its place.
    `alt` describes the chart for screen readers. `name` must be unique in the page.
    """
    file = BytesIO()
    settings: Any = {"savefig.format": "svg", "svg.fonttype": "none", "svg.hashsalt": name}
    with optional(f"The chart {name}"), matplotlib.rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # the browser has its own fonts
        draw(file)
    if not file.tell():
        return Markup("<p>This chart could not be drawn: see the log.</p>")
    drawn = file.getvalue().decode()
    width, height = (float(side) for side in re.findall(r'viewBox="0 0 (\S+) (\S+)"', drawn)[0])
    inside = drawn[drawn.index(">", drawn.index("<svg")) + 1 :]
    inside = re.sub(r"(?s)<metadata>.*?</metadata>|<style.*?</style>|\n\s*", " ", inside)
    used = set(re.findall(r'(?:url\(|href=")#([^")]+)', inside))
    inside = re.sub(r' id="([^"]+)"', lambda match: f' id="{name}-{match[1]}"' if match[1] in used else "", inside)
    inside = re.sub(r'(url\(|href=")#', rf"\1#{name}-", inside)
    opening = Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}" style="--w: {}">')
    return opening.format(width, height, alt, round(width)) + Markup(inside.strip())


def panel_svg(draw: Callable[[Axes], None], name: str, alt: str, height: float = 3.4) -> Markup:
    """`svg` of one panel of `panels`."""
    return svg(lambda file: panels(file, draw, height=height), name, alt)


@matplotlib.rc_context(STYLE)
def panels(path: File, *drawn: Callable[[Axes], None], title: str = "", height: float = 3.4) -> None:
    """Saves charts side by side above a legend of all their lines. The suffix of `path` decides the format."""
    figure = _figure(4.5 * len(drawn), height + 0.3 * bool(title), title)
    named: dict[str, Any] = {}
    for axes, draw in zip(figure.subplots(1, len(drawn), squeeze=False)[0], drawn, strict=True):
        draw(axes)
        handles, labels = axes.get_legend_handles_labels()
        named |= dict(zip(labels, handles, strict=True))
    if len(named) > 1 or len(drawn) > 1:
        style: Any = {"ncols": 3, "frameon": False, "fontsize": 9, "handlelength": 3}
        figure.legend(list(named.values()), list(named), loc="outside lower center", **style)
    save(figure, path)


def curves(history: pd.DataFrame, path: File, *, evaluated_epoch: int | None, title: str) -> None:
    """Draws loss and accuracy over the epochs, train and validation, and marks the epoch whose checkpoint is evaluated.

    `history` has a row per epoch with `epoch`, `train_loss`, `train_accuracy`, `val_loss`, `val_accuracy`. A
    missing value leaves a gap in its own line only.
    """
    both = (
        partial(curve, history=history, metric=metric, evaluated_epoch=evaluated_epoch)
        for metric in ("loss", "accuracy")
    )
    panels(path, *both, title=title)


def curve(axes: Axes, history: pd.DataFrame, metric: str, evaluated_epoch: int | None) -> None:
    """One of the two charts of `curves`."""
    axes.set(title=metric, xlabel="epoch")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, steps=[1, 2, 5, 10], integer=True, min_n_ticks=1))
    axes.margins(x=0.03, y=0.12)
    axes.grid(axis="y")
    for split, style in LINES.items():
        points = history[["epoch", f"{split}_{metric}"]].dropna()
        crowded: dict[str, Any] = {"marker": ""} if len(points) > 25 else {}
        axes.plot(points["epoch"], points[f"{split}_{metric}"], **(style | crowded))
    best = history[history["epoch"] == evaluated_epoch][f"val_{metric}"].dropna()
    if len(best):
        _mark(axes, int(evaluated_epoch or 0), float(best.iloc[0]), below=metric == "accuracy")


def _mark(axes: Axes, epoch: int, value: float, *, below: bool) -> None:
    axes.axvline(epoch, color=MUTED, linewidth=0.9, linestyle=":", zorder=1)
    star: dict[str, Any] = {"color": INK, "markersize": 12, "markeredgecolor": "white", "zorder": 5}
    axes.plot([epoch], [value], "*", label=f"evaluated epoch ({epoch})", **star)
    late = epoch > sum(axes.get_xlim()) / 2
    where: dict[str, Any] = {"xytext": (-7 if late else 7, -16 if below else 8), "ha": "right" if late else "left"}
    style: dict[str, Any] = {"textcoords": "offset points", "fontsize": 9, "fontweight": "bold", "color": INK}
    axes.annotate(f"{value:.3f}", (epoch, value), **where, **style)


def _short_name(name: object) -> str:
    """Up to 24 letters of a class's name. More would leave no room for the chart."""
    text = str(name)
    return text if len(text) <= 24 else f"{text[:14]}…{text[-9:]}"


@matplotlib.rc_context(STYLE | {"axes.spines.left": False, "axes.spines.bottom": False})
def confusion(matrix: ArrayLike, classes: Sequence[str], path: File, *, title: str) -> None:
    """Draws counts (rows: true class, columns: predicted), shaded by their share of the row.

    Shades and percentages are shares of the true class, so the diagonal is the recall. The recall is on the right too; a class
    without images has a dash there.
    """
    counts, k, classes = np.asarray(matrix, dtype=np.int64), len(classes), list(map(_short_name, classes))
    totals = counts.sum(axis=1)
    shares = counts / np.maximum(totals, 1)[:, None]
    cell = float(np.interp(k, [2, 5, 10, 20], [1.25, 0.95, 0.7, 0.56]))  # inches
    names = (
        [drawable(name)[0] for name in classes] if isinstance(path, str | Path) else classes
    )  # a browser has its own fonts
    letters = max(map(len, names))
    wider = min(max(0.0, 0.1 * letters - 0.5), 1.3)  # inches, for names on the left; the layout makes no cell narrower
    figure = _figure(max(k * cell, 2.4) + 2.6 + wider, max(k * cell, 1.8) + 1.5, title)
    axes = figure.add_subplot()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1.15)  # the darkest blue stays legible under white text
    correct, images = int(np.trace(counts)), int(totals.sum())
    axes.set(
        xlabel="predicted", ylabel="true", title=f"accuracy {correct / max(images, 1):.1%} ({correct:,} of {images:,})"
    )
    long = letters * 0.085 > cell
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
        colour = "white" if share > 0.78 else INK if count else MUTED
        axes.text(column, row, text, ha="center", va="center", fontsize=size, color=colour)
    save(figure, path)


def distances(axes: Axes, matrix: ArrayLike) -> None:
    """Ordered classes: shares of the images by how many classes the prediction is above the true class."""
    counts = np.asarray(matrix)
    steps = np.arange(1 - len(counts), len(counts))
    shares = np.array([np.trace(counts, offset=step) for step in steps]) / max(1, counts.sum())
    styles: Any = ({"color": BLUE}, {"color": VERMILION, "hatch": "///"})
    for chosen, style in zip((steps == 0, steps != 0), styles, strict=True):
        bars = axes.bar(steps[chosen], shares[chosen], 0.75, edgecolor="white", linewidth=0, **style)
        axes.bar_label(bars, fmt="{:.1%}", padding=2, fontsize=9, color=INK)
    axes.set_xticks(steps, ["correct" if step == 0 else f"{step:+d}".replace("-", "−") for step in steps], color=INK)
    axes.set(xlabel="classes too low (−) or too high (+)", title="share of images")
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.margins(y=0.12)
    axes.grid(axis="y")


PLANES = {"roc": ("false positive rate", "recall"), "precision": ("recall", "precision")}
"""Axes (x, y) of the two charts of thresholds."""


class ThresholdCurve(NamedTuple):
    """A class against the rest: x [T] and y [T] at every threshold, and the points of the predictions and of a chosen threshold."""

    label: str
    x: np.ndarray
    y: np.ndarray
    predicted: tuple[float, float]
    chosen: tuple[float, float] | None = None


def threshold_curves(axes: Axes, curves: Sequence[ThresholdCurve], *, roc: bool) -> None:
    """ROC, or precision and recall, of each class. Dots: as predicted; diamond: at the chosen threshold."""
    if roc:
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=0.9, linestyle=":")
    for curve, colour, dash in zip(curves, COLOURS, DASHES, strict=False):
        style: dict[str, Any] = {"color": colour, "linestyle": dash, "linewidth": 1.8, "label": curve.label}
        axes.plot(curve.x, curve.y, drawstyle="default" if roc else "steps-pre", **style)
        axes.plot(*curve.predicted, "o", color=colour, markeredgecolor="white", markersize=9)
        if curve.chosen is not None:
            axes.plot(*curve.chosen, "D", color="white", markeredgecolor=INK, markersize=7, label="chosen threshold")
    x, y = PLANES["roc" if roc else "precision"]
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel=x, ylabel=y, title="ROC" if roc else "precision and recall")
    axes.grid()


BARS = {"train": (VERMILION, ""), "val": (BLUE, "///"), "test": ("#999999", "...")}
"""Colour and hatch of each split."""


@matplotlib.rc_context(STYLE)
def counts(images: pd.DataFrame, path: File, *, title: str) -> None:
    """Draws the number of images of each class (index) in each split (columns)."""
    k, splits = len(images), len(images.columns)
    figure = _figure(5.0, 1.3 + 0.23 * k * (splits + 0.7), title)
    axes = figure.add_subplot()
    thick = 1 / (splits + 0.7)
    for position, split in enumerate(images):
        colour, hatch = BARS[str(split)]
        label = f"{split} {images[split].sum():,}"
        style: dict[str, Any] = {"color": colour, "hatch": hatch, "edgecolor": "white", "linewidth": 0, "label": label}
        bars = axes.barh(np.arange(k) + (position - (splits - 1) / 2) * thick, images[split], thick * 0.9, **style)
        axes.bar_label(bars, fmt="{:,.0f}", padding=3, fontsize=8, color=INK)
    axes.set_yticks(range(k), list(map(_short_name, images.index)), color=INK)
    axes.set(ylim=(k - 0.5, -0.5), xlabel="images")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    axes.margins(x=0.12)
    axes.grid(axis="x")
    figure.legend(loc="outside lower center", ncols=splits, frameon=False, fontsize=9)
    save(figure, path)


def reliability_diagram(axes: Axes, bins: pd.DataFrame, ece: float) -> None:
    """Accuracy against the predicted class's probability; calibrated probabilities are on the diagonal. A mark's area is its
    share of the images."""
    axes.plot([0, 1], [0, 1], color=MUTED, linewidth=0.9, linestyle=":")
    axes.plot(bins["confidence"], bins["accuracy"], color=BLUE, linewidth=1)
    sizes = 20 + 600 * bins["n"] / bins["n"].sum()
    axes.scatter(bins["confidence"], bins["accuracy"], sizes, color=BLUE, alpha=0.7)
    low = min(0.5, float(bins["confidence"].min()), float(bins["accuracy"].min()))
    limits = (low - 0.04, 1.04)
    axes.set(xlim=limits, ylim=limits, xlabel="probability of the predicted class", ylabel="accuracy")
    axes.set_title(f"calibration error {ece:.3f}")
    axes.grid()


def coverage(axes: Axes, shares: pd.DataFrame) -> None:
    """Accuracy on the most certain images, by their share of all images."""
    axes.plot(shares["coverage"], shares["accuracy"], **(LINES["val"] | {"label": None}))
    axes.set(xlim=(0, 1.02), xlabel="share of images, most certain first", ylabel="accuracy")
    axes.set_title("accuracy without the least certain")
    axes.grid()


def save(figure: Figure, file: File) -> None:
    """As `savefig`, after constrained layout of its charts; a path gets the whole file, in the format of its suffix, or none."""
    if not isinstance(file, str | Path):
        _lay_out(figure, matplotlib.rcParams["savefig.format"])
        return figure.savefig(file)
    form = Path(file).suffix.removeprefix(".")
    use_fonts(figure)
    _lay_out(figure, form)
    with write_atomically(Path(file)) as stream:
        figure.savefig(stream, format=form)


def _lay_out(figure: Figure, form: str) -> None:
    """Constrained layout, for a file of this format. If `savefig` did it, it would draw the whole figure once more."""
    if not figure.axes:  # a grid of images, which places them itself
        return
    if form == "svg":
        FigureCanvasSVG(figure)
    else:
        FigureCanvasAgg(figure)
        figure.set_dpi(DPI)
    ConstrainedLayoutEngine().execute(figure)


def _figure(width: float, height: float, title: str) -> Figure:
    figure = Figure(figsize=(width, height))
    if title:
        figure.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold", color=INK)
    return figure
