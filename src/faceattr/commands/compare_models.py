"""`compare=…` of evaluate.py: a second model on the same images, and whether one of the two is right more often."""

import logging
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from omegaconf import DictConfig

from faceattr.commands.build_from_config import (
    create_data,
    evaluation_settings,
    spec_from_checkpoint,
    trainer_settings,
)
from faceattr.commands.evaluate_split import evaluate_split, explain_images, people
from faceattr.commands.images_to_evaluate import rows_of_splits
from faceattr.data import table
from faceattr.data.datamodule import FaceData
from faceattr.errors import FaceattrError
from faceattr.message_text import counted, listed
from faceattr.metrics import intervals
from faceattr.report import result_sentences
from faceattr.report.sections import SplitResult
from faceattr.training import checkpoint_format
from faceattr.training.lightning_module import Classifier

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Comparison:
    """`result` of the second model on the same images; `metrics` is comparison.json."""

    result: SplitResult
    data: FaceData
    metrics: dict[str, Any]
    disagreements: pd.DataFrame


def load_rival(cfg: DictConfig, model: Classifier, description: dict[str, Any]) -> tuple[Classifier, bool]:
    """The classifier in `compare`, and whether it was trained on the same data. Refused where it tells other classes apart."""
    try:
        rival, other = checkpoint_format.load(cfg.compare)
    except FaceattrError as error:
        raise FaceattrError(str(error).replace("ckpt=", "compare=", 1).partition(" To start from")[0]) from error
    rival_classes, classes = (listed(m.task.classes) for m in (rival, model))
    if (rival.task.multilabel, set(rival.task.classes)) != (model.task.multilabel, set(model.task.classes)):
        raise FaceattrError(f"compare={cfg.compare} tells apart {rival_classes}; ckpt={cfg.ckpt} {classes}.")
    if not (same_data := other["fingerprint"] == description["fingerprint"]):
        log.warning("compare was trained on other data than ckpt (or another split): it may have seen these images")
    return rival, same_data


def data_of_rival(
    cfg: DictConfig,
    rival: Classifier,
    model: Classifier,
    prepared: pd.DataFrame,
    data: FaceData,
    split: str,
    *,
    same_data: bool,
) -> FaceData:
    """The images as the second model takes them: its own crops, or those of the command line where it asks for others. `data`
    loses the images of the split that the second model's data lack, such as those without a face.

    same_data: its training stored what it takes of the whole table. Else only the split is decoded.
    """
    spec = spec_from_checkpoint(cfg, rival.spec) if data.spec.faces != model.spec.faces else rival.spec
    if not same_data or spec != rival.spec:
        prepared = rows_of_splits(prepared, split)
    same = create_data(cfg, table.with_classes(prepared, list(rival.task.classes)), spec)
    evaluated = data.rows(split)
    missing = evaluated[~data.table["path"].iloc[evaluated].isin(same.table["path"])]
    if len(missing):
        log.warning("Left out %s: the model in compare=… takes none (faces.on_none)", counted(len(missing), "image"))
        data.leave_out(missing)
    return same


def compare_models(
    cfg: DictConfig, rival: Classifier, same: FaceData, data: FaceData, first: SplitResult, *, images: bool
) -> Comparison:
    """Evaluate `rival` on the same images as `first`, and compare the accuracies of the two models."""
    same.leave_out(np.flatnonzero(~same.table["path"].isin(data.table["path"])))  # as `data` was audited
    if "in_train" in data.table:
        same.table["in_train"] = same.table["path"].map(data.table.set_index("path")["in_train"])
    second = evaluate_split(rival, same, first.split, trainer_settings(cfg), evaluation_settings(cfg))
    second = explain_images(second, rival, same) if images else second
    log.info("Compared: %s", result_sentences.describe_metrics(second.metrics))
    correct, other_correct = (
        result.task.correct(torch.from_numpy(result.scores), torch.from_numpy(result.truth)).numpy()[None]
        for result in (first, second)
    )
    pair = intervals.paired_difference(correct, other_correct, people(same.table.iloc[same.rows(first.split)]))
    log.info("%s", result_sentences.describe_pair(pair, multilabel=first.task.multilabel))
    metrics = {"ckpt": cfg.ckpt, "compare": cfg.compare, "split": first.split, "multilabel": first.task.multilabel}
    shared = [name for name in first.predictions if name == "path" or str(name).startswith("true")]
    both = first.predictions.merge(second.predictions, on=shared, suffixes=("", "_compared"))
    return Comparison(second, same, metrics | asdict(pair), both[both["predicted"] != both["predicted_compared"]])
