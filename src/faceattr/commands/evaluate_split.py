"""The evaluation of one split: `evaluate_split` computes, `write_split` writes. A run's own evaluation and evaluate.py both
take these, so that they cannot differ."""

import logging
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from pytorch_lightning.callbacks import Callback

from faceattr.config.schema import EvaluateOptions, Trainer
from faceattr.data import table
from faceattr.data.datamodule import FaceData
from faceattr.errors import FaceattrError, optional
from faceattr.files import write_csv, write_json
from faceattr.message_text import counted, listed
from faceattr.metrics import accuracy, calibration, compute_metrics, per_class, slices
from faceattr.models.task import Task
from faceattr.report import charts, image_grid, result_sentences
from faceattr.report.sections import SplitResult
from faceattr.training import checkpoint_format
from faceattr.training.inference_torch import predictions_table, probabilities
from faceattr.training.lightning_module import Classifier

log = logging.getLogger(__name__)


def check_evaluation(options: EvaluateOptions, task: Task) -> None:
    """Raises FaceattrError where `evaluate.…` asks for what this kind of task cannot give."""
    requested = [name for name in ("precision", "recall") if getattr(options, name) is not None]
    if requested and task.kind != "binary":
        held = "attributes" if task.multilabel else len(task.classes)
        raise FaceattrError(f"evaluate.{requested[0]} needs two classes; there are {held}.")
    if len(requested) == 2:
        raise FaceattrError("evaluate.precision and evaluate.recall exclude each other: set one of them to null.")
    if options.calibrate and task.loss == "one_vs_rest":
        raise FaceattrError("evaluate.calibrate=true needs probabilities that sum to 1; loss=one_vs_rest gives others.")


def evaluate_split(
    model: Classifier,
    data: FaceData,
    split: str,
    trainer: Trainer,
    options: EvaluateOptions,
    *callbacks: Callback,
    published_map: bool = False,
) -> SplitResult:
    """Metrics, predictions and slices of the split's images; writes nothing.

    `published_map` adds the figure that study S3 calls mAP.
    """
    scores, _ = probabilities(model, data.split_dataloader(split), trainer, *callbacks)
    rows = data.table.iloc[data.rows(split)]
    truth = torch.from_numpy(table.targets(rows))
    metrics = compute_metrics.all_metrics(model.task, scores, truth)
    absent = [name for name in model.task.classes if metrics.get(f"n_{name}") == 0]
    if absent and not model.task.multilabel and len(truth):
        log.warning(
            "%s: no images of %s. There is no recall of it, and no metric that ranks it against the others",
            split.capitalize(),
            listed(absent),
        )
    with optional("The intervals"):
        metrics |= compute_metrics.intervals_of(metrics, model.task, scores, truth, people(rows))
    if published_map:
        metrics["published_map"] = accuracy.published_map(scores, truth)
    with optional("The calibration error"):
        metrics |= _calibration(model, scores, truth, options, split)
    predictions = _with_truth(predictions_table(rows["path"], model.task, scores), rows, model.task)
    slices = pd.DataFrame()
    with optional("The table of slices"):
        slices = _slices(model.task, data, split, options, scores, truth)
    with optional("What the slices say"):
        _log_slices(slices, split)
    result = SplitResult(split, model.task, metrics, scores.numpy(), truth.numpy(), slices, predictions)
    if result.certainty_misleads:
        log.warning("%s: %s", split.capitalize(), result.certain_text)
    return result


def explain_images(result: SplitResult, model: Classifier, data: FaceData) -> SplitResult:
    """The result with images that Grad-CAM explains."""
    paths, pixels = result.predictions["path"].tolist(), _pixels(data, result.split)
    with optional("Grad-CAM of images"):
        tiles = image_grid.tiles(result.task.classes, result.scores, result.truth, paths, pixels, model.explain)
        return replace(result, tiles=tiles)
    return result


def write_split(result: SplitResult, folder: Path) -> None:
    """<split>_metrics.json, predictions_, slices_ and attributes_<split>.csv."""
    split = result.split
    write_csv(folder / f"predictions_{split}.csv", result.predictions)
    write_json(folder / f"{split}_metrics.json", result.metrics)
    if result.task.multilabel:
        write_csv(folder / f"attributes_{split}.csv", per_class.attribute_table(result.metrics, result.task))
    if len(result.slices):
        write_csv(folder / f"slices_{split}.csv", result.slices)


def draw_split(result: SplitResult, data: FaceData, folder: Path, *, title: str) -> None:
    """gallery_<split>.png, and confusion_<split>.png where there are classes."""
    split, task = result.split, result.task
    title = f"{title}: {split} images"
    if not task.multilabel:
        with optional(f"confusion_{split}.png"):
            counts = per_class.confusion(task, torch.from_numpy(result.scores), torch.from_numpy(result.truth))
            charts.confusion(counts, task.classes, folder / f"confusion_{split}.png", title=title)
    with optional(f"gallery_{split}.png"):
        pixels = _pixels(data, split)
        image_grid.gallery(result.predictions, pixels, data.spec, folder / f"gallery_{split}.png", title=title)


