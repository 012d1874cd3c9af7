"""Rendering of a report: one self-contained HTML file from the templates, with images and charts inside."""

import base64
import math
import re
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.ticker import MaxNLocator
from PIL import Image

from faceattr.files import write_atomically
from faceattr.message_text import counted
from faceattr.report.private_paths import paths_in, without_absolute_paths

FILE = "report.html"
LIMIT = 5_000_000
"""Bytes of a report: what a mail still takes."""
ATTEMPTS = ((160, 82, None), (128, 65, 36), (96, 50, 12))
"""Longest side in pixels, WebP quality, and most images of a class or gallery. The first within `LIMIT` is used."""


class Row(NamedTuple):
    """A line of a chart of intervals: label, value and interval, a note, and whether its mark is filled. `dots` are the single
    results behind a mean; `link` is the label's."""

    label: str
    value: float | None
    low: float | None = None
    high: float | None = None
    note: str = ""
    filled: bool = True
    dots: tuple[float, ...] = ()
    link: str = ""


class Chart(NamedTuple):
    """A drawn chart with its caption."""

    svg: Markup
    caption: str


class Scale:
    """The axis of a chart of intervals: `ticks` at round values, at both ends and between."""

    def __init__(self, rows: Iterable[Row], *more: float) -> None:
        values = [v for row in rows for v in (row.value, row.low, row.high, *row.dots) if v is not None and v == v]
        values = [*values, *more] or [0.0, 1.0]
        low, high = min(values), max(values)
        spare = 0.02 * (high - low) or 0.02
        locate = MaxNLocator(nbins=3, steps=[1, 2, 2.5, 5, 10])
        ticks = [float(tick) for tick in locate.tick_values(low - spare, min(high + spare, max(1.0, high)))]
        self.ticks = [tick for tick in ticks if tick >= 0 or low < 0]

    def at(self, value: float) -> str:
        """The place of a value, in per cent of the width."""
        return f"{100 * (value - self.ticks[0]) / (self.ticks[-1] - self.ticks[0]):.2f}%"


def render(template: str, file: Path, *, paths: bool = False, **context: Any) -> Path:
    """Fills `template` and writes `file` atomically; without absolute paths, unless `paths`."""
    values = paths_in(str(context.get("config") or ""))
    for side, quality, most in ATTEMPTS:
        environment = _environment(side, quality)
        reduced = (side, most) if side < ATTEMPTS[0][0] else None
        text = environment.get_template(template).render(**context, most=most, reduced=reduced)
        page = (text if paths else without_absolute_paths(text, values)).encode()
        if len(page) <= LIMIT:
            break
    with write_atomically(file) as stream:
        stream.write(page)
    return file


def _environment(side: int, quality: int) -> Environment:
    loader = PackageLoader("faceattr", "report/templates")
    options: Any = {"undefined": StrictUndefined, "trim_blocks": True, "lstrip_blocks": True}
    environment = Environment(autoescape=True, loader=loader, **options)
    environment.filters |= {
        "number": number,
        "interval": interval,
        "per_cent": per_cent,
        "plain": plain,
        "cells": cells,
        "counted": counted,
    }
    environment.filters["picture"] = lambda pixels: picture(pixels, side, quality)
    environment.globals["scale"] = Scale
    return environment


def picture(pixels: np.ndarray, side: int, quality: int) -> str:
    """uint8 [H, W, 3] as a data URL: WebP, no side longer than `side`."""
    image, file = Image.fromarray(np.ascontiguousarray(pixels)), BytesIO()
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    image.save(file, "WEBP", quality=quality, method=4)
    return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode()


def date_of(folder: Path) -> str | None:
    """Start of the run from the folder's name, as Hydra names folders; None for other names."""
    match = re.search(r"(\d{4}-\d\d-\d\d)_(\d\d)-(\d\d)", folder.name)
    return f"{match[1]} {match[2]}:{match[3]}" if match else None


def missing(value: Any) -> bool:
    """Whether a value of a table or a metrics file is None or nan."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def number(value: float | None, form: str = ".3f") -> str:
    """Three decimals with a true minus sign; a dash for a missing value."""
    return "–" if missing(value) else format(value, form).replace("-", "−")


def per_cent(value: float | None) -> str:
    return "–" if value is None or missing(value) else f"{value:.1%}"


def interval(low: float | None, high: float | None, form: str = ".3f") -> str:
    """`0.920–0.949`, with ` to ` where a bound is negative or signed; empty where a bound is missing."""
    if low is None or high is None or missing(low) or missing(high):
        return ""
    return f"{number(low, form)}{' to ' if low < 0 or '+' in form else '–'}{number(high, form)}"


def plain(value: Any) -> str:
    """A value of run.json as text."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {plain(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(plain, value)) or "none"
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "–"}[value]
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) and value > 9999 else str(value)


def cells(table: pd.DataFrame) -> list[list[str]]:
    """A table's rows as text."""
    return [["–" if missing(cell) else plain(cell) for cell in row] for row in table.astype(object).values.tolist()]


DESCRIPTIONS = {
    **{"run.json": "what was run, as data", "metrics.csv": "a row per epoch", "table.csv": "each image with its split"},
    **{"best.ckpt": "the best checkpoint", "last.ckpt": "the last checkpoint", "train.log": "the log"},
    **{"comparison.json": "the difference between two models", "disagreements.csv": "images on which they differ"},
    **{"bad_images.csv": "images that could not be read", "faces.csv": "the faces that were found in each image"},
    **{"leaderboard.csv": "the leaderboard as a table"},
}


class ListedFile(NamedTuple):
    path: str
    size: str
    description: str


def files_in(folder: Path) -> list[ListedFile]:
    """The files of a run's folder to link: its own, its checkpoints, the compared model's and Hydra's config."""
    patterns = ("*", "checkpoints/*", ".hydra/*", "compared/*")
    paths = [path for pattern in patterns for path in sorted(folder.glob(pattern))]
    shown = [path for path in paths if path.is_file() and not path.name.startswith(".") and path.name != FILE]
    return [
        ListedFile(path.relative_to(folder).as_posix(), _size(path), DESCRIPTIONS.get(path.name, "")) for path in shown
    ]


def _size(path: Path) -> str:
    size = path.stat().st_size
    return f"{size:,} bytes" if size < 1000 else f"{size / 1e3:,.0f} kB" if size < 1e6 else f"{size / 1e6:,.1f} MB"
