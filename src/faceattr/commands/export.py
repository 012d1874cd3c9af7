"""What export.py runs: a checkpoint becomes a folder that runs without torch, with a proof that it answers alike."""

import logging
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from faceattr.commands import export_proof
from faceattr.commands.build_from_config import create_data, faces_settings, read_table
from faceattr.commands.export_to_hub import check_push, push
from faceattr.commands.images_to_evaluate import warn_of_changed_data
from faceattr.commands.run_folder import content
from faceattr.config.instantiate import group_settings
from faceattr.config.schema import ExportOptions
from faceattr.config.validate_keys import validate
from faceattr.data.faces.crop_recipe import FaceRecipe
from faceattr.data.load_table import ModelClasses
from faceattr.errors import FaceattrError
from faceattr.files import folder_atomically, read_json, write_json
from faceattr.message_text import counted
from faceattr.report.model_card import RunFigures, model_card
from faceattr.training import checkpoint_format
from faceattr.training.exported_folder import INPUT, ONNX, OUTPUT, WEIGHTS, describe_export, write_config
from faceattr.training.inference_onnx import OnnxBackend, create_session
from faceattr.training.lightning_module import Classifier
from faceattr.training.onnx_export import halve, quantize, write_onnx
from faceattr.training.run_json import RunRecord, read_metrics, read_slices
from faceattr.training.safetensors_model import write_weights

log = logging.getLogger(__name__)

CARD, VALIDATION = "README.md", "validation.json"


def export(cfg: DictConfig) -> Path:
    """Writes and proves the exported folder, and pushes it where that is asked for; returns the folder."""
    choices, output = HydraConfig.get().runtime.choices, Path(HydraConfig.get().runtime.output_dir)
    cfg = validate(cfg)
    options = group_settings(cfg.export, ExportOptions)
    if options.half and options.quantize != "none":
        raise FaceattrError(
            "export.half=true and export.quantize=int8 exclude each other: int8 weights are smaller still."
        )
    if options.push:
        check_push(options.push)
    if cfg.out:
        _check_target(Path(cfg.out))
    model, description = checkpoint_format.load(cfg.ckpt)
    folder = Path(cfg.out) if cfg.out else output / description["config"]["name"]
    _check_target(folder)  # the default one too
    _check_own_data(cfg, model, choices.data)
    prepared = read_table(cfg, model_classes=ModelClasses(model.task.classes, model.task.multilabel))
    warn_of_changed_data(prepared, description)
    rows = export_proof.proof_rows(prepared, cfg.seed, calibration=options.quantize != "none")
    reference = export_proof.reference_predictions(model, create_data(cfg, rows, model.spec))
    precision = "int8" if options.quantize != "none" else "float16" if options.half else "float32"
    metadata = describe_export(model, description, precision)
    with folder_atomically(folder) as part:
        validation = _write(model, metadata, reference, options, part)
        write_json(part / VALIDATION, validation)
        text = model_card(metadata, run_figures(Path(cfg.ckpt), description), validation)
        (part / CARD).write_text(text, encoding="utf-8")
    log.info(
        "Proved on %s: largest difference %.2g, %d of %s the same",
        *(
            validation["splits"],
            validation["largest_difference"],
            validation["same_answers"],
            counted(validation["images"], "answer"),
        ),
    )
    log.info("Export: %s", folder)
    if options.push:
        push(folder, options.push)
    return folder


def _check_target(folder: Path) -> None:
    if folder.is_dir() and any(folder.iterdir()):
        raise FaceattrError(
            f"out={folder}: this folder holds {content(folder) or 'other files'}. Give a new folder, or remove this one."
        )
    if folder.exists() and not folder.is_dir():
        raise FaceattrError(f"out={folder}: this is a file. Give a new folder.")


