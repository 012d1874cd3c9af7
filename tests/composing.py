"""Configs for tests, composed from conf/ as the commands compose them: the one place that does."""

from collections.abc import Sequence

from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from programs import ROOT

from faceattr.config.validate import validate


def compose_config(*overrides: str) -> DictConfig:
    """The checked config that train.py would see."""
    return validate(compose_unchecked("train", ["name=test", *overrides]))


def compose_unchecked(config: str, overrides: Sequence[str] = ()) -> DictConfig:
    """A config of conf/ as Hydra composes it: `train`, or one option such as `model/cnn`."""
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return compose(config, list(overrides))


def compose_with_hydra(*overrides: str) -> DictConfig:
    """The config that train.py would see, unchecked; Hydra's own part is set as in a running command."""
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = compose("train", ["hydra.runtime.output_dir=/nowhere", *overrides], return_hydra_config=True)
    HydraConfig.instance().set_config(cfg)
    OmegaConf.set_struct(cfg, False)
    del cfg["hydra"]
    return cfg
