"""report.html of a run or an evaluation: its metrics with intervals, its errors, its training, its data and its configuration.

The content is gathered here and in sections.py; the layout is in templates/.
"""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from faceattr.config.command_to_paste import command_to_paste
from faceattr.config.quote_for_hydra import argument
from faceattr.data.decode import InputSpec
from faceattr.data.faces.table_faces import FoundFaces
from faceattr.data.table import counts, shortened
from faceattr.errors import optional
from faceattr.message_text import counted
from faceattr.metrics.intervals import PairedDifference
from faceattr.report import charts, render_html
from faceattr.report.draw_detections import FacePicture, doubtful_faces
from faceattr.report.render_html import Chart
from faceattr.report.result_sentences import describe_pair, describe_published
from faceattr.report.sections import SplitResult, optional_charts

__all__ = ["SplitResult", "write"]

ORDER = ("test", "all", "val", "train")
"""Of the splits in the page."""
SHOWN_ELSEWHERE = {
    *("command", "quirks", "published", "name", "seconds", "device", "date", "error", "classes", "images", "status"),
    *("leakage", "faces", "inputs"),
}
"""Keys of run.json that have their own place in the page."""


def write(
    folder: Path,
    *,
    title: str,
    metadata: Mapping[str, Any],
    config: str,
    history: pd.DataFrame | None = None,
    results: Sequence[SplitResult] = (),
    table: pd.DataFrame | None = None,
    samples: Mapping[str, Sequence[np.ndarray]] | None = None,
    audit: Mapping[str, Any] | None = None,
    faces: FoundFaces | None = None,
    spec: InputSpec | None = None,
    comparison: Mapping[str, Any] | None = None,
    paths: bool = False,
) -> Path:
    """Writes report.html into the folder of a run or an evaluation. Call it last: it links the files in the folder.

    `metadata` is run.json, `config` YAML, `history` metrics.csv, `table` as table.prepare gives it, `samples` images (uint8
    [H, W, 3]) by class, `audit` what leaks.apply_leak_policy returns and a sentence as `text`, `faces` what was found in the images
    that are cropped to `spec`, `comparison` is comparison.json.
    `paths` shows absolute paths (`report.paths`); else none is in the page.
    Test images come first, then validation images. Parts that are not given are left out.
    """
    results = sorted(results, key=lambda result: ORDER.index(result.split))
    doubtful: Mapping[str, Sequence[FacePicture]] = {}
    with optional("Pictures of doubtful faces"):
        doubtful = doubtful_faces(faces, spec) if faces and spec else {}
    facts = {key: value for key, value in metadata.items() if key not in SHOWN_ELSEWHERE and value is not None}
    checkpoint = _checkpoint(folder, metadata)
    return render_html.render(
        "run.jinja2",
        folder / render_html.FILE,
        paths=paths,
        title=title,
        metadata=metadata,
        date=metadata.get("date") or render_html.date_of(folder),
        results=results,
        caveats={result.split: caveats(result, metadata) for result in results},
        learning=learning_curves(history, metadata) if history is not None else [],
        history=history,
        counts=counts(table) if table is not None and "split" in table else None,
        shortened=shortened,
        comparison=_comparison(comparison) if comparison else None,
        samples=samples or {},
        faces=faces.describe() if faces else None,
        doubtful_faces=doubtful,
        audit=audit,
        audit_facts={key: value for key, value in (audit or {}).items() if key != "text" and value},
        published=_published(results, metadata),
        facts=facts,
        config=config,
        evaluate_again=command_to_paste("evaluate", argument("ckpt", checkpoint)) if checkpoint else None,
        files=render_html.files_in(folder),
    )


def _checkpoint(folder: Path, metadata: Mapping[str, Any]) -> str | None:
    """The checkpoint that was evaluated."""
    if metadata.get("ckpt"):
        return str(metadata["ckpt"])
    saved = [folder / "checkpoints" / f"{name}.ckpt" for name in ("best", "last") if f"{name}_epoch" in metadata]
    return str(saved[0]) if saved else None


def _published(results: Sequence[SplitResult], metadata: Mapping[str, Any]) -> list[str]:
    """A sentence for each figure that the run's preset says was published."""
    metrics = {result.split: result.metrics for result in results}
    entries = metadata.get("published") or ()
    return [describe_published(entry, metrics.get(entry["split"], {}).get(entry["metric"])) for entry in entries]


def _comparison(comparison: Mapping[str, Any]) -> dict[str, Any]:
    """comparison.json with a sentence as `text`."""
    pair = PairedDifference(**{field.name: comparison[field.name] for field in fields(PairedDifference)})
    return {**comparison, "text": describe_pair(pair, multilabel=comparison.get("multilabel", False))}


def caveats(result: SplitResult, metadata: Mapping[str, Any]) -> str:
    """What a reader must know of the images: whether training, model selection or calibration used them."""
    text = {
        "test": "Neither training nor model selection used these images.",
        "train": "The model was trained on these images: the metrics do not hold for other images.",
        "val": "Training did not use these images.",
        "all": "These are all images of the data, whatever their split. If the model was trained on some of them, the metrics are "
        "too good.",
    }.get(result.split, "")
    if result.split == "val" and ("best_epoch" in metadata or Path(metadata.get("ckpt") or "").name == "best.ckpt"):
        text = "The epoch was selected on these images, so the metrics are slightly too good."
    if result.metrics.get("temperature"):
        images = "these images" if result.split == "val" else "validation images"
        text += f" Probabilities are calibrated: temperature {result.metrics['temperature']:.3g}, fitted on {images}."
    if result.metrics.get("interval_unit") == "group":
        text += " Intervals resample people, not images (Wilson’s intervals, of accuracy and recall, treat images as independent)."
    leakage = metadata.get("leakage") or {}
    if (pairs := leakage.get(f"train_{result.split}")) and not leakage.get("left_out"):
        number = counted(pairs, "pair of copies links", "pairs of copies link")
        text += f" {number} them to training images, so the metrics are too good: see Data."
    if copies := leakage.get("copies_of_training_images"):
        text += f" {copies:,} of them {'is a copy' if copies == 1 else 'are copies'} of training images: see Data."
    if metadata.get("inputs"):
        text += f" {metadata['inputs']}"
    return text + (
        " This preset keeps the quirks of a published study, listed below." if metadata.get("quirks") else ""
    )


@optional_charts
def learning_curves(history: pd.DataFrame, metadata: Mapping[str, Any]) -> list[Chart]:
    """Loss and accuracy by epoch, each where both splits have it."""
    epoch = next((metadata[key] for key in ("best_epoch", "last_epoch") if metadata.get(key) is not None), None)
    drawn = []
    for metric in ("loss", "accuracy"):
        names = [f"train_{metric}", f"val_{metric}"]
        if not len(history) or not set(names) <= set(history):
            continue
        last = ", ".join(f"{name.split('_')[0]} {render_html.number(history[name].iloc[-1])}" for name in names)
        caption = f"After {counted(len(history), 'epoch')}: {last}."
        evaluated = history.loc[history["epoch"] == epoch, names[1]]
        if len(evaluated):
            caption += f" At epoch {epoch}, the one evaluated: val {render_html.number(evaluated.iloc[0])}."
        draw = partial(charts.curve, history=history, metric=metric, evaluated_epoch=epoch)
        svg = charts.panel_svg(draw, f"learning-{metric}", f"{metric} by epoch. {caption}")
        drawn.append(Chart(svg, caption))
    return drawn
