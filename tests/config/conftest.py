"""Fixtures for the tests of the config: composing what a command line would."""

from collections.abc import Callable, Iterator

import pytest
from composing import compose_with_hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

import faceattr.config.schema  # noqa: F401  Hydra knows the schemas only then


@pytest.fixture
def composed() -> Iterator[Callable[..., DictConfig]]:
    """A function: overrides of the command line → the composed config of train.py, with `data.root` given."""
    yield lambda *overrides: compose_with_hydra("data.root=/nowhere", *overrides)
    HydraConfig.instance().cfg = None


@pytest.fixture(scope="module")
def base() -> DictConfig:
    """The composed config of train.py without overrides, for tests that change a key of it."""
    cfg = compose_with_hydra("data.root=/nowhere", "name=run")
    HydraConfig.instance().cfg = None
    return cfg
