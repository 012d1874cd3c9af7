"""Judging a checkpoint: the same function serves a run's own test and evaluate.py, so that they cannot disagree."""

import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from pytorch_lightning.callbacks import Callback

from faceattr import calibration, checkpoint, classifier, config, intervals, metrics, predictor, slices, table
from faceattr.classifier import Classifier
from faceattr.data import FaceData, load_table
from faceattr.errors import FaceattrError
from faceattr.report import galleries, plots
from faceattr.run import write_json
from faceattr.targets import Target

log = logging.getLogger(__name__)


def evaluate_split(
    model: Classifier, data: FaceData, split: str, cfg: DictConfig, folder: Path, *callbacks: Callback
) -> tuple[dict[str, Any], pd.DataFrame]:
    """Metrics and predictions of one split's images; writes both, slices, and pictures.

    `cfg` is that of the run or the evaluation: its `trainer` and `evaluate` are used.
    """
    scores, _ = predictor.probabilities(model, data.split_dataloader(split), cfg.trainer, *callbacks)
    rows = data.table.iloc[data.rows(split)]
    truth = torch.tensor(rows["label"].cat.codes.to_numpy(), dtype=torch.int64)
    found = metrics.evaluate(model.target, scores, truth)
    found |= metrics.intervals_of(found, model.target, scores, truth, _groups(rows))
    if any(entry["metric"] == "published_map" for entry in model.cfg.get("published") or ()):
        found["published_map"] = metrics.published_map(scores, truth)
    found |= _calibration(model, scores.numpy(), truth.numpy(), cfg, split)
    frame = predictor.to_frame(rows["path"], model.target.classes, scores)
    frame.insert(1, "true", rows["label"].astype(str).to_numpy())
    frame.to_csv(folder / f"predictions_{split}.csv", index=False)
    write_json(folder / f"{split}_metrics.json", found)
    counts, title = metrics.confusion(model.target, scores, truth).numpy(), f"{model.cfg.name}: {split} images"
    plots.confusion(counts, model.target.classes, folder / f"confusion_{split}.png", title=title)
    bins, kept = (f(scores.numpy(), truth.numpy()) for f in (calibration.reliability, calibration.coverage))
    plots.reliability(bins, kept, folder / f"reliability_{split}.png", title=title, ece=found["ece"])
    files = [data.paths[row] for row in data.rows(split)]
    if cfg.evaluate.slices is None or len(cfg.evaluate.slices):
        _slice(model, data, split, files, scores, truth, cfg.evaluate.slices, folder)
    galleries.gallery(frame, files, data.spec, folder / f"gallery_{split}.png", title=title)
    return found, frame


def _calibration(
    model: Classifier, scores: np.ndarray, truth: np.ndarray, cfg: DictConfig, split: str
) -> dict[str, Any]:
    """How far the probabilities are off, before the temperature too; and the wished threshold, where one reaches it."""
    found: dict[str, Any] = calibration.figures(scores, truth)
    if model.temperature != 1:
        plain = calibration.figures(calibration.tempered(scores, 1 / model.temperature), truth)
        found |= {f"{name}_uncalibrated": value for name, value in plain.items()} | {"temperature": model.temperature}
    for wish in ("precision", "recall"):
        if cfg.evaluate[wish] is None:
            continue
        reached = calibration.threshold(scores[:, -1], truth == 1, **{wish: cfg.evaluate[wish]})
        if reached is None:
            log.warning("%s: no threshold reaches evaluate.%s=%s", split.capitalize(), wish, cfg.evaluate[wish])
        else:
            found |= reached
            log.info("%s: %s", split.capitalize(), calibration.describe_threshold(reached, model.target.classes[-1]))
    return found


def calibrate(model: Classifier, scores: np.ndarray, truth: np.ndarray, path: str | Path) -> None:
    """Fit the model's temperature on the scores of validation images, as it gives them now, and keep it in its checkpoint."""
    change = calibration.fit_temperature(scores, truth)
    before, after = (calibration.figures(s, truth)["ece"] for s in (scores, calibration.tempered(scores, change)))
    model.temperature *= change
    checkpoint.describe_further(path, temperature=model.temperature)
    log.info(
        "Temperature %.3f fitted on %d validation images (calibration error there %.3f, then %.3f); kept in %s",
        *(model.temperature, len(truth), before, after, path),
    )


def refuse_what_cannot_be(cfg: DictConfig, target: Target) -> None:
    """Raises FaceattrError for wishes that this kind of target cannot be given."""
    wished = [name for name in ("precision", "recall") if cfg.evaluate[name] is not None]
    if wished and target.kind != "binary":
        raise FaceattrError(f"evaluate.{wished[0]} needs two classes; there are {len(target.classes)}.")
    if len(wished) == 2:
        raise FaceattrError("evaluate.precision and evaluate.recall exclude each other: set one of them to null.")
    if cfg.evaluate.calibrate and target.loss == "one_vs_rest":
        raise FaceattrError("evaluate.calibrate=true needs probabilities that sum to 1; loss=one_vs_rest gives others.")


def _slice(
    model: Classifier,
    data: FaceData,
    split: str,
    files: list[str],
    scores: torch.Tensor,
    truth: torch.Tensor,
    wanted: list[str] | None,
    folder: Path,
) -> None:
    """Writes slices_<split>.csv and slices_<split>.png."""
    rows = data.table.iloc[data.rows(split)].reset_index(drop=True)
    if wanted is None or set(wanted) & set(slices.MEASURED):
        pixels = (batch[0].permute(0, 2, 3, 1).numpy() for batch in data.in_order(data.rows(split)))
        measured = slices.measure(pixels, files)
        rows = rows.join(measured[[name for name in measured if name not in rows]])
    table = slices.slices(slices.cuts_of(rows, wanted), model.target, scores, truth)
    table.to_csv(folder / f"slices_{split}.csv", index=False)
    plots.slices(table, folder / f"slices_{split}.png", title=f"{model.cfg.name}: {split} images, slices")
    log.info("%s: %s", split.capitalize(), slices.describe(table))


