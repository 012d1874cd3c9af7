"""Evaluating a checkpoint, alone or compared with another one."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
from faceattr.commands.compare_models import Comparison, compare_models, data_of_rival, load_rival
from faceattr.commands.evaluate_split import (
    calibrate,
    check_evaluation,
    draw_split,
    evaluate_split,
    explain_images,
    write_split,
)
from faceattr.commands.images_to_evaluate import (
    SAME_IMAGES,
    chosen_split,
    data_keys_given,
    read_evaluated_table,
    rows_of_splits,
    warn_of_changed_data,
)
from faceattr.commands.leak_policy import audit_evaluation, audit_other_data
from faceattr.config.validate_keys import validate
from faceattr.data import table
from faceattr.data.datamodule import FaceData
from faceattr.data.load_table import ModelClasses
from faceattr.data.out_of_distribution import statistics_of_split
from faceattr.errors import FaceattrError, optional
from faceattr.files import write_csv, write_json
from faceattr.metrics import slices
from faceattr.report import result_sentences, run_report
from faceattr.report.sections import SplitResult
from faceattr.training import checkpoint_format
from faceattr.training.inference_torch import probabilities
from faceattr.training.lightning_module import Classifier
from faceattr.training.run_json import describe_machine

log = logging.getLogger(__name__)


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
    model, description = checkpoint_format.load(cfg.ckpt)
    options = evaluation_settings(cfg)
    check_evaluation(options, model.task)
    if not own_data and options.calibrate:
        raise FaceattrError(
            "evaluate.calibrate=true takes the validation images of the run's own data: leave out data=…"
        )
    rival, same_data = load_rival(cfg, model, description) if cfg.compare else (None, False)
    classes = ModelClasses(model.task.classes, model.task.multilabel)
    prepared, own_data = read_evaluated_table(cfg, classes, description, own_data, calibrate=options.calibrate)
    split = chosen_split(cfg.split, prepared, own_data)
    slices.check(prepared, options.slices)
    spec = spec_from_checkpoint(cfg, model.spec)
    if own_data:
        warn_of_changed_data(prepared, description)
    audited = own_data and (options.leakage or data_settings(cfg).on_leak == "drop")
    if not audited and not (own_data and spec == model.spec):  # training stored the pixels of its whole table
        prepared = rows_of_splits(prepared, split, *(["val"] if options.calibrate else []))
    data = create_data(cfg, prepared, spec)
    rival_data = data_of_rival(cfg, rival, model, prepared, data, split, same_data=same_data) if rival else None
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
    comparison = compare_models(cfg, rival, rival_data, data, result, images=images) if rival and rival_data else None
    return Evaluation(model, description, data, result, audit, comparison, inputs, own_data)


def _describe_inputs(model: Classifier, data: FaceData, split: str) -> str:
    """How the images of a split differ from the training images; "" where they do not, or where nobody knows."""
    text = ""
    if model.usual_inputs:
        with optional("The comparison with the training images"):
            text = model.usual_inputs.difference(statistics_of_split(data, split))
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
    name = result_sentences.describe_data(cfg.data, data_keys_given(SAME_IMAGES))
    data, result, description = evaluation.data, evaluation.result, evaluation.description
    config, comparison = description["config"], evaluation.comparison
    draw_split(result, data, folder, title=config["name"])
    if comparison:
        draw_split(comparison.result, comparison.data, folder / "compared", title=config["name"])
    stored = {key: description.get(key) for key in ("fingerprint", "weights", "epoch", "temperature")}
    metadata = {"name": config["name"], "ckpt": cfg.ckpt, **describe_machine(command), **stored}
    metadata |= {"leakage": evaluation.audit, "data": name}
    metadata |= {"inputs": evaluation.inputs} if evaluation.inputs else {}
    metadata |= {"faces": data.found_faces.counts} if data.found_faces else {}
    return run_report.write(
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
