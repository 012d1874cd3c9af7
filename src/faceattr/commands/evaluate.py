"""Judging a checkpoint: the same function serves a run's own test and evaluate.py, so that they cannot disagree."""

import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.callbacks import Callback

from faceattr.config.validate import validate
from faceattr.data import leaks, table
from faceattr.data.datamodule import FaceData
from faceattr.data.load import ModelClasses, load_table
from faceattr.errors import FaceattrError
from faceattr.metrics import accuracy, breakdown, calibration, evaluation, intervals, slices
from faceattr.models.task import Task
from faceattr.report import charts, image_grid, page, sentences
from faceattr.report.sections import SplitResult
from faceattr.training import checkpoint
from faceattr.training.inference import probabilities, to_frame
from faceattr.training.module import Classifier, input_spec, load
from faceattr.training.run_record import describe_machine, write_json

log = logging.getLogger(__name__)


def evaluate_split(
    model: Classifier, data: FaceData, split: str, cfg: DictConfig, folder: Path, *callbacks: Callback
) -> SplitResult:
    """Judges one split's images; writes metrics, predictions, slices, and pictures.

    `cfg` is that of the run or the evaluation: its `trainer` and `evaluate` are used.
    """
    scores, _ = probabilities(model, data.split_dataloader(split), cfg.trainer, *callbacks)
    rows = data.table.iloc[data.rows(split)]
    truth = torch.from_numpy(table.targets(rows))
    found = evaluation.evaluate(model.task, scores, truth)
    found |= evaluation.intervals_of(found, model.task, scores, truth, _groups(rows))
    if any(entry["metric"] == "published_map" for entry in model.cfg.get("published") or ()):
        found["published_map"] = accuracy.published_map(scores, truth)
    decided, decisions = (part.numpy() for part in model.task.flatten_labels(scores, truth))
    found |= _calibration(model, decided, decisions, cfg, split)
    frame = _with_truth(to_frame(rows["path"], model.task, scores), rows, model.task)
    frame.to_csv(folder / f"predictions_{split}.csv", index=False)
    write_json(folder / f"{split}_metrics.json", found)
    title = f"{model.cfg.name}: {split} images"
    if model.task.multilabel:
        breakdown.attributes(found, model.task).to_csv(folder / f"attributes_{split}.csv", index=False)
    else:
        counts = breakdown.confusion(model.task, scores, truth)
        charts.confusion(counts, model.task.classes, folder / f"confusion_{split}.png", title=title)
    files = [data.paths[row] for row in data.rows(split)]
    cuts = pd.DataFrame()
    wanted = cfg.evaluate.slices if cfg.evaluate.slices is None else list(cfg.evaluate.slices)
    if wanted is not None and cfg.evaluate.leakage:
        wanted.append("in_train")
    if wanted is None or wanted:
        cuts = _slice(model, data, split, files, scores, truth, wanted, folder)
    image_grid.gallery(frame, files, data.spec, folder / f"gallery_{split}.png", title=title)
    tiles = image_grid.tiles(
        model.task.classes, scores.numpy(), truth.numpy(), rows["path"].tolist(), files, data.spec, model.explain
    )
    return SplitResult(split, model.task, found, scores.numpy(), truth.numpy(), cuts, tiles)


def _with_truth(frame: pd.DataFrame, rows: pd.DataFrame, task: Task) -> pd.DataFrame:
    """After the path: `true`, or for attributes `true_<name>` (1, 0, or nothing where it is not known)."""
    truth = rows[list(task.classes)].astype("Int8") if task.multilabel else rows[["label"]].astype(str)
    names = [f"true_{name}" for name in task.classes] if task.multilabel else ["true"]
    truth = truth.set_axis(names, axis=1).reset_index(drop=True)
    return pd.concat([frame[["path"]], truth, frame.drop(columns="path")], axis=1)


def _calibration(
    model: Classifier, scores: np.ndarray, truth: np.ndarray, cfg: DictConfig, split: str
) -> dict[str, Any]:
    """How far the probabilities are off, before the temperature too; and the wished threshold, where one reaches it."""
    found: dict[str, Any] = calibration.metrics(scores, truth)
    if model.temperature != 1:
        plain = calibration.metrics(calibration.tempered(scores, 1 / model.temperature), truth)
        found |= {f"{name}_uncalibrated": value for name, value in plain.items()} | {"temperature": model.temperature}
    for wish in ("precision", "recall"):
        if cfg.evaluate[wish] is None:
            continue
        reached = calibration.threshold(scores[:, -1], truth == 1, **{wish: cfg.evaluate[wish]})
        if reached is None:
            log.warning("%s: no threshold reaches evaluate.%s=%s", split.capitalize(), wish, cfg.evaluate[wish])
        else:
            found |= reached
            log.info("%s: %s", split.capitalize(), sentences.describe_threshold(reached, model.task.classes[-1]))
    return found


