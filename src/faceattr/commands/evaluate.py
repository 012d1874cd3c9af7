"""Evaluating a checkpoint, alone or compared with another one."""

import logging
from collections.abc import Collection
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from faceattr.commands.build_from_config import (
    create_data,
    data_settings,
    evaluation_settings,
    spec_from_checkpoint,
    trainer_settings,
)
from faceattr.commands.evaluate_split import (
    calibrate,
    check_evaluation,
    draw_split,
    evaluate_split,
    explain_images,
    people,
    write_split,
)
from faceattr.commands.leak_policy import audit_evaluation, audit_other_data
from faceattr.config.instantiate import instantiate
from faceattr.config.key_annotation import parameters
from faceattr.config.schema import Data
from faceattr.config.validate_keys import validate
from faceattr.data import table
from faceattr.data.datamodule import FaceData
from faceattr.data.load_table import ModelClasses, load_table
from faceattr.data.out_of_distribution import describe_split
from faceattr.errors import FaceattrError, optional
from faceattr.files import write_csv, write_json
from faceattr.message_text import counted, listed
from faceattr.metrics import intervals, slices
from faceattr.report import page, result_sentences
from faceattr.report.sections import SplitResult
from faceattr.training import checkpoint
from faceattr.training.inference_torch import probabilities
from faceattr.training.lightning_module import Classifier
from faceattr.training.run_json import describe_machine

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Comparison:
    """`result` of the second model on the same images; `metrics` is comparison.json."""

    result: SplitResult
    data: FaceData
    metrics: dict[str, Any]
    disagreements: pd.DataFrame


@dataclass(frozen=True)
class Evaluation:
    """A checkpoint's `result` on a split of `data`; `audit` holds the leaks that were found, as a sentence under `text`; `inputs`
    says how the images differ from the training images, "" where they do not; `own_data`: those of the checkpoint's own run."""

    model: Classifier
    description: dict[str, Any]
    data: FaceData
    result: SplitResult
    audit: dict[str, Any]
    comparison: Comparison | None = None
    inputs: str = ""
    own_data: bool = True


def evaluate(cfg: DictConfig, command: str | None = None) -> dict[str, Any]:
    """What evaluate.py runs: the checkpoint on the images it was tested on, another split, or other data. Returns its metrics.

    `command`: the command that repeats this evaluation, for the report; None is this process's command line.
    """
    hydra = HydraConfig.get().runtime
    cfg = validate(cfg)
    folder, full = Path(hydra.output_dir), cfg.evaluate.report == "full"
    evaluation = evaluate_checkpoint(cfg, own_data=hydra.choices.data == "from_checkpoint", images=full)
    write_evaluation(evaluation, folder)
    if full:
        with optional("report.html"):
            log.info("Report: %s", write_report(evaluation, cfg, folder, command))
    log.info("Results: %s", folder)
    return dict(evaluation.result.metrics)


def evaluate_checkpoint(cfg: DictConfig, *, own_data: bool, images: bool) -> Evaluation:
    """Evaluates `cfg.ckpt`. The only thing written is the temperature, into the checkpoint, with `evaluate.calibrate=true`.

    `own_data`: `cfg.data` is the data of the checkpoint's own run. `images`: also explain some images with Grad-CAM.
    """
    model, description = checkpoint.load(cfg.ckpt)
    options = evaluation_settings(cfg)
    check_evaluation(options, model.task)
    if not own_data and options.calibrate:
        raise FaceattrError(
            "evaluate.calibrate=true takes the validation images of the run's own data: leave out data=…"
        )
    rival = _load_rival(cfg, model, description) if cfg.compare else None
    classes = ModelClasses(model.task.classes, model.task.multilabel)
    prepared, own_data = _read_table(cfg, classes, description, own_data, calibrate=options.calibrate)
    split = _chosen_split(cfg.split, prepared, own_data)
    slices.check(prepared, options.slices)
    if own_data:
        warn_of_changed_data(prepared, description)
    elif split != "all":  # decode only the images that are evaluated
        prepared = prepared[prepared["split"] == split].reset_index(drop=True)
    data = create_data(cfg, prepared, spec_from_checkpoint(cfg, model.spec))
    rival_data = _data_of_rival(cfg, rival, model, prepared, data) if rival else None
    trainer = trainer_settings(cfg)
    if options.calibrate:
        model.temperature = 1.0
        rows = data.table.iloc[data.rows("val")]
        scores, _ = probabilities(model, data.split_dataloader("val"), trainer)
        calibrate(model, scores, torch.from_numpy(table.targets(rows)), cfg.ckpt)
    if own_data:
        audit = audit_evaluation(data, slice_leaks=options.leakage)
    else:
        audit = audit_other_data(data, Path(cfg.ckpt), slice_leaks=options.leakage)
    published_map = any(entry["metric"] == "published_map" for entry in description["config"].get("published") or ())
    result = evaluate_split(model, data, split, trainer, options, published_map=published_map)
    result = explain_images(result, model, data) if images else result
    inputs = _describe_inputs(model, data, split)
    log.info("%s %s", split.capitalize(), result_sentences.describe_metrics(result.metrics))
    comparison = _compare(cfg, rival, rival_data, data, result, images=images) if rival and rival_data else None
    return Evaluation(model, description, data, result, audit, comparison, inputs, own_data)


