"""Training from a composed config, in one visible order: table, network, pixels, trainer, fit, judgement of the best."""

import json
import logging
import math
import os
import shutil
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytorch_lightning as pl
import torch
import torch.distributed as dist
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.callbacks import Callback, LearningRateMonitor
from pytorch_lightning.utilities.exceptions import SIGTERMException

from faceattr.commands.evaluate import calibrate, evaluate_split, validate_eval_options
from faceattr.config.command_line import typed
from faceattr.config.instantiate import instantiate
from faceattr.config.validate import validate
from faceattr.data import leaks, table
from faceattr.data.datamodule import FaceData
from faceattr.data.load import load_table
from faceattr.errors import FaceattrError
from faceattr.metrics import registry, slices
from faceattr.models import freezing
from faceattr.models.network import Network
from faceattr.models.pretrained import load_weights
from faceattr.models.task import Task
from faceattr.report import charts, page, sentences
from faceattr.training import checkpoint
from faceattr.training.callbacks import Checkpoints, History, Patience
from faceattr.training.fast_step import fast_step
from faceattr.training.feature_cache import FeatureCache, reason_disabled
from faceattr.training.module import Classifier, build_network, build_policy, input_spec, load
from faceattr.training.run_record import describe_machine, write_json
from faceattr.training.trainer import (
    build_trainer,
    describe_device,
    flush_denormals,
    resolve_deterministic,
    resolve_precision,
)

log = logging.getLogger(__name__)


def train(cfg: DictConfig) -> float:
    """What train.py runs; returns the validation accuracy of the best checkpoint, minus infinity for a failed job of a sweep."""
    try:
        run = start(cfg)
    except (KeyboardInterrupt, SystemExit) as stop:
        raise SystemExit(143 if isinstance(stop, SIGTERMException) else 130) from None
    except Exception as error:
        if not _swept():
            raise
        log.error("%s", error if isinstance(error, FaceattrError) else traceback.format_exc())
        return -math.inf  # Optuna's sweeper cannot take nan
    return float(run.metrics["val"]["accuracy"]) if run.metrics else math.nan


def start(cfg: DictConfig, command: str | None = None) -> "Run":
    """A run in the folder of Hydra's job. However it ends, its run.json says how.

    `command` is stored as what to type for the same again; None is this process's command line.
    """
    run = Run(Path(HydraConfig.get().runtime.output_dir), command)
    try:
        run.train(validate(cfg))
    except (KeyboardInterrupt, SystemExit):
        run.ended("interrupted")
        last = run.folder / "checkpoints" / "last.ckpt"
        if last.exists():
            log.warning("Interrupted. To go on: %s", typed("train", f"ckpt={last}"))
        raise
    except Exception as error:
        run.ended("failed", str(error) or type(error).__name__, always=_swept())
        raise
    return run


def _swept() -> bool:
    return HydraConfig.get().mode == RunMode.MULTIRUN