def _groups(rows: pd.DataFrame) -> list[str] | None:
    """Whom each image shows, where that is known; one that is of nobody known is a group of its own."""
    # data.split=random sets a group aside as `identity`
    name = next((name for name in ("group", "identity") if name in rows), None)
    return rows[name].fillna(rows["path"]).astype(str).tolist() if name else None


def evaluate(cfg: DictConfig) -> None:
    """What evaluate.py runs: the checkpoint on the images it was tested on, another split, or other data."""
    own_data = HydraConfig.get().runtime.choices.data == "checkpoint"
    cfg = config.validated(cfg)
    model, described = classifier.load(cfg.ckpt)
    refuse_what_cannot_be(cfg, model.target)
    if cfg.evaluate.calibrate and not own_data:
        raise FaceattrError(
            "evaluate.calibrate=true takes the validation images of the run's own data: leave out data=…"
        )
    rival = _rival(cfg, model, described) if cfg.compare else None
    classes = list(model.target.classes)
    prepared = load_table(cfg.data, classes=classes, splits=own_data)
    split = _chosen_split(cfg.split, prepared, own_data)
    slices.check(prepared, cfg.evaluate.slices)
    if own_data and table.fingerprint(prepared) != described["fingerprint"]:
        log.warning(
            "The data have changed since training (fingerprint %s, then %s): images of this split may have been trained on",
            table.fingerprint(prepared),
            described["fingerprint"],
        )
    if cfg.evaluate.calibrate:
        _calibrate_on_validation(cfg, model, prepared)
    if split != "all":
        prepared = prepared[prepared["split"] == split].reset_index(drop=True)
    data = FaceData(prepared, cfg.data, classifier.input_spec(model.cfg))
    folder = Path(HydraConfig.get().runtime.output_dir)
    if len(data.bad_images):
        data.bad_images.to_csv(folder / "bad_images.csv", index=False)
    found, frame = evaluate_split(model, data, split, cfg, folder)
    weights = described.get("weights", "")
    if weights.startswith("random") and model.cfg.model.pretrained == "auto":
        log.warning("This model started from random weights: %s", weights)
    log.info("%s %s", split.capitalize(), metrics.describe(found))
    if rival:
        compare(cfg, rival, prepared, split, frame, folder)
    log.info("Results: %s", folder)


def _chosen_split(wanted: str, prepared: pd.DataFrame, own_data: bool) -> str:
    there = set(prepared["split"].dropna()) if "split" in prepared else set()
    if wanted == "auto":
        return ("test" if "test" in there else "val") if own_data else "all"
    if wanted != "all" and wanted not in there:
        listed = ", ".join(sorted(there)) or "none"
        raise FaceattrError(f"split={wanted}: no such images in this data. Splits there: {listed}. Or split=all")
    return wanted


def _calibrate_on_validation(cfg: DictConfig, model: Classifier, prepared: pd.DataFrame) -> None:
    rows = prepared[prepared["split"] == "val"].reset_index(drop=True)
    data = FaceData(rows, cfg.data, classifier.input_spec(model.cfg))
    scores, _ = predictor.probabilities(model, data.split_dataloader("val"), cfg.trainer)
    calibrate(model, scores.numpy(), data.table["label"].cat.codes.to_numpy(), cfg.ckpt)


def _rival(cfg: DictConfig, model: Classifier, described: dict[str, Any]) -> Classifier:
    """The classifier in `compare`: refused where it tells other classes apart."""
    try:
        rival, other = classifier.load(cfg.compare)
    except FaceattrError as error:
        raise FaceattrError(str(error).replace("ckpt=", "compare=", 1).partition(" To start from")[0]) from error
    theirs, ours = (", ".join(m.target.classes) for m in (rival, model))
    if set(rival.target.classes) != set(model.target.classes):
        raise FaceattrError(f"compare={cfg.compare} tells apart {theirs}; ckpt={cfg.ckpt} {ours}.")
    if other["fingerprint"] != described["fingerprint"]:
        log.warning("compare was trained on other data than ckpt (or another split): it may have seen these images")
    return rival


def compare(
    cfg: DictConfig, rival: Classifier, prepared: pd.DataFrame, split: str, first: pd.DataFrame, folder: Path
) -> None:
    """Judge `rival` on the same images, and say how much more often the model of the predictions `first` is right.

    Writes comparison.json and disagreements.csv; what the rival's own evaluation leaves goes to `compared/`.
    """
    table = prepared.assign(label=prepared["label"].cat.reorder_categories(list(rival.target.classes)))
    (folder / "compared").mkdir(exist_ok=True)
    data = FaceData(table, cfg.data, classifier.input_spec(rival.cfg))
    found, second = evaluate_split(rival, data, split, cfg, folder / "compared")
    log.info("Compared: %s", metrics.describe(found))
    right, other_right = ((frame["true"] == frame["predicted"]).to_numpy()[None] for frame in (first, second))
    pair = intervals.paired(right, other_right, _groups(data.table.iloc[data.rows(split)]))
    write_json(folder / "comparison.json", {"ckpt": cfg.ckpt, "compare": cfg.compare, "split": split, **asdict(pair)})
    both = first.merge(second, on=["path", "true"], suffixes=("", "_compared"))
    both[both["predicted"] != both["predicted_compared"]].to_csv(folder / "disagreements.csv", index=False)
    log.info("%s", metrics.describe_pair(pair))