def people(rows: pd.DataFrame) -> list[str] | None:
    """The person on each image, where the table says it; an image of an unknown person is a group of its own."""
    identities = table.identities(rows)
    return None if identities is None else identities.fillna(rows["path"]).astype(str).tolist()


def calibrate(model: Classifier, scores: torch.Tensor, truth: torch.Tensor, path: str | Path) -> None:
    """Fit the model's temperature on validation images' probabilities at temperature 1; store it in its checkpoint."""
    assert model.temperature == 1, "a fit on top of an earlier one gives another temperature each time"
    probability, label = (part.numpy() for part in model.task.flatten_labels(scores, truth))
    model.temperature = calibration.fit_temperature(probability, label)
    tempered = calibration.tempered(probability, model.temperature)
    before, after = (calibration.metrics(p, label)["ece"] for p in (probability, tempered))
    if abs(np.log(model.temperature)) > 2.99:
        log.warning(
            "The temperature is at the bound of what is tried: these probabilities say next to nothing, or far too much"
        )
    checkpoint_format.add_to_description(path, temperature=model.temperature)
    noun = "validation label" if model.task.multilabel else "validation image"
    log.info(
        "Temperature %.3f fitted on %s (calibration error there %.3f, then %.3f); stored in %s",
        *(model.temperature, counted(len(label), noun), before, after, path),
    )


def _pixels(data: FaceData, split: str) -> image_grid.Pixels:
    """Pixels of images by their positions in the split."""
    rows = data.rows(split)

    def pixels(positions: Iterable[int]) -> dict[int, np.ndarray]:
        by_row = data.pixels(rows[position] for position in positions)
        return {position: by_row[row] for position, row in enumerate(rows.tolist()) if row in by_row}

    return pixels


def _with_truth(frame: pd.DataFrame, rows: pd.DataFrame, task: Task) -> pd.DataFrame:
    """After the path: `true`, or for attributes `true_<name>` (1, 0, or nothing where it is not known)."""
    truth = rows[list(task.classes)].astype("Int8") if task.multilabel else rows[["label"]].astype(str)
    names = [f"true_{name}" for name in task.classes] if task.multilabel else ["true"]
    truth = truth.set_axis(names, axis=1).reset_index(drop=True)
    return pd.concat([frame[["path"]], truth, frame.drop(columns="path")], axis=1)


def _calibration(
    model: Classifier, scores: torch.Tensor, truth: torch.Tensor, options: EvaluateOptions, split: str
) -> dict[str, Any]:
    """The calibration error, before the temperature too; and the requested threshold, where one reaches it."""
    probability, label = (part.numpy() for part in model.task.flatten_labels(scores, truth))
    metrics: dict[str, Any] = calibration.metrics(probability, label)
    if model.temperature != 1:
        raw = calibration.metrics(calibration.tempered(probability, 1 / model.temperature), label)
        metrics |= {f"{name}_uncalibrated": value for name, value in raw.items()} | {"temperature": model.temperature}
    for name in ("precision", "recall"):
        value = getattr(options, name)
        if value is None:
            continue
        reached = calibration.threshold(probability[:, -1], label == 1, **{name: value})
        if reached is None:
            log.warning("%s: no threshold reaches evaluate.%s=%s", split.capitalize(), name, value)
        else:
            metrics |= reached
            log.info("%s: %s", split.capitalize(), result_sentences.describe_threshold(reached, model.task.classes[-1]))
    return metrics


def _slices(
    task: Task, data: FaceData, split: str, options: EvaluateOptions, scores: torch.Tensor, truth: torch.Tensor
) -> pd.DataFrame:
    """The slices that `evaluate.slices` asks for, and those of `evaluate.leakage`."""
    columns = None if options.slices is None else [*options.slices, *(["in_train"] if options.leakage else [])]
    if columns == []:
        return pd.DataFrame()
    positions = data.rows(split)
    rows = data.table.iloc[positions].reset_index(drop=True)
    if columns is None or set(columns) & set(slices.MEASURED):
        with optional("What the images look like"):
            pixels = (batch.inputs.permute(0, 2, 3, 1).numpy() for batch in data.pixel_batches(positions))
            measured = slices.measure(pixels, [data.paths[row] for row in positions])
            rows = rows.join(measured[[name for name in measured if name not in rows]])
    return slices.slices(slices.cuts_of(rows, columns), task, scores, truth)


def _log_slices(slices: pd.DataFrame, split: str) -> None:
    """The worst slice, and the accuracy on leaked images where those are a slice."""
    log.info("%s: %s", split.capitalize(), result_sentences.describe_slices(slices))
    if len(slices) and (slices["column"] == "in_train").any():
        log.info("%s: %s", split.capitalize(), result_sentences.describe_leakage(slices))