class Run:
    """One training run and its folder; `metrics` by split, and the checkpoint that they belong to, once it is finished."""

    evaluated_checkpoint: Path

    def __init__(self, folder: Path, command: str | None = None) -> None:
        self.folder, self.command = folder, command
        self.began = time.perf_counter()
        self.metrics: dict[str, dict[str, Any]] = {}
        self._random: str | None = None
        self.about: dict[str, Any] = {"status": "running", "overrides": list(HydraConfig.get().overrides.task)}

    def train(self, cfg: DictConfig) -> None:
        """The whole of it, in order; see the module's docstring."""
        best = self.folder / "checkpoints" / "best.ckpt"
        resumed = checkpoint.read_description(cfg.ckpt) if cfg.ckpt else None
        if resumed:
            cfg.quirks, cfg.published = (resumed["config"].get(key, []) for key in ("quirks", "published"))
        first_process = os.environ.get("LOCAL_RANK", "0") == "0"
        if not first_process:
            logging.disable(logging.INFO)
        flush_denormals()
        pl.seed_everything(cfg.seed, workers=True, verbose=False)
        registry.check_monitor(cfg.trainer.monitor)
        prepared = load_table(cfg.data)
        slices.check(prepared, cfg.evaluate.slices)
        kind = {key: prepared.attrs[key] for key in ("ordinal", "multilabel")}
        task = Task.from_config(prepared.attrs["classes"], loss=cfg.loss, **kind)
        registry.check_monitor(cfg.trainer.monitor, task)
        validate_class_weights(cfg, task)
        validate_eval_options(cfg, task)
        network = build_network(cfg, task)
        policy = build_policy(cfg, network)
        stored = {"fingerprint": table.fingerprint(prepared), "classes": list(task.classes)}
        stored["weights"] = self._weights(cfg, network) if resumed is None else self._check_resume(cfg, resumed, stored)
        history, checkpoints = History(self.folder / "metrics.csv"), Checkpoints(best.parent, cfg.trainer.monitor)
        data = FaceData(prepared, cfg.data, input_spec(cfg), cfg.seed)
        self._audit(cfg, data)
        table.check_splits(data.table)
        model = Classifier(cfg, network, task, class_weights(data, task), stored)
        kept = self._kept_prefix(cfg, model, data)
        trainer = self._trainer(cfg, history, checkpoints, *kept)
        log.info("%s", freezing.stage_table(network, policy, cfg.optim.lr).to_string(index=False))
        self._begin(cfg, data, model, trainer, stored)
        model.run_step = fast_step(model, str(cfg.trainer.compile).lower(), cfg.data.batch_size)
        try:
            trainer.fit(model, datamodule=data, ckpt_path=cfg.ckpt, weights_only=True)
        except Exception as error:
            if not type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
                raise
            raise FaceattrError(f"trainer.compile={cfg.trainer.compile} fails: {str(error).splitlines()[0]}") from error
        if dist.is_available() and dist.is_initialized():
            dist.destroy_process_group()
        if first_process:
            self._judge(cfg, data, history, checkpoints, bool(kept))

    def _audit(self, cfg: DictConfig, data: FaceData) -> None:
        """What `data.on_leak` says of copies across splits; and who leaks, as a column that cuts the results."""
        leakage, answer = leaks.find(data), cfg.data.get("on_leak", "warn")
        said, across = leaks.describe(leakage), leaks.summary(leakage)["pairs_across"]
        if across and answer == "error":
            rows = leaks.leaking_training_rows(data.table, leakage)
            raise FaceattrError(
                f"{said}\nTo see them: faceattr leaks with the same keys. "
                f"data.on_leak=drop leaves out the {len(rows):,} training images that have a copy elsewhere, warn goes on."
            )
        log.log(logging.WARNING if across else logging.INFO, "%s", said)
        found = leaks.apply_leak_policy(data, leakage, drop=answer == "drop", cut=cfg.evaluate.leakage)
        if left_out := found["left_out"]:
            log.info("data.on_leak=drop: left out %d training images that have a copy in another split", left_out)
        self.about["leakage"], self._leakage = found, {"text": said} | found

    def _weights(self, cfg: DictConfig, network: Network) -> str:
        wanted = cfg.model.pretrained
        report = load_weights(network, pretrained=wanted, weights=cfg.model.weights, scaling=cfg.model.scaling)
        self._random = report.describe() if report.random and wanted == "auto" else None
        self.about["weights_warning"] = report.warning
        return report.source

    def _check_resume(self, cfg: DictConfig, resumed: dict[str, Any], stored: dict[str, Any]) -> str:
        """Refuse to resume as something else than what was begun; returns where its weights once came from."""
        was = OmegaConf.create(resumed["config"])
        was.finetune.cache = cfg.finetune.cache  # changes no figure
        changed = [key for key in ("model", "finetune", "augment", "optim", "loss", "seed") if was[key] != cfg[key]]
        changed += ["trainer.monitor"] if was.trainer.monitor != cfg.trainer.monitor else []
        changed += [key for key in ("classes", "fingerprint") if resumed[key] != stored[key]]
        answers = {node.data.get("on_leak", "warn") for node in (was, cfg)}
        changed += ["data.on_leak"] if "drop" in answers and len(answers) > 1 else []
        if changed:
            raise FaceattrError(
                f"ckpt={cfg.ckpt}: this is not the same run: {', '.join(changed)} differ from when it was begun.\n"
                "To start a new run from its weights: model.weights=… instead of ckpt=…"
            )
        before = Path(cfg.ckpt).parent / "best.ckpt"
        here = self.folder / "checkpoints" / "best.ckpt"
        if before.exists() and before != here:
            here.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(before, here)
        log.info("Resuming %s", cfg.ckpt)
        if str(resumed["weights"]).startswith("random") and cfg.model.pretrained == "auto":
            self._random = f"Weights: {resumed['weights']}"
            log.warning(self._random)
        if (self.folder / "run.json").exists():
            past = json.loads((self.folder / "run.json").read_text(encoding="utf-8"))
            self.began -= past.get("seconds") or 0
            self.about |= {key: past[key] for key in ("overrides", "weights_warning") if key in past}
        return str(resumed["weights"])

    def _kept_prefix(self, cfg: DictConfig, model: Classifier, data: FaceData) -> list[FeatureCache]:
        reason = reason_disabled(cfg, model.network, model.policy, model.augmentation.active)
        if reason is None:
            kept = FeatureCache(data)
            self.about["kept_prefix"] = kept.about
            return [kept]
        self.about["kept_prefix"] = reason
        log.info("The output of frozen stages is not kept: %s", reason)
        return []

    def _trainer(self, cfg: DictConfig, history: History, checkpoints: Checkpoints, *more: Callback) -> pl.Trainer:
        logger = instantiate(cfg.logger, "logger") if cfg.logger else False
        callbacks: list[Callback] = [history, checkpoints, *more]
        if cfg.trainer.patience is not None:
            monitor = cfg.trainer.monitor
            callbacks.append(Patience(monitor, patience=cfg.trainer.patience, mode=registry.monitors()[monitor]))
        if logger:
            callbacks.append(LearningRateMonitor("epoch"))
        limit = {"limit_train_batches": cfg.trainer.limit_batches, "limit_val_batches": cfg.trainer.limit_batches}
        return build_trainer(
            cfg.trainer,
            logger=logger,
            callbacks=callbacks,
            plugins=[checkpoint.AtomicCheckpointIO()],
            max_epochs=cfg.trainer.max_epochs,
            gradient_clip_val=cfg.trainer.gradient_clip,
            num_sanity_val_steps=0,
            log_every_n_steps=50,
            enable_progress_bar=sys.stderr.isatty(),
            **(limit if cfg.trainer.limit_batches else {}),
        )

    def _begin(
        self, cfg: DictConfig, data: FaceData, model: Classifier, trainer: pl.Trainer, stored: dict[str, Any]
    ) -> None:
        """Say what was decided, and store it, before the first step."""
        counts = table.counts(data.table).T
        self.about |= describe_machine(self.command) | {
            "name": cfg.name,
            "seed": cfg.seed,
            "device": describe_device(trainer),
            "precision": resolve_precision(cfg.trainer),
            "deterministic": resolve_deterministic(cfg.trainer),
            **stored,
            **{key: OmegaConf.to_container(cfg[key]) for key in ("quirks", "published") if cfg[key]},
            "images": {str(split): len(data.rows(str(split))) for split in counts.index},
            "bad_images": len(data.bad_images),
            "parameters": freezing.count_parameters(model.network),
        }
        if not trainer.is_global_zero:
            return
        data.table.to_csv(self.folder / "table.csv", index=False)
        if len(data.bad_images):
            data.bad_images.to_csv(self.folder / "bad_images.csv", index=False)
        log.info("%s", counts.to_string())
        log.info("%s, precision %s, seed %d", self.about["device"], self.about["precision"], cfg.seed)
        if self.about["deterministic"] is False:
            log.info(
                "A run may differ from its repeat in the last digits; trainer.deterministic=true: bit-equal, slower"
            )
        for quirk in cfg.quirks:
            log.info("Quirk: %s", quirk)
        self._write()

    def _judge(self, cfg: DictConfig, data: FaceData, history: History, checkpoints: Checkpoints, keeps: bool) -> None:
        """Metrics, predictions and pictures of the checkpoint that `trainer.checkpoint` names."""
        judged = checkpoints.file(cfg.trainer.checkpoint)
        model, described = load(str(judged))
        epoch = described["epoch"]
        charts.curves(pd.DataFrame(history.rows), self.folder / "curves.png", evaluated_epoch=epoch, title=cfg.name)
        wanted = dict.fromkeys(["val", "test", *(entry.split for entry in cfg.published)])
        splits = [split for split in wanted if len(data.rows(split))]
        kept = [FeatureCache(data)] if keeps else []
        judgements = {}
        for split in splits:
            judgements[split] = evaluate_split(model, data, split, cfg, self.folder, *kept)
            if split == "val" and cfg.evaluate.calibrate:  # what is judged after it has the temperature
                calibrate(model, judgements[split].scores, judgements[split].truth, judged)
        found = {split: dict(judgement.metrics) for split, judgement in judgements.items()}
        self.metrics, self.evaluated_checkpoint = found, judged
        self.about |= {
            f"{cfg.trainer.checkpoint}_epoch": epoch,
            "epochs": len(history.rows),
            "images_per_second": history.steady_rate,
        }
        self.about |= {"placement": data.placement} if data.placement else {}
        self.ended("finished")
        written = page.write(
            self.folder,
            title=cfg.name,
            metadata=self.about,
            config=OmegaConf.to_yaml(cfg),
            history=pd.DataFrame(history.rows),
            results=list(judgements.values()),
            table=data.table,
            samples=samples(data, cfg.seed),
            audit=self._leakage,
        )
        for split, values in found.items():
            log.info("%s %s", split.capitalize(), sentences.describe_metrics(values))
        for entry in cfg.published:
            log.info("Published: %s", sentences.describe_published(entry, found.get(entry.split, {}).get(entry.metric)))
        if self._random:
            log.warning("WARNING: this model started from RANDOM weights. %s", self._random)
        log.info("Curves: %s", self.folder / "curves.png")
        log.info("Report: %s", written)
        log.info("Results: %s", self.folder)

    def ended(self, status: str, error: str | None = None, *, always: bool = False) -> None:
        """Store how the run ended; one that never began (its folder may be another's) writes nothing, unless `always`."""
        self.about |= {"status": status, "error": error, "seconds": round(time.perf_counter() - self.began, 2)}
        if always or "device" in self.about:
            self._write()

    def _write(self) -> None:
        write_json(self.folder / "run.json", self.about)


