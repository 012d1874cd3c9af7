"""A training run, top to bottom: table, network, weights, pixels, trainer, fit, evaluation."""

import logging
import os
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytorch_lightning as pl
import torch.distributed as dist
from omegaconf import DictConfig
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import Logger

from faceattr.commands.build_from_config import (
    create_classifier,
    create_data,
    create_feature_cache,
    create_network,
    create_policy,
    create_task,
    data_settings,
    evaluation_settings,
    plain,
    read_table,
    reason_without_feature_cache,
    trainer_settings,
)
from faceattr.commands.ddp_processes import workers_end_with
from faceattr.commands.evaluate_after_training import TrainedRun, evaluate_run, log_results, write_curves, write_report
from faceattr.commands.evaluate_split import check_evaluation
from faceattr.commands.initial_weights import initial_weights
from faceattr.commands.leak_policy import audit_training
from faceattr.commands.resume import finished_run, resumed_weights
from faceattr.config.instantiate import instantiate
from faceattr.data import out_of_distribution, table, training_hashes
from faceattr.data.datamodule import FaceData
from faceattr.errors import FaceattrError, optional
from faceattr.files import write_csv
from faceattr.message_text import counted
from faceattr.metrics import registry, slices
from faceattr.models import freezing
from faceattr.models.pretrained import check_weights
from faceattr.models.task import Task
from faceattr.training import checkpoint_format, failing_loggers, wandb_mlflow
from faceattr.training.callbacks import Checkpoints, History, Patience
from faceattr.training.class_weights import check_class_weights, class_weights
from faceattr.training.compiled_step import compile_steps
from faceattr.training.feature_cache import NOTHING_CONSTANT, FeatureCache
from faceattr.training.lightning_module import Classifier
from faceattr.training.run_json import RunRecord, describe_machine
from faceattr.training.trainer import (
    build_trainer,
    describe_device,
    flush_denormals,
    resolve_deterministic,
    resolve_precision,
)

log = logging.getLogger(__name__)

STORED = ("fingerprint", "classes", "weights", "pretrained_stages")
"""Of the checkpoint's description, what run.json has too."""


def run_training(cfg: DictConfig, folder: Path, record: RunRecord, command: str | None = None) -> TrainedRun | None:
    """Trains as a validated config says, and evaluates, without Hydra. Returns None in DDP worker processes.

    `command`: the command that repeats this run, for run.json; None is this process's command line.
    """
    stored = checkpoint_format.read_description(cfg.ckpt) if cfg.ckpt else None
    if stored:
        cfg.quirks, cfg.published = (stored["config"].get(key, []) for key in ("quirks", "published"))
        if finished := finished_run(cfg, stored, folder):
            return finished
    start_process(cfg.seed)
    prepared, task = _table_and_task(cfg)
    network = create_network(cfg, task)
    create_policy(cfg, network)
    fingerprint = table.fingerprint(prepared)
    weights = resumed_weights(cfg, stored, task, fingerprint, folder) if stored else initial_weights(cfg, network)
    if stored:
        record.resume()
    else:
        record.fields["weights_warning"] = weights.warning
    data = create_data(cfg, prepared)
    leakage, hashes = audit_training(data, slice_leaks=cfg.evaluate.leakage)
    record.fields["leakage"] = {key: value for key, value in leakage.items() if key != "text"}
    table.check_splits(data.table)
    truth = table.targets(data.table)[data.rows("train")]
    factors = class_weights(truth, task, data.settings)
    model = create_classifier(cfg, task, network=network, pretrained_stages=weights.stages, class_weights=factors)
    caches = _feature_caches(cfg, model, data, record)
    inputs = None
    with optional("What training images look like"):
        inputs = out_of_distribution.fit_to(data)
    description = checkpoint_format.describe(
        plain(cfg),
        task,
        fingerprint=fingerprint,
        weights=weights.source,
        pretrained_stages=weights.stages,
        detector=data.spec.faces.detector,
        inputs=inputs,
    )
    history = History(folder / "metrics.csv")
    checkpoints = Checkpoints(folder / "checkpoints", cfg.trainer.monitor)
    trainer = _create_trainer(cfg, description, history, checkpoints, *caches)
    log.info("%s", freezing.stage_table(network, model.policy, cfg.optim.lr).to_string(index=False))
    fields = (
        describe_machine(command) | _describe_run(cfg, data, model, trainer) | {key: description[key] for key in STORED}
    )
    record.begin(fields, write=trainer.is_global_zero)
    if trainer.is_global_zero:
        _write_table(data, folder)
        if hashes is not None:
            training_hashes.write(hashes, folder / "checkpoints")
    failing_loggers.go_on_without(trainer.loggers, record.fields)
    with workers_end_with(record):
        _fit(cfg, model, data, trainer)
    record.fields["compile"] = model.compiled
    if not _first_process():
        return None
    run = _finish(cfg, data, history, checkpoints.file(cfg.trainer.checkpoint), record, leakage, weights.random, caches)
    files = [folder / "report.html", folder / "run.json", run.ckpt]
    wandb_mlflow.log_results(trainer.loggers, run.metrics, files, record.fields)
    if failing_loggers.KEY in record.fields:
        record.write()
    return run


