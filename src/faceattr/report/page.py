"""report.html of a run or an evaluation: how good the model is and how sure that is, where it fails, on what it was trained, and
how all of it came about. What is said is gathered here and in sections.py; how it looks is in the templates."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from faceattr.config.command_line import typed
from faceattr.data.table import counts
from faceattr.metrics.intervals import Paired
from faceattr.report import charts, render
from faceattr.report.render import Chart
from faceattr.report.sections import SplitResult
from faceattr.report.sentences import describe_pair, describe_published

__all__ = ["SplitResult", "write"]

TOLD = {
    "command",
    "quirks",
    "published",
    "name",
    "seconds",
    "device",
    "date",
    "error",
    "classes",
    "images",
    "status",
    "leakage",
}
"""Keys of run.json that have a place of their own in the page."""


def write(
    folder: Path,
    *,
    title: str,
    about: Mapping[str, Any],
    config: str,
    history: pd.DataFrame | None = None,
    judged: Sequence[SplitResult] = (),
    table: pd.DataFrame | None = None,
    samples: Mapping[str, Sequence[np.ndarray]] | None = None,
    audit: Mapping[str, Any] | None = None,
) -> Path:
    """Writes report.html into the folder of a run or an evaluation, when all else is there: it links what it finds.

    `about` is run.json, `config` YAML, `history` metrics.csv, `table` as table.prepare gives it, `samples` images (uint8
    [H, W, 3]) by class, `audit` what the audit found by name, and in words as `says`. Test images come first, validation
    images later. What is missing is left out.
    """
    told = sorted(judged, key=lambda one: ("test", "all", "val", "train").index(one.split))
    found = {one.split: one.metrics for one in told}
    kept = [folder / "checkpoints" / f"{name}.ckpt" for name in ("best", "last") if f"{name}_epoch" in about]
    checkpoint = next((str(path) for path in [about.get("ckpt"), *kept] if path), None)
    published = [
        describe_published(entry, found.get(entry["split"], {}).get(entry["metric"]))
        for entry in about.get("published") or ()
    ]
    return render.render(
        "run.jinja2",
        folder / render.FILE,
        title=title,
        about=about,
        date=about.get("date") or render.date_of(folder),
        judged=told,
        basis={one.split: basis(one, about) for one in told},
        learning=learning(history, about) if history is not None else [],
        history=history,
        counts=counts(table) if table is not None and "split" in table else None,
        compared=compared(folder),
        samples=samples or {},
        audit=audit,
        audit_facts={key: value for key, value in (audit or {}).items() if key != "says" and value},
        published=published,
        further={key: value for key, value in about.items() if key not in TOLD and value is not None},
        config=config,
        evaluate_again=typed("evaluate", f"ckpt={checkpoint}") if checkpoint else None,
        files=render.files_in(folder),
    )


def basis(judged: SplitResult, about: Mapping[str, Any]) -> str:
    """What stands between these figures and what they seem to say: whether anything was chosen, or learnt, on the images."""
    said = {
        "test": "Neither training nor the choice of the epoch saw these images.",
        "train": "The model was trained on these very images: nothing here says how it does on others.",
        "val": "Training did not see these images.",
        "all": "All images of these data, whatever their split: if the model was trained on some of them, that flatters it.",
    }.get(judged.split, "")
    if judged.split == "val" and ("best_epoch" in about or Path(about.get("ckpt") or "").name == "best.ckpt"):
        said = "The epoch was chosen on these very images, which flatters the figures a little."
    if judged.metrics.get("temperature"):
        where = "these very images" if judged.split == "val" else "validation images"
        said += f" Probabilities are calibrated: temperature {judged.metrics['temperature']:.3g}, fitted on {where}."
    if judged.metrics.get("interval_unit") == "group":
        said += " Intervals resample whole people, not images (but Wilson’s, of accuracy and recall)."
    leaks = about.get("leakage") or {}
    if leaks.get(f"train_{judged.split}") and not leaks.get("left_out"):
        pairs = f"{leaks[f'train_{judged.split}']:,} pairs of copies"
        said += f" {pairs} lie between them and the training images, which flatters the figures: see Data."
    return said + (" This preset keeps quirks of a published study, listed below." if about.get("quirks") else "")


def learning(history: pd.DataFrame, about: Mapping[str, Any]) -> list[Chart]:
    """Loss and accuracy by epoch, where both were kept."""
    epoch = next((about[key] for key in ("best_epoch", "last_epoch") if about.get(key) is not None), None)
    found = []
    for metric in ("loss", "accuracy"):
        names = [f"train_{metric}", f"val_{metric}"]
        if not len(history) or not set(names) <= set(history):
            continue
        draw = partial(charts.curve, history=history, metric=metric, judged_epoch=epoch)
        last = ", ".join(f"{name.split('_')[0]} {render.number(history[name].iloc[-1])}" for name in names)
        words = f"After {len(history)} epoch{'s'[: len(history) > 1]}: {last}."
        judged = history.loc[history["epoch"] == epoch, names[1]]
        words += f" At epoch {epoch}, which is judged: val {render.number(judged.iloc[0])}." if len(judged) else ""
        svg = charts.panel_svg(draw, f"learning-{metric}", f"{metric} by epoch. {words}")
        found.append(Chart(svg, words))
    return found


def compared(folder: Path) -> dict[str, Any] | None:
    """What comparison.json says, where the evaluation was given a second model; `says` in words."""
    if not (folder / "comparison.json").is_file():
        return None
    found = json.loads((folder / "comparison.json").read_text(encoding="utf-8"))
    pair = Paired(**{field.name: found[field.name] for field in fields(Paired)})
    return found | {"says": describe_pair(pair, multilabel=found.get("multilabel", False))}