def calibrate(model: Classifier, probabilities: np.ndarray, targets: np.ndarray, path: str | Path) -> None:
    """Fit the model's temperature on the probabilities of validation images, as it gives them now; keep it in its checkpoint."""
    decided = model.task.flatten_labels(torch.from_numpy(probabilities), torch.from_numpy(targets))
    scores, truth = (part.numpy() for part in decided)
    change = calibration.fit_temperature(scores, truth)
    before, after = (calibration.metrics(s, truth)["ece"] for s in (scores, calibration.tempered(scores, change)))
    if abs(np.log(change)) > 2.99:
        log.warning(
            "The temperature is at the bound of what is tried: these probabilities say next to nothing, or far too much"
        )
    model.temperature *= change
    checkpoint.describe_further(path, temperature=model.temperature)
    log.info(
        "Temperature %.3f fitted on %d validation %s (calibration error there %.3f, then %.3f); kept in %s",
        *(model.temperature, len(truth), "labels" if model.task.multilabel else "images", before, after, path),
    )


def validate_eval_options(cfg: DictConfig, task: Task) -> None:
    """Raises FaceattrError for wishes that this kind of task cannot be given."""
    wished = [name for name in ("precision", "recall") if cfg.evaluate[name] is not None]
    if wished and task.kind != "binary":
        held = "attributes" if task.multilabel else len(task.classes)
        raise FaceattrError(f"evaluate.{wished[0]} needs two classes; there are {held}.")
    if len(wished) == 2:
        raise FaceattrError("evaluate.precision and evaluate.recall exclude each other: set one of them to null.")
    if cfg.evaluate.calibrate and task.loss == "one_vs_rest":
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
) -> pd.DataFrame:
    """Writes slices_<split>.csv; returns it."""
    rows = data.table.iloc[data.rows(split)].reset_index(drop=True)
    if wanted is None or set(wanted) & set(slices.MEASURED):
        pixels = (batch.inputs.permute(0, 2, 3, 1).numpy() for batch in data.in_order(data.rows(split)))
        measured = slices.measure(pixels, files)
        rows = rows.join(measured[[name for name in measured if name not in rows]])
    table = slices.slices(slices.cuts_of(rows, wanted), model.task, scores, truth)
    table.to_csv(folder / f"slices_{split}.csv", index=False)
    log.info("%s: %s", split.capitalize(), sentences.describe_slices(table))
    if "in_train" in rows:
        log.info("%s: %s", split.capitalize(), sentences.describe_leakage(table))
    return table


def _groups(rows: pd.DataFrame) -> list[str] | None:
    """Whom each image shows, where that is known; one that is of nobody known is a group of its own."""
    who = table.identities(rows)
    return None if who is None else who.fillna(rows["path"]).astype(str).tolist()