def samples(data: FaceData, seed: int, most: int = 8) -> dict[str, list[np.ndarray]]:
    """Pixels, uint8 [H, W, 3], of a random draw of the training images of each class, or of those with each attribute."""
    rng, found = np.random.default_rng(seed), {}
    for name, there in table.members(data.table).items():
        rows = np.intersect1d(np.flatnonzero(there), data.rows("train"))
        drawn = np.sort(rng.permutation(rows)[:most])
        found[name] = [image for batch in data.in_order(drawn) for image in batch.inputs.permute(0, 2, 3, 1).numpy()]
    return found


def validate_class_weights(cfg: DictConfig, task: Task) -> None:
    """Raises FaceattrError where `data.balance` or `data.attribute_weights` ask for what this kind of task has not."""
    weights = cfg.data.get("attribute_weights")
    if task.multilabel and cfg.data.balance == "sampler":
        raise FaceattrError("data.balance=sampler draws classes; data.attributes has none. Use data.balance=loss.")
    if weights and not task.multilabel:
        raise FaceattrError("data.attribute_weights needs data.attributes.")
    if wrong := [name for name, factor in (weights or {}).items() if name not in task.classes or factor <= 0]:
        raise FaceattrError(
            f"data.attribute_weights.{wrong[0]}: a factor above 0 for one of {', '.join(task.classes)}."
        )


def class_weights(data: FaceData, task: Task) -> torch.Tensor | None:
    """Factors of the loss as `Task.losses` takes them. `data.balance=loss`: of mean 1 over the training images, inverse to how
    often a class is there, or an attribute and its absence; times `data.attribute_weights`."""
    given = data.cfg.get("attribute_weights") or {}
    factors = torch.tensor([float(given.get(name, 1)) for name in task.classes])
    if data.cfg.balance != "loss":
        return factors.expand(2, -1) if given else None
    truth = torch.from_numpy(table.targets(data.table)[data.rows("train")])
    options = [0, 1] if task.multilabel else range(len(task.classes))
    counts = torch.stack([(truth == option).sum(0) for option in options])
    balanced = counts.sum(0) / (len(options) * counts.clamp_min(1).float())
    return balanced * factors if task.multilabel else balanced
