"""From overrides of train.py to its config, data and classifier, for the benchmark on a GPU."""

import functools
from collections.abc import Sequence
from typing import Any

import pytorch_lightning as pl
from omegaconf import DictConfig

from faceattr.commands.build_from_config import (
    create_classifier,
    create_data,
    create_feature_cache,
    create_network,
    read_table,
    reason_without_feature_cache,
    trainer_settings,
)
from faceattr.config.conf_folder import compose_conf
from faceattr.config.validate_keys import validate
from faceattr.data.datamodule import FaceData
from faceattr.models.pretrained import load_weights
from faceattr.models.task import Task
from faceattr.training.lightning_module import Classifier

__all__ = ["create_classifier", "create_feature_cache", "reason_without_feature_cache", "trainer_settings"]


def composed(overrides: Sequence[str]) -> DictConfig:
    """The config that `train.py` would see."""
    return validate(compose_conf("train", ["name=benchmark", *overrides]))


@functools.lru_cache(maxsize=4)
def _table(overrides: tuple[str, ...]) -> Any:
    return read_table(composed(overrides))


def build(overrides: Sequence[str]) -> tuple[DictConfig, FaceData, Classifier]:
    """As train.py makes them; the table is read once for all runs on the same data."""
    cfg = composed(overrides)
    pl.seed_everything(cfg.seed, verbose=False)
    table = _table(tuple(one for one in overrides if one.startswith("data") and "batch_size" not in one))
    attrs, table = table.attrs, table.copy()
    task = Task.from_config(attrs["classes"], ordinal=attrs["ordinal"], loss=cfg.loss)
    network = create_network(cfg, task)
    if cfg.model.weights:
        load_weights(network, pretrained=cfg.model.pretrained, weights=cfg.model.weights, scaling=cfg.model.scaling)
    return cfg, create_data(cfg, table), create_classifier(cfg, task, network=network)