def _check_own_data(cfg: DictConfig, model: Classifier, option: str) -> None:
    """The proof takes the run's own images, cropped as in training."""
    if option != "from_checkpoint":
        raise FaceattrError(
            f"data={option}: an export is proved on the run's own images. data.root=… says where they are now."
        )
    if FaceRecipe.from_config(faces_settings(cfg)) != model.spec.faces:
        raise FaceattrError("faces: an exported model crops faces as in training; only faces.weights can be given.")


def _write(
    model: Classifier,
    metadata: dict[str, Any],
    reference: export_proof.ReferencePredictions,
    options: ExportOptions,
    folder: Path,
) -> dict[str, Any]:
    """model.onnx, model.safetensors and config.json in `folder`, proved; returns validation.json.

    metadata: see `describe_export`.
    """
    precision, file = metadata["precision"], folder / ONNX
    write_onnx(model, file, {"faceattr": {**metadata, "inputs": None}, "versions": _versions()})
    scores, proof = export_proof.prove(_run(file), reference, options.tolerance)
    sizes = {"float32": file.stat().st_size}
    rates = {"float32": export_proof.images_per_second(_run(file, 1), reference)}
    reduced: dict[str, Any] = {}
    if precision != "float32":
        whole = file.rename(folder / "float32.onnx")
        if precision == "float16":
            halve(whole, file)
        else:
            quantize(whole, file, export_proof.pixels(reference.data, reference.data.rows("train")))
        whole.unlink()
        whole_scores, scores = scores, export_proof.answers(_run(file), reference)
        key = "export.half=true" if precision == "float16" else "export.quantize=int8"
        reduced = {"accuracy_change": export_proof.check_drop(reference, scores, whole_scores, options.max_drop, key)}
        sizes[precision] = file.stat().st_size
        rates[precision] = export_proof.images_per_second(_run(file, 1), reference)
    timm_keys = write_weights(model, folder / WEIGHTS, half=options.half)
    write_config(folder, metadata, timm_keys, (ONNX, WEIGHTS))
    few = next(export_proof.pixels(reference.data, reference.rows))
    if not np.array_equal(OnnxBackend(folder).probabilities(few), scores[: len(few)]):
        raise FaceattrError(f"Not exported: {folder} answers otherwise than the {ONNX} that was proved.")
    timing = {"onnx_bytes": sizes, "images_per_second_on_one_core": rates, "timed_batch_size": export_proof.TIMED_BATCH}
    compared = export_proof.compare(reference, scores)
    return {"precision": precision, **compared, **proof, **reduced, **timing, "versions": _versions()}


def _run(file: Path, threads: int = 0) -> Callable[[np.ndarray], np.ndarray]:
    session = create_session(file, str(file), threads=threads)
    return lambda pixels: session.run([OUTPUT], {INPUT: pixels})[0]


def _versions() -> dict[str, str]:
    return {name: version(name) for name in ("torch", "onnx", "onnxscript", "onnxruntime")}


def run_figures(ckpt: Path, description: dict[str, Any]) -> RunFigures:
    """The figures of the run that the checkpoint lies in.

    Empty, with a warning, where the run evaluated another checkpoint.
    """
    folder, config = ckpt.parent.parent, description["config"]
    record = read_json(folder / RunRecord.FILE) if ckpt.parent.name == "checkpoints" else {}
    evaluated = record.get(f"{ckpt.stem}_epoch") == description["epoch"] and record.get("status") == "finished"
    if record.get("fingerprint") != description["fingerprint"] or not evaluated:
        log.warning(
            "The run's files beside %s are not of this checkpoint: the model card has only the proof's figures", ckpt
        )
        return RunFigures(config, description["weights"])
    metrics = read_metrics(folder)
    return RunFigures(
        config,
        description["weights"],
        record=record,
        metrics={split: values for split, values in metrics.items() if values.get("n")},
        slices={
            split: table for split in metrics if (table := read_slices(folder / f"slices_{split}.csv")) is not None
        },
    )