def _read_table(
    cfg: DictConfig, classes: ModelClasses, description: dict[str, Any], own_data: bool, *, calibrate: bool
) -> tuple[pd.DataFrame, bool]:
    """The table to evaluate, and whether it is the run's own: keys of the command line may make other data of it, without splits.

    Raises FaceattrError: `calibrate`, and other data.
    """
    loaded, settings = instantiate(cfg.data, "data"), data_settings(cfg)
    shared = set(parameters(Data)) - {"root"}
    splits_asked = cfg.split != "auto"  # only the run's own data have its splits
    given = ", ".join(_data_keys_given(shared)) if own_data and not splits_asked else ""
    if not given:
        return load_table(loaded, settings, model_classes=classes, splits=own_data), own_data
    with suppress(FaceattrError):  # no data that could be trained on: not the run's own
        prepared = load_table(loaded, settings, model_classes=classes)
        if table.fingerprint(prepared) == description["fingerprint"]:
            return prepared, True
    if calibrate:
        raise FaceattrError(f"evaluate.calibrate=true takes the run's own data, which {given} does not give.")
    log.info("%s: other data than the run's, so all images are evaluated (split=… takes one split)", given)
    return load_table(loaded, settings, model_classes=classes, splits=False), False


def _describe_inputs(model: Classifier, data: FaceData, split: str) -> str:
    """How the images of a split differ from the training images; "" where they do not, or where nobody knows."""
    text = ""
    if model.usual_inputs:
        with optional("The comparison with the training images"):
            text = model.usual_inputs.difference(describe_split(data, split))
    if text:
        log.warning("%s", text)
    return text


def write_evaluation(evaluation: Evaluation, folder: Path) -> None:
    """The numbers that evaluate.py leaves in its folder."""
    result, description, comparison = evaluation.result, evaluation.description, evaluation.comparison
    if len(evaluation.data.bad_images):
        write_csv(folder / "bad_images.csv", evaluation.data.bad_images)
    if len(evaluation.data.bad_labels):
        write_csv(folder / "bad_labels.csv", evaluation.data.bad_labels)
    if evaluation.data.found_faces:
        write_csv(folder / "faces.csv", evaluation.data.found_faces.table())
    write_split(result, folder)
    weights = description.get("weights", "")
    if weights.startswith("random") and description["config"]["model"].get("pretrained") == "auto":
        log.warning("This model started with %s", weights)
    if comparison:
        (folder / "compared").mkdir(exist_ok=True)
        write_split(comparison.result, folder / "compared")
        write_json(folder / "comparison.json", comparison.metrics)
        write_csv(folder / "disagreements.csv", comparison.disagreements)


def write_report(evaluation: Evaluation, cfg: DictConfig, folder: Path, command: str | None) -> Path:
    """report.html and the pictures of an evaluation, in the folder of its numbers; returns the report."""
    name = result_sentences.describe_data(cfg.data, _data_keys_given(SAME_IMAGES))
    data, result, description = evaluation.data, evaluation.result, evaluation.description
    config, comparison = description["config"], evaluation.comparison
    draw_split(result, data, folder, title=config["name"])
    if comparison:
        draw_split(comparison.result, comparison.data, folder / "compared", title=config["name"])
    known = {key: description.get(key) for key in ("fingerprint", "weights", "epoch", "temperature")}
    metadata = {"name": config["name"], "ckpt": cfg.ckpt, **describe_machine(command), **known}
    metadata |= {"leakage": evaluation.audit, "data": name}
    metadata |= {"inputs": evaluation.inputs} if evaluation.inputs else {}
    metadata |= {"faces": data.found_faces.counts} if data.found_faces else {}
    return page.write(
        folder,
        title=f"{config['name']} evaluated on {'its own data, ' * evaluation.own_data}{name}: {result.images}",
        metadata=metadata,
        config=OmegaConf.to_yaml(OmegaConf.create(config)),
        results=[result],
        table=data.table.iloc[data.rows(result.split)],
        audit=evaluation.audit or None,
        faces=data.found_faces,
        spec=data.spec,
        comparison=comparison.metrics if comparison else None,
        paths=cfg.report.paths,
    )


