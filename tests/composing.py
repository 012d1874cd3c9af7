"""Configs for tests, composed from conf/ as the commands compose them: the one place that does.

Each is composed once (0.3 s) and copied for every further test of a process.
"""

import copy
import os
from collections.abc import Sequence
from functools import cache

import pytest
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from faceattr.config.conf_folder import compose_conf, config_folder
from faceattr.config.validate_keys import validate

KINDS = ("cnn", "cnn_age_bn", "timm", "vgg16")
MODELS = [
    file.stem if file.stem in KINDS else pytest.param(file.stem, marks=pytest.mark.slow)
    for file in sorted((config_folder() / "model").glob("[a-z]*.yaml"))
]
"""Every model, as test parameters. One of each kind is tested always, those that resemble one of these are slow tests."""


def compose_config(*overrides: str) -> DictConfig:
    """The checked config that train.py would see."""
    return copy.deepcopy(_checked(overrides, os.environ.get("FACEATTR_CACHE")))


def compose_unchecked(config: str, overrides: Sequence[str] = ()) -> DictConfig:
    """A config of conf/ as Hydra composes it: `train`, or one option such as `model/cnn`."""
    return copy.deepcopy(_composed(config, tuple(overrides), False))


def compose_with_hydra(*overrides: str) -> DictConfig:
    """The config that train.py would see, unchecked; Hydra's own part is set as in a running command."""
    cfg = copy.deepcopy(_composed("train", ("hydra.runtime.output_dir=/nowhere", *overrides), True))
    HydraConfig.instance().set_config(cfg)
    OmegaConf.set_struct(cfg, False)
    del cfg["hydra"]
    return cfg


@cache
def _checked(overrides: tuple[str, ...], cache_folder: str | None) -> DictConfig:
    """`cache_folder`: where the sample faces are; checking resolves it."""
    return validate(compose_unchecked("train", ["name=test", *overrides]))


@cache
def _composed(config: str, overrides: tuple[str, ...], with_hydra: bool) -> DictConfig:
    return compose_conf(config, overrides, with_hydra=with_hydra)