def start_process(seed: int) -> None:
    """Seeds and settings of this process, and of a DDP run's others, which are quiet."""
    if not _first_process():
        logging.disable(logging.INFO)
    flush_denormals()
    pl.seed_everything(seed, workers=True, verbose=False)


def _first_process() -> bool:
    return os.environ.get("LOCAL_RANK", "0") == "0"


def _table_and_task(cfg: DictConfig) -> tuple[pd.DataFrame, Task]:
    """The table and its task, when all keys that depend on them are checked."""
    registry.check_monitor(cfg.trainer.monitor)
    if not cfg.ckpt:  # a resumed run has its weights in its checkpoint
        check_weights(cfg.model.weights)
    prepared = read_table(cfg)
    slices.check(prepared, cfg.evaluate.slices)
    task = create_task(cfg, prepared)
    registry.check_monitor(cfg.trainer.monitor, task)
    check_class_weights(data_settings(cfg), task)
    check_evaluation(evaluation_settings(cfg), task)
    return prepared, task


def _feature_caches(cfg: DictConfig, model: Classifier, data: FaceData, record: RunRecord) -> list[FeatureCache]:
    """The callback that serves the frozen stages' output, where this run has one; run.json says so, or why not."""
    reason = reason_without_feature_cache(cfg, model)
    if reason is not None:
        record.fields["feature_cache"] = reason
        if reason != NOTHING_CONSTANT:
            log.info("The output of frozen stages is not stored: %s", reason)
        return []
    cache = create_feature_cache(cfg, model, data)
    record.fields["feature_cache"] = cache.stored_arrays
    return [cache]


def _create_trainer(
    cfg: DictConfig, description: dict[str, Any], history: History, checkpoints: Checkpoints, *more: Callback
) -> pl.Trainer:
    settings = trainer_settings(cfg)
    logger = _create_logger(plain(cfg)) if cfg.logger else False
    callbacks: list[Callback] = [history, checkpoints, *more]
    if settings.patience is not None:
        mode = registry.monitors()[settings.monitor]
        callbacks.append(Patience(settings.monitor, patience=settings.patience, mode=mode))
    limit: dict[str, Any] = {"limit_train_batches": settings.limit_batches, "limit_val_batches": settings.limit_batches}
    return build_trainer(
        settings,
        logger=logger,
        callbacks=callbacks,
        plugins=[checkpoint_format.AtomicCheckpointIO(description)],
        max_epochs=max(settings.max_epochs, _epochs_done(cfg)),
        gradient_clip_val=settings.gradient_clip,
        num_sanity_val_steps=0,
        log_every_n_steps=50,
        enable_progress_bar=sys.stderr.isatty(),
        **(limit if settings.limit_batches else {}),
    )


def _create_logger(config: dict[str, Any]) -> Logger:
    """Raises FaceattrError where its library refuses, or its server does not answer. Later errors: failing_loggers."""
    try:
        logger: Logger = instantiate(config["logger"], "logger")
        wandb_mlflow.begin(logger, config)
    except FaceattrError:
        raise
    except Exception as error:
        raise FaceattrError(f"logger ({config['logger']['_target_']}): {str(error).partition(chr(10))[0]}") from error
    return logger


