"""From a composed config to the typed values that the lower packages take: they never see `cfg`."""

import logging
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import pandas as pd
import torch
from omegaconf import DictConfig, OmegaConf

from faceattr.config.instantiate import group_settings, instantiate
from faceattr.config.schema import Augment, Data, EvaluateOptions, Faces, Finetune, Model, Optim, Trainer
from faceattr.data.datamodule import FaceData
from faceattr.data.decode import InputSpec
from faceattr.data.faces.crop_recipe import FaceRecipe
from faceattr.data.load_table import ModelClasses, load_table
from faceattr.errors import FaceattrError
from faceattr.models.freezing import Policy
from faceattr.models.pretrained import resolve_scaling
from faceattr.models.staged_network import Network, build_network
from faceattr.models.task import Task
from faceattr.training.feature_cache import FeatureCache, reason_disabled
from faceattr.training.lightning_module import Classifier, OptimizerSettings
from faceattr.training.trainer import resolve_precision

log = logging.getLogger(__name__)


def plain(cfg: DictConfig) -> Any:
    """The config in plain containers."""
    return OmegaConf.to_container(cfg, resolve=True)


def data_settings(cfg: DictConfig) -> Data:
    return group_settings(cfg.data, Data)


def faces_settings(cfg: DictConfig) -> Faces:
    return group_settings(cfg.faces, Faces)


def finetune_settings(cfg: DictConfig) -> Finetune:
    return group_settings(cfg.finetune, Finetune)


def trainer_settings(cfg: DictConfig) -> Trainer:
    return group_settings(cfg.trainer, Trainer)


def evaluation_settings(cfg: DictConfig) -> EvaluateOptions:
    return group_settings(cfg.evaluate, EvaluateOptions)


def input_spec(cfg: DictConfig) -> InputSpec:
    """Of a training run."""
    return InputSpec.from_config(group_settings(cfg.model, Model), faces_settings(cfg))


def spec_from_checkpoint(cfg: DictConfig, spec: InputSpec) -> InputSpec:
    """The checkpoint's input, its faces cropped as the command line says. Logs where that is not as in training."""
    faces = FaceRecipe.from_config(faces_settings(cfg))
    if faces != spec.faces:
        names = [key for key, value in asdict(faces).items() if value != asdict(spec.faces)[key] and key != "detector"]
        pairs = ", ".join(
            f"{_key(key)}={getattr(faces, key)} ({getattr(spec.faces, key)} in training)" for key in names
        )
        log.warning("Faces are cropped as the command line says, not as in training: %s", pairs)
    return replace(spec, faces=faces)


def _key(name: str) -> str:
    return "faces" if name == "mode" else f"faces.{name}"


def read_table(cfg: DictConfig, *, model_classes: ModelClasses | None = None, splits: bool = True) -> pd.DataFrame:
    """The checked and split table of the group `data`; see `load_table`."""
    return load_table(instantiate(cfg.data, "data"), data_settings(cfg), model_classes=model_classes, splits=splits)


def create_data(cfg: DictConfig, table: pd.DataFrame, spec: InputSpec | None = None) -> FaceData:
    """The data module of a table; `spec` is a checkpoint's, by default that of the groups `model` and `faces`."""
    return FaceData(table, data_settings(cfg), spec or input_spec(cfg), cfg.seed, cfg.faces.weights)


def create_task(cfg: DictConfig, table: pd.DataFrame) -> Task:
    kind = {key: bool(table.attrs.get(key)) for key in ("ordinal", "multilabel")}
    return Task.from_config(table.attrs["classes"], loss=cfg.loss, **kind)


def create_network(cfg: DictConfig, task: Task) -> Network:
    """With random weights."""
    return build_network(plain(cfg.model), task.num_logits)


def create_policy(cfg: DictConfig, network: Network, pretrained_stages: Sequence[str] = ()) -> Policy:
    """The finetune policy for this network; refused where a process group could not follow it."""
    settings = finetune_settings(cfg)
    policy = Policy.parse(
        settings.train_from,
        settings.lr_decay,
        network.stage_names,
        pretrained_lr=settings.pretrained_lr,
        pretrained_stages=pretrained_stages,
    )
    strategy = str(cfg.trainer.strategy)
    if policy.changes and not strategy.startswith(("auto", "ddp")):
        raise FaceattrError(
            f"finetune.train_from changes during training, which trainer.strategy={strategy} does not follow.\n"
            "Use one stage (finetune.train_from=…), or trainer.strategy=ddp."
        )
    return policy


def optimizer_settings(cfg: DictConfig) -> OptimizerSettings:
    drop: tuple[str, ...] = ()
    if cfg.trainer.gradient_clip and "fused" in cfg.optim and resolve_precision(trainer_settings(cfg)) != "32":
        drop = ("fused",)  # it unscales gradients itself, after they would have to be clipped
    settings = group_settings(cfg.optim, Optim)
    create = partial(instantiate, plain(cfg.optim), "optim", drop=drop)
    return OptimizerSettings(create, settings.lr, settings.schedule, settings.warmup_epochs, cfg.trainer.max_epochs)


def reason_without_feature_cache(cfg: DictConfig, model: Classifier) -> str | None:
    """See `reason_disabled`."""
    settings = (finetune_settings(cfg), data_settings(cfg), trainer_settings(cfg))
    return reason_disabled(*settings, model.network, model.policy, augmented=model.augmentation.active)


def create_feature_cache(cfg: DictConfig, model: Classifier, data: FaceData) -> FeatureCache:
    views = (cfg.finetune.views or 0) if model.augmentation.active else 0
    return FeatureCache(data, views=views, seed=cfg.seed)


def create_classifier(
    cfg: DictConfig,
    task: Task,
    *,
    network: Network | None = None,
    pretrained_stages: Sequence[str] = (),
    class_weights: torch.Tensor | None = None,
) -> Classifier:
    """A classifier to be trained as the config says; `network` where it has its weights already, pretrained ones in
    `pretrained_stages`."""
    network = network or create_network(cfg, task)
    spec = input_spec(cfg)
    return Classifier(
        network,
        task,
        replace(spec, scaling=resolve_scaling(spec.scaling, network)),
        create_policy(cfg, network, pretrained_stages),
        optimizer=optimizer_settings(cfg),
        augment=group_settings(cfg.augment, Augment),
        class_weights=class_weights,
        seed=cfg.seed,
    )