SAME_IMAGES = {"root", "batch_size", "workers", "pack", "balance", "attribute_weights"}
"""Keys of `data` that a title leaves out: they do not say which images are taken; the root is in the name."""


def _data_keys_given(besides: Collection[str]) -> list[str]:
    """The arguments `data.…` of the command line, but for these keys."""
    given = [text for text in HydraConfig.get().overrides.task if text.startswith("data.")]
    return [text for text in given if text.partition("=")[0].removeprefix("data.") not in besides]


def warn_of_changed_data(prepared: pd.DataFrame, description: dict[str, Any]) -> None:
    """Where the fingerprint of the data is not that of training."""
    fingerprint = table.fingerprint(prepared)
    if fingerprint != description["fingerprint"]:
        log.warning(
            "The data have changed since training (fingerprint was %s in training, is %s now): "
            "images of this split may have been trained on",
            description["fingerprint"],
            fingerprint,
        )


def _chosen_split(requested: str, prepared: pd.DataFrame, own_data: bool) -> str:
    present = set(prepared["split"].dropna()) if "split" in prepared else set()
    if requested == "auto":
        return ("test" if "test" in present else "val") if own_data else "all"
    if requested != "all" and requested not in present:
        listed = ", ".join(sorted(present)) or "none"
        raise FaceattrError(f"split={requested}: no such images in this data. Splits there: {listed}. Or split=all")
    return requested


def _load_rival(cfg: DictConfig, model: Classifier, description: dict[str, Any]) -> Classifier:
    """The classifier in `compare`: refused where it tells other classes apart."""
    try:
        rival, other = checkpoint.load(cfg.compare)
    except FaceattrError as error:
        raise FaceattrError(str(error).replace("ckpt=", "compare=", 1).partition(" To start from")[0]) from error
    theirs, ours = (listed(m.task.classes) for m in (rival, model))
    if (rival.task.multilabel, set(rival.task.classes)) != (model.task.multilabel, set(model.task.classes)):
        raise FaceattrError(f"compare={cfg.compare} tells apart {theirs}; ckpt={cfg.ckpt} {ours}.")
    if other["fingerprint"] != description["fingerprint"]:
        log.warning("compare was trained on other data than ckpt (or another split): it may have seen these images")
    return rival


def _data_of_rival(
    cfg: DictConfig, rival: Classifier, model: Classifier, prepared: pd.DataFrame, data: FaceData
) -> FaceData:
    """The images as the second model takes them: its own crops, or those of the command line where it asks for others. `data`
    loses the images that the second model's data lack, such as those without a face."""
    spec = spec_from_checkpoint(cfg, rival.spec) if data.spec.faces != model.spec.faces else rival.spec
    same = create_data(cfg, table.with_classes(prepared, list(rival.task.classes)), spec)
    missing = np.flatnonzero(~data.table["path"].isin(same.table["path"]))
    if len(missing):
        log.warning("Left out %s: the model in compare=… takes none (faces.on_none)", counted(len(missing), "image"))
        data.leave_out(missing)
    return same


def _compare(
    cfg: DictConfig, rival: Classifier, same: FaceData, data: FaceData, first: SplitResult, *, images: bool
) -> Comparison:
    """Evaluate `rival` on the same images as `first`, and compare the accuracies of the two models."""
    same.leave_out(np.flatnonzero(~same.table["path"].isin(data.table["path"])))  # as `data` was audited
    if "in_train" in data.table:
        same.table["in_train"] = data.table["in_train"]
    second = evaluate_split(rival, same, first.split, trainer_settings(cfg), evaluation_settings(cfg))
    second = explain_images(second, rival, same) if images else second
    log.info("Compared: %s", result_sentences.describe_metrics(second.metrics))
    correct, other_correct = (
        result.task.correct(torch.from_numpy(result.scores), torch.from_numpy(result.truth)).numpy()[None]
        for result in (first, second)
    )
    pair = intervals.paired(correct, other_correct, people(same.table.iloc[same.rows(first.split)]))
    log.info("%s", result_sentences.describe_pair(pair, multilabel=first.task.multilabel))
    metrics = {"ckpt": cfg.ckpt, "compare": cfg.compare, "split": first.split, "multilabel": first.task.multilabel}
    shared = [name for name in first.predictions if name == "path" or str(name).startswith("true")]
    both = first.predictions.merge(second.predictions, on=shared, suffixes=("", "_compared"))
    return Comparison(second, same, metrics | asdict(pair), both[both["predicted"] != both["predicted_compared"]])