def _epochs_done(cfg: DictConfig) -> int:
    """How many epochs the resumed run has; logged where `trainer.max_epochs` asks for no more. 0 for a new run."""
    done = checkpoint_format.epochs_done(cfg.ckpt) if cfg.ckpt else 0
    if done >= cfg.trainer.max_epochs:
        log.warning(
            "trainer.max_epochs=%d: %s trained already; no more are. trainer.max_epochs=%d would train on",
            *(cfg.trainer.max_epochs, counted(done, "epoch"), done + 1),
        )
    return done


def _describe_run(cfg: DictConfig, data: FaceData, model: Classifier, trainer: pl.Trainer) -> dict[str, Any]:
    """For run.json, and logged, before the first step."""
    counts, settings = table.counts(data.table), trainer_settings(cfg)
    fields = {
        "name": cfg.name,
        "seed": cfg.seed,
        "device": describe_device(trainer),
        "precision": resolve_precision(settings),
        "deterministic": resolve_deterministic(settings),
        **{key: plain(cfg[key]) for key in ("quirks", "published") if cfg[key]},
        "images": {str(split): len(data.rows(str(split))) for split in counts},
        "bad_images": len(data.bad_images),
        **({"bad_labels": len(data.bad_labels)} if len(data.bad_labels) else {}),
        **({"labels": data.table.attrs["notes"]} if data.table.attrs.get("notes") else {}),
        **({"faces": data.found_faces.counts} if data.found_faces else {}),
        "parameters": freezing.count_parameters(model.network),
    }
    if trainer.is_global_zero:
        log.info("%s", table.shortened(counts).T.to_string())
        log.info("%s, precision %s, seed %d", fields["device"], fields["precision"], cfg.seed)
        if fields["deterministic"] is False:
            log.info("Not bit-reproducible on this device; trainer.deterministic=true is (slower)")
        for quirk in cfg.quirks:
            log.info("Quirk: %s", quirk)
    return fields


def _write_table(data: FaceData, folder: Path) -> None:
    write_csv(folder / "table.csv", data.table)
    if len(data.bad_images):
        write_csv(folder / "bad_images.csv", data.bad_images)
    if len(data.bad_labels):
        write_csv(folder / "bad_labels.csv", data.bad_labels)
    if data.found_faces:
        write_csv(folder / "faces.csv", data.found_faces.table())


def _fit(cfg: DictConfig, model: Classifier, data: FaceData, trainer: pl.Trainer) -> None:
    compile_steps(model, str(cfg.trainer.compile).lower(), cfg.data.batch_size)
    try:
        trainer.fit(model, datamodule=data, ckpt_path=cfg.ckpt, weights_only=True)
    except Exception as error:
        if not type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
            raise
        raise FaceattrError(f"trainer.compile={cfg.trainer.compile} fails: {str(error).splitlines()[0]}") from error
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def _finish(
    cfg: DictConfig,
    data: FaceData,
    history: History,
    ckpt: Path,
    record: RunRecord,
    leakage: dict[str, Any],
    random: str | None,
    caches: list[FeatureCache],
) -> TrainedRun:
    """Evaluates the checkpoint that `trainer.checkpoint` names, and writes run.json and the report."""
    folder, epochs = record.file.parent, pd.DataFrame(history.rows)
    history.write()  # a resumed run that trains no epoch may be in a new folder
    new = [FeatureCache(data, views=cache.views, seed=cache.seed) for cache in caches]  # of the evaluated weights
    results = evaluate_run(cfg, data, ckpt, folder, *new)
    record.fields |= {
        f"{cfg.trainer.checkpoint}_epoch": results.epoch,
        "epochs": len(history.rows),
        "images_per_second": history.steady_rate,
    }
    record.fields |= {"placement": data.placement} if data.placement else {}
    record.set_status("finished")
    log_results(results, cfg.published)
    if random:
        log.warning("WARNING: this model started from RANDOM weights. %s", random)
    if cfg.evaluate.report == "full":
        with optional("curves.png"):
            log.info("Curves: %s", write_curves(epochs, results.epoch, folder, title=cfg.name))
        with optional("report.html"):
            log.info("Report: %s", write_report(cfg, data, results, epochs, record.fields, leakage, folder))
    record.write()  # the last file: only a run that has all of them is finished
    log.info("Results: %s", folder)
    return TrainedRun(folder, ckpt, {split: dict(result.metrics) for split, result in results.splits.items()})
