"""report.html of a sweep: the leaderboard with intervals, the effect of each config key, and all runs with links."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, NullFormatter

from faceattr.message_text import counted
from faceattr.report import charts, render_html
from faceattr.report.charts import COLOURS, INK
from faceattr.report.render_html import Row

MOST_PANELS, MOST_ROWS = 12, 60
MARKS = "os^Dv"
"""Markers of the seeds."""


def write(folder: Path, board: pd.DataFrame, jobs: Sequence[Mapping[str, Any]]) -> Path:
    """Writes the report; `board` and `jobs` are what leaderboard.leaderboard and read_jobs return."""
    keys = list(board.loc[:, :"seeds"].columns[:-1])
    accuracy = {job["name"]: job["val_accuracy"] for job in jobs if not job["error"]}
    rows = [_row(row, keys, accuracy) for row in board.head(MOST_ROWS).to_dict("records")]
    return render_html.render(
        "sweep.jinja2",
        folder / render_html.FILE,
        title=f"Sweep over {', '.join(keys)}" if keys else "Sweep",
        date=render_html.date_of(folder),
        summary=summary(rows),
        rows=rows,
        board=board,
        charts=list(_charts(keys, jobs)),
        jobs=[
            {
                **job,
                "link": link(folder, job["name"]),
                "overrides_text": " ".join(f"{k}={v}" for k, v in job["overrides"].items()),
            }
            for job in jobs
        ],
        failed=sum(job["error"] is not None for job in jobs),
        files=[file for file in render_html.files_in(folder) if "/" not in file.path],
    )


def link(folder: Path, name: str) -> str:
    """A run's own report, or its folder where it has none."""
    return f"{name}/{render_html.FILE}" if (folder / name / render_html.FILE).is_file() else f"{name}/"


def _row(board_row: Mapping[Any, Any], keys: Sequence[str], accuracy: Mapping[str, float]) -> Row:
    label = " ".join(f"{key}={board_row[key]}" for key in keys) or "one configuration"
    sd = "" if render_html.missing(board_row["val_accuracy_sd"]) else f" ±{board_row['val_accuracy_sd']:.3f}"
    seeds = f"{board_row['seeds']} seed{'' if board_row['seeds'] == 1 else 's'}{sd}"
    failed = f"✗ {board_row['failed']} failed" if board_row["failed"] else ""
    test = "" if render_html.missing(board_row.get("test_accuracy")) else f"test {board_row['test_accuracy']:.3f}"
    note = ", ".join(text for text in (seeds if board_row["seeds"] else "", test, failed) if text)
    dots = tuple(accuracy[name] for name in board_row["jobs"].split() if name in accuracy)
    low, high = (board_row[f"val_accuracy_{side}"] for side in ("low", "high"))
    return Row(label, board_row["val_accuracy"], low, high, note, dots=dots if len(dots) > 1 else ())


def summary(rows: Sequence[Row]) -> str:
    """The best configuration, and how many others are not clearly worse."""
    finished = [row for row in rows if not render_html.missing(row.value)]
    if not finished:
        return "No run finished."
    best, others = finished[0], finished[1:]
    text = f"Best: {best.label} with {render_html.number(best.value)} ({render_html.interval(best.low, best.high)})."
    near = sum((row.high or 0) >= (best.value or 0) for row in others)
    reach = (
        f"{near} of {counted(len(others), 'other interval')} {'reaches' if near == 1 else 'reach'} it."
        if near
        else "No other interval reaches it."
    )
    return f"{text} {reach}" if others else text


def _charts(keys: Sequence[str], jobs: Sequence[Mapping[str, Any]]) -> Any:
    finished = [job for job in jobs if not job["error"]]
    for place, key in enumerate(keys[:MOST_PANELS]):
        table = pd.DataFrame(
            [
                (job["overrides"].get(key, "–"), job["val_accuracy"], job["overrides"].get("seed", ""))
                for job in finished
            ],
            columns=["value", "accuracy", "seed"],
        )
        if table["value"].nunique() < 2:
            continue
        means = table.groupby("value")["accuracy"].mean().sort_values(ascending=False)
        best, last = (f"{means.index[i]} with {means.iloc[i]:.3f}" for i in (0, -1))
        caption = f"Best on average: {best}; last: {last}."
        height = 1.3 + 0.45 * min(7, len(means)) if len(means) <= 7 else 3.4
        svg = charts.panel_svg(
            partial(by_value, key=key, jobs=table),
            f"key-{place}",
            f"Validation accuracy by {key}. {caption}",
            max(2.2, height),
        )
        yield render_html.Chart(svg, caption)


def by_value(axes: Axes, key: str, jobs: pd.DataFrame) -> None:
    """Validation accuracy of each job by the value of one key of the sweep: `value` (text), `accuracy`, `seed` (text).

    Each seed has its marker. Values are listed with their mean; more than six numbers are an axis.
    """
    numbers = pd.to_numeric(jobs["value"], errors="coerce")
    ordered = jobs["value"] if numbers.isna().any() else jobs["value"][numbers.sort_values().index]
    values = list(dict.fromkeys(ordered))
    seeds = sorted(jobs["seed"].unique(), key=lambda seed: (len(seed), seed))
    as_axis = bool(numbers.notna().all()) and len(values) > 6
    for i, seed in enumerate(seeds):
        has_seed = jobs["seed"] == seed
        mark: Any = {"linestyle": "", "marker": MARKS[i % 5], "color": COLOURS[i % 5], "alpha": 0.75, "markersize": 6}
        mark["label"] = f"seed {seed}" if seed and len(seeds) <= 5 else None
        if as_axis:
            axes.plot(numbers[has_seed], jobs["accuracy"][has_seed], **mark)
        else:
            lines = pd.Series([values.index(value) for value in jobs["value"][has_seed]])
            axes.plot(jobs["accuracy"][has_seed], lines + 0.12 * (i - (len(seeds) - 1) / 2), **mark)
    axes.set_title(key, color=INK, fontweight="bold")
    axes.grid(axis="both" if as_axis else "x")
    if as_axis:
        _number_axis(axes, key, numbers)
    else:
        _list_values(axes, values, [jobs["accuracy"][jobs["value"] == value].mean() for value in values])


def _number_axis(axes: Axes, key: str, numbers: pd.Series) -> None:
    axes.set(xlabel=key, ylabel="validation accuracy")
    if numbers.min() > 0 and numbers.max() / numbers.min() > 30:
        axes.set_xscale("log")
        axes.xaxis.set_minor_formatter(NullFormatter())


def _list_values(axes: Axes, values: Sequence[str], means: Sequence[float]) -> None:
    axes.plot(means, range(len(values)), "|", color=INK, markersize=20, markeredgewidth=2, zorder=1)
    axes.set_yticks(range(len(values)), values, color=INK)
    axes.set(ylim=(len(values) - 0.4, -0.6), xlabel="validation accuracy")
    axes.margins(x=0.08)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5))
