"""Judging a checkpoint: the same function serves a run's own test and evaluate.py, so that they cannot disagree."""

import logging
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from pytorch_lightning.callbacks import Callback

from faceattr import classifier, config, metrics, predictor, table
from faceattr.classifier import Classifier
from faceattr.data import FaceData, load_table
from faceattr.errors import FaceattrError
from faceattr.report import galleries, plots
from faceattr.run import write_json

log = logging.getLogger(__name__)


def evaluate_split(
    model: Classifier, data: FaceData, split: str, trainer_cfg: DictConfig, folder: Path, *callbacks: Callback
) -> dict[str, Any]:
    """Metrics of one split's images; writes them (<split>_metrics.json), predictions, and pictures: confusion and gallery."""
    scores, _ = predictor.probabilities(model, data.split_dataloader(split), trainer_cfg, *callbacks)
    rows = data.table.iloc[data.rows(split)]
    truth = torch.tensor(rows["label"].cat.codes.to_numpy(), dtype=torch.int64)
    found = metrics.evaluate(model.target, scores, truth)
    if any(entry["metric"] == "published_map" for entry in model.cfg.get("published") or ()):
        found["published_map"] = metrics.published_map(scores, truth)
    frame = predictor.to_frame(rows["path"], model.target.classes, scores)
    frame.insert(1, "true", rows["label"].astype(str).to_numpy())
    frame.to_csv(folder / f"predictions_{split}.csv", index=False)
    counts, title = metrics.confusion(model.target, scores, truth).numpy(), f"{model.cfg.name}: {split} images"
    plots.confusion(counts, model.target.classes, folder / f"confusion_{split}.png", title=title)
    write_json(folder / f"{split}_metrics.json", found)
    files = [data.paths[row] for row in data.rows(split)]
    galleries.gallery(frame, files, data.spec, folder / f"gallery_{split}.png", title=title)
    return found


def evaluate(cfg: DictConfig) -> None:
    """What evaluate.py runs: the checkpoint on the images it was tested on, another split, or other data."""
    own_data = HydraConfig.get().runtime.choices.data == "checkpoint"
    cfg = config.validated(cfg)
    model, described = classifier.load(cfg.ckpt)
    classes = list(model.target.classes)
    prepared = load_table(cfg.data, classes=classes, splits=own_data)
    split = cfg.split
    if split == "auto":
        split = ("test" if (prepared["split"] == "test").any() else "val") if own_data else "all"
    if split != "all" and ("split" not in prepared or not (prepared["split"] == split).any()):
        there = ", ".join(prepared["split"].unique()) if "split" in prepared else "none"
        raise FaceattrError(f"split={split}: no such images in this data. Splits there: {there}. Or split=all")
    if own_data and table.fingerprint(prepared) != described["fingerprint"]:
        log.warning(
            "The data have changed since training (fingerprint %s, then %s): images of this split may have been trained on",
            table.fingerprint(prepared),
            described["fingerprint"],
        )
    if split != "all":
        prepared = prepared[prepared["split"] == split].reset_index(drop=True)
    data = FaceData(prepared, cfg.data, classifier.input_spec(model.cfg))
    folder = Path(HydraConfig.get().runtime.output_dir)
    if len(data.bad_images):
        data.bad_images.to_csv(folder / "bad_images.csv", index=False)
    found = evaluate_split(model, data, split, cfg.trainer, folder)
    weights = described.get("weights", "")
    if weights.startswith("random") and model.cfg.model.pretrained == "auto":
        log.warning("This model started from random weights: %s", weights)
    log.info("%s %s", split.capitalize(), metrics.describe(found))
    log.info("Results: %s", folder)
