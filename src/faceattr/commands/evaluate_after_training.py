"""The end of a run: its checkpoint is evaluated, and its pictures and its report are written."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.callbacks import Callback

from faceattr.commands.build_from_config import evaluation_settings, trainer_settings
from faceattr.commands.evaluate_split import calibrate, draw_split, evaluate_split, explain_images, write_split
from faceattr.data import table
from faceattr.data.datamodule import FaceData
from faceattr.errors import optional
from faceattr.message_text import MOST_LISTED
from faceattr.report import charts, result_sentences, run_report
from faceattr.report.sections import SplitResult
from faceattr.training import checkpoint_format

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainedRun:
    """What a training run returns. `ckpt` is the checkpoint that was evaluated; `metrics` are those of each split, as in
    <split>_metrics.json.

    `resumed_finished`: the run was finished before, and stays as it was.
    """

    folder: Path
    ckpt: Path
    metrics: dict[str, dict[str, Any]]
    resumed_finished: bool = False


@dataclass(frozen=True)
class RunResults:
    """What a finished run gives: its folder, the checkpoint that was evaluated, the epoch of that, and its results by split."""

    folder: Path
    ckpt: Path
    epoch: int
    splits: dict[str, SplitResult]


def evaluate_run(cfg: DictConfig, data: FaceData, ckpt: Path, folder: Path, *callbacks: Callback) -> RunResults:
    """Evaluates the run's checkpoint on val, test, and the splits of published figures; writes what belongs to each split."""
    model, description = checkpoint_format.load(ckpt)
    options, trainer = evaluation_settings(cfg), trainer_settings(cfg)
    if options.calibrate:
        model.temperature = 1.0  # whatever an evaluation that was interrupted has stored
    published_map = any(entry.metric == "published_map" for entry in cfg.published)
    splits = dict.fromkeys(["val", "test", *(entry.split for entry in cfg.published)])
    results: dict[str, SplitResult] = {}
    for split in splits:
        if not len(data.rows(split)):
            continue
        result = evaluate_split(model, data, split, trainer, options, *callbacks, published_map=published_map)
        write_split(result, folder)
        if options.report == "full":
            result = explain_images(result, model, data)
            draw_split(result, data, folder, title=cfg.name)
        results[split] = result
        if split == "val" and options.calibrate:  # the splits after it are evaluated with the temperature
            calibrate(model, torch.from_numpy(result.scores), torch.from_numpy(result.truth), ckpt)
    return RunResults(folder, ckpt, description["epoch"], results)


def write_report(
    cfg: DictConfig,
    data: FaceData,
    results: RunResults,
    history: pd.DataFrame,
    metadata: dict[str, Any],
    leakage: dict[str, Any],
    folder: Path,
) -> Path:
    """report.html of the run, from values in memory."""
    drawn: dict[str, list[np.ndarray]] = {}
    with optional("The sample of training images"):
        drawn = samples(data, cfg.seed)
    return run_report.write(
        folder,
        title=cfg.name,
        metadata=metadata | {"data": result_sentences.describe_data(cfg.data)},
        config=OmegaConf.to_yaml(cfg),
        history=history,
        results=list(results.splits.values()),
        table=data.table,
        samples=drawn,
        audit=leakage,
        faces=data.found_faces,
        spec=data.spec,
        paths=cfg.report.paths,
    )


def write_curves(history: pd.DataFrame, epoch: int, folder: Path, *, title: str) -> Path:
    """curves.png: loss and accuracy by epoch; returns its path."""
    file = folder / "curves.png"
    charts.curves(history, file, evaluated_epoch=epoch, title=title)
    return file


def log_results(results: RunResults, published: Sequence[Any]) -> None:
    """A line for each split, and for each figure that a study published."""
    for split, result in results.splits.items():
        log.info("%s %s", split.capitalize(), result_sentences.describe_metrics(result.metrics))
    for entry in published:
        metrics = results.splits[entry.split].metrics if entry.split in results.splits else {}
        log.info("Published: %s", result_sentences.describe_published(entry, metrics.get(entry.metric)))


def samples(data: FaceData, seed: int, most: int = 8) -> dict[str, list[np.ndarray]]:
    """Pixels, uint8 [H, W, 3], of a random draw of the training images of each class, or of those with each attribute; of the
    first ten."""
    rng, pixels = np.random.default_rng(seed), {}
    for name, members in islice(table.members(data.table).items(), MOST_LISTED):
        rows = np.intersect1d(np.flatnonzero(members), data.rows("train"))
        drawn = np.sort(rng.permutation(rows)[:most])
        pixels[name] = list(data.pixels(drawn).values())
    return pixels
