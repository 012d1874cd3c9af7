"""What every report is made with: one HTML file that asks nothing of any other, filled from the templates beside this module."""

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

FILE = "report.html"
LIMIT = 5_000_000
"""Bytes of a report: what a mail still takes."""
ATTEMPTS = ((160, 82, None), (128, 65, 36), (96, 50, 12))
"""Longest side in pixels, WebP quality, and most images of a class or gallery: the first with which a page is within `LIMIT`."""


class Row(NamedTuple):
    """A line of a chart of intervals: what, its value and interval, a note, and whether its mark is filled; `dots`: single
    results behind the value; `link`: where more of it is."""

    label: str
    value: float | None
    low: float | None = None
    high: float | None = None
    note: str = ""
    filled: bool = True
    dots: tuple[float, ...] = ()
    link: str = ""


class Chart(NamedTuple):
    """A drawn chart with what it says in words."""

    svg: Markup
    caption: str


class Scale:
    """Where values lie along a chart of intervals, in per cent of its width; round ticks at its ends and between."""

    def __init__(self, rows: Iterable[Row], *more: float) -> None:
        known = [v for row in rows for v in (row.value, row.low, row.high, *row.dots) if v is not None and v == v]
        known = [*known, *more] or [0.0, 1.0]
        low, high = min(known), max(known)
        spare = 0.02 * (high - low) or 0.02
        locate = MaxNLocator(nbins=3, steps=[1, 2, 2.5, 5, 10])
        ticks = [float(tick) for tick in locate.tick_values(low - spare, min(high + spare, max(1.0, high)))]
        self.ticks = [tick for tick in ticks if tick >= 0 or low < 0]

    def at(self, value: float) -> str:
        return f"{100 * (value - self.ticks[0]) / (self.ticks[-1] - self.ticks[0]):.2f}%"


def render(template: str, file: Path, **context: Any) -> Path:
    """Fills `template` and writes `file`, beside it first: a reader never sees half of it."""
    for side, quality, most in ATTEMPTS:
        environment = _environment(side, quality)
        reduced = (side, most) if side < ATTEMPTS[0][0] else None
        page = environment.get_template(template).render(**context, most=most, reduced=reduced).encode()
        if len(page) <= LIMIT:
            break
    part = file.with_name(f".{file.name}.part")
    part.write_bytes(page)
    part.replace(file)
    return file


def _environment(side: int, quality: int) -> Environment:
    loader = PackageLoader("faceattr", "report/templates")
    found = Environment(autoescape=True, loader=loader, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    found.filters |= {"number": number, "interval": interval, "per_cent": per_cent, "plain": plain}
    found.filters["picture"] = lambda pixels: picture(pixels, side, quality)
    found.filters["cells"] = cells
    found.globals["scale"] = Scale
    return found


def picture(pixels: np.ndarray, side: int, quality: int) -> str:
    """uint8 [H, W, 3] as the address of an image: WebP, no side longer than `side`."""
    image, file = Image.fromarray(np.ascontiguousarray(pixels)), BytesIO()
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    image.save(file, "WEBP", quality=quality, method=4)
    return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode()


def date_of(folder: Path) -> str | None:
    """When it began, where the folder's name says it, as Hydra names folders."""
    found = re.search(r"(\d{4}-\d\d-\d\d)_(\d\d)-(\d\d)", folder.name)
    return f"{found[1]} {found[2]}:{found[3]}" if found else None


def missing(value: Any) -> bool:
    """None, or a float that is no number: what a table or a metrics file has where there is no figure."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def number(value: float | None, form: str = ".3f") -> str:
    """Three decimals with a true minus; a dash where there is none."""
    return "–" if missing(value) else format(value, form).replace("-", "−")


def per_cent(value: float | None) -> str:
    return "–" if value is None or missing(value) else f"{value:.1%}"


def interval(low: float | None, high: float | None, form: str = ".3f") -> str:
    """`0.920–0.949`, or nothing; ` to ` between where a bound is negative."""
    if low is None or high is None or missing(low) or missing(high):
        return ""
    return f"{number(low, form)}{' to ' if low < 0 or '+' in form else '–'}{number(high, form)}"


def plain(value: Any) -> str:
    """A value of run.json in words."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {plain(one)}" for key, one in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(plain, value)) or "none"
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "–"}[value]
    return (
        f"{value:,}"
        if isinstance(value, int) and value > 9999
        else f"{value:.4g}"
        if isinstance(value, float)
        else str(value)
    )


def cells(table: pd.DataFrame) -> list[list[str]]:
    """A table's rows as text."""
    return [["–" if missing(one) else plain(one) for one in row] for row in table.astype(object).values.tolist()]


NAMES = {
    **{"run.json": "what was run, as data", "metrics.csv": "a row per epoch", "table.csv": "each image with its split"},
    **{"best.ckpt": "the best checkpoint", "last.ckpt": "the last checkpoint", "train.log": "all that was said"},
    **{"comparison.json": "the difference of two models", "disagreements.csv": "images on which they differ"},
    **{"bad_images.csv": "images that could not be read", "leaderboard.csv": "the table of the sweep"},
}


class Listed(NamedTuple):
    path: str
    size: str
    what: str


def files_in(folder: Path) -> list[Listed]:
    """What lies in a run's folder and is worth a link: its files, its checkpoints and the config as Hydra wrote it."""
    found = [path for place in ("*", "checkpoints/*", ".hydra/*", "compared/*") for path in sorted(folder.glob(place))]
    shown = [path for path in found if path.is_file() and not path.name.startswith(".") and path.name != FILE]
    return [Listed(path.relative_to(folder).as_posix(), _size(path), NAMES.get(path.name, "")) for path in shown]


def _size(path: Path) -> str:
    size = path.stat().st_size
    return f"{size:,} bytes" if size < 1000 else f"{size / 1e3:,.0f} kB" if size < 1e6 else f"{size / 1e6:,.1f} MB"