def evaluate(cfg: DictConfig, command: str | None = None) -> dict[str, Any]:
    """What evaluate.py runs: the checkpoint on the images it was tested on, another split, or other data. Returns its metrics.

    `command` is shown in the report as what to type for the same again; None is this process's command line.
    """
    own_data = HydraConfig.get().runtime.choices.data == "from_checkpoint"
    cfg = validate(cfg)
    model, described = load(cfg.ckpt)
    validate_eval_options(cfg, model.task)
    if cfg.evaluate.calibrate and not own_data:
        raise FaceattrError(
            "evaluate.calibrate=true takes the validation images of the run's own data: leave out data=…"
        )
    if cfg.evaluate.leakage and not own_data:
        raise FaceattrError("evaluate.leakage=true looks for the training images: leave out data=…")
    rival = _rival(cfg, model, described) if cfg.compare else None
    prepared = load_table(
        cfg.data, model_classes=ModelClasses(model.task.classes, model.task.multilabel), splits=own_data
    )
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
    audited: dict[str, Any] = {}
    drop = cfg.data.get("on_leak") == "drop"
    if own_data and (cfg.evaluate.leakage or drop):
        every = FaceData(prepared, cfg.data, input_spec(model.cfg))
        leakage = leaks.find(every)
        audited = {"text": leaks.describe(leakage)} | leaks.apply_leak_policy(
            every, leakage, drop=drop, cut=cfg.evaluate.leakage
        )
        prepared = every.table
    if split != "all":
        prepared = prepared[prepared["split"] == split].reset_index(drop=True)
    data = FaceData(prepared, cfg.data, input_spec(model.cfg))
    folder = Path(HydraConfig.get().runtime.output_dir)
    if len(data.bad_images):
        data.bad_images.to_csv(folder / "bad_images.csv", index=False)
    judged = evaluate_split(model, data, split, cfg, folder)
    weights = described.get("weights", "")
    if weights.startswith("random") and model.cfg.model.pretrained == "auto":
        log.warning("This model started from random weights: %s", weights)
    log.info("%s %s", split.capitalize(), sentences.describe_metrics(judged.metrics))
    comparison = compare(cfg, rival, prepared, judged, folder) if rival else None
    kept = {key: described.get(key) for key in ("fingerprint", "weights", "epoch", "temperature")}
    about = {"name": model.cfg.name, "ckpt": cfg.ckpt, **describe_machine(command), **kept, "leakage": audited}
    title, yaml = f"{model.cfg.name}, evaluated", OmegaConf.to_yaml(model.cfg)
    written = page.write(
        folder,
        title=title,
        metadata=about,
        config=yaml,
        results=[judged],
        table=data.table,
        audit=audited or None,
        comparison=comparison,
    )
    log.info("Results: %s", written)
    return dict(judged.metrics)


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
    data = FaceData(rows, cfg.data, input_spec(model.cfg))
    scores, _ = probabilities(model, data.split_dataloader("val"), cfg.trainer)
    calibrate(model, scores.numpy(), table.targets(data.table), cfg.ckpt)


def _rival(cfg: DictConfig, model: Classifier, described: dict[str, Any]) -> Classifier:
    """The classifier in `compare`: refused where it tells other classes apart."""
    try:
        rival, other = load(cfg.compare)
    except FaceattrError as error:
        raise FaceattrError(str(error).replace("ckpt=", "compare=", 1).partition(" To start from")[0]) from error
    theirs, ours = (", ".join(m.task.classes) for m in (rival, model))
    if (rival.task.multilabel, set(rival.task.classes)) != (model.task.multilabel, set(model.task.classes)):
        raise FaceattrError(f"compare={cfg.compare} tells apart {theirs}; ckpt={cfg.ckpt} {ours}.")
    if other["fingerprint"] != described["fingerprint"]:
        log.warning("compare was trained on other data than ckpt (or another split): it may have seen these images")
    return rival


def compare(
    cfg: DictConfig, rival: Classifier, prepared: pd.DataFrame, first: SplitResult, folder: Path
) -> dict[str, Any]:
    """Evaluates `rival` on the same images; returns the difference in accuracy as comparison.json has it.

    Writes comparison.json and disagreements.csv; what the rival's own evaluation leaves goes to `compared/`.
    """
    (folder / "compared").mkdir(exist_ok=True)
    same = table.with_classes(prepared, list(rival.task.classes))
    data = FaceData(same, cfg.data, input_spec(rival.cfg))
    second = evaluate_split(rival, data, first.split, cfg, folder / "compared")
    log.info("Compared: %s", sentences.describe_metrics(second.metrics))
    right, other_right = (
        judged.task.correct(torch.from_numpy(judged.scores), torch.from_numpy(judged.truth)).numpy()[None]
        for judged in (first, second)
    )
    pair = intervals.paired(right, other_right, _groups(data.table.iloc[data.rows(first.split)]))
    named = {"ckpt": cfg.ckpt, "compare": cfg.compare, "split": first.split, "multilabel": first.task.multilabel}
    comparison = named | asdict(pair)
    write_json(folder / "comparison.json", comparison)
    ours, theirs = (
        pd.read_csv(where / f"predictions_{first.split}.csv", keep_default_na=False)
        for where in (folder, folder / "compared")
    )
    shared = [name for name in ours if name == "path" or str(name).startswith("true")]
    both = ours.merge(theirs, on=shared, suffixes=("", "_compared"))
    both[both["predicted"] != both["predicted_compared"]].to_csv(folder / "disagreements.csv", index=False)
    log.info("%s", sentences.describe_pair(pair, multilabel=first.task.multilabel))
    return comparison
