"""Fixtures for the tests of the config: composing what a command line would."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from programs import ROOT

import faceattr.config.schema  # noqa: F401  Hydra knows the schemas only then


def compose_train(*overrides: str) -> DictConfig:
    """The composed config of train.py."""
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = compose("train", ["hydra.runtime.output_dir=/nowhere", *overrides], return_hydra_config=True)
    HydraConfig.instance().set_config(cfg)
    OmegaConf.set_struct(cfg, False)
    del cfg["hydra"]
    return cfg


@pytest.fixture
def composed(tmp_path: Path) -> Iterator[Callable[..., DictConfig]]:
    """A function: overrides of the command line → the composed config of train.py, with `data.root` given."""
    yield lambda *overrides: compose_train(f"data.root={tmp_path}", *overrides)
    HydraConfig.instance().cfg = None


@pytest.fixture(scope="module")
def base() -> DictConfig:
    """The composed config of train.py without overrides, for tests that change a key of it."""
    cfg = compose_train("data.root=/nowhere", "name=run")
    HydraConfig.instance().cfg = None
    return cfg
