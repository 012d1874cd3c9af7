"""What our use of Hydra needs of it: a parser for every Python, and a state of our own."""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra._internal import hydra as hydra_module
from hydra._internal.utils import _run_hydra, get_args_parser
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import configure_log
from hydra.types import RunMode, TaskFunction
from omegaconf import DictConfig, OmegaConf

from faceattr.commands.run_folder import LOCK, remove_claimed, remove_empty_sweep
from faceattr.config.conf_folder import config_folder, register_schemas


def hydra_parser() -> argparse.ArgumentParser:
    """Hydra's argument parser.

    From Python 3.14 on, argparse checks each help text when an argument is added, and fails with "badly formed help string"
    over one of Hydra's, which is made only when it is printed (Hydra 1.3). The check is skipped while Hydra adds its arguments.
    """
    container: Any = argparse._ActionsContainer
    check = getattr(container, "_check_help", None)
    if check is None:
        return get_args_parser()
    container._check_help = lambda self, action: None
    try:
        return get_args_parser()
    finally:
        container._check_help = check


class ComposedOnce(hydra_module.Hydra):
    """Hydra composes the whole config to learn `hydra.mode`, and then once more to run it (0.3 s). This one keeps the first."""

    _composed: DictConfig | None = None

    def get_mode(self, config_name: str | None, overrides: list[str]) -> RunMode | None:
        try:
            config = self.compose_config(config_name, overrides, RunMode.RUN)
        except Exception:  # perhaps a sweep; an error is raised again when it is composed to be run
            return super().get_mode(config_name, overrides)
        if config.hydra.mode != RunMode.MULTIRUN and not config.hydra.verbose:
            self._composed = config
        return config.hydra.mode

    def compose_config(
        self,
        config_name: str | None,
        overrides: list[str],
        run_mode: RunMode,
        with_log_configuration: bool = False,
        **options: Any,
    ) -> DictConfig:
        config, self._composed = self._composed, None
        if config is None or run_mode != RunMode.RUN:
            return super().compose_config(config_name, overrides, run_mode, with_log_configuration, **options)
        if config.hydra.mode is None:  # Hydra has added this override since
            config.hydra.mode = RunMode.RUN
            config.hydra.overrides.hydra.append("hydra.mode=RUN")
        configure_log(config.hydra.hydra_logging, config.hydra.verbose)
        return config


def run_hydra(arguments: argparse.Namespace, parser: argparse.ArgumentParser, task: TaskFunction, program: str) -> None:
    """What Hydra does with these arguments: runs `task` on the config `program` of conf/, sweeps, prints the config, …"""
    register_schemas()
    original = hydra_module.Hydra
    hydra_module.Hydra = ComposedOnce
    try:
        _run_hydra(arguments, parser, task, str(config_folder()), program)
    finally:
        hydra_module.Hydra = original


@contextmanager
def own_hydra_state() -> Iterator[None]:
    """Hydra as if nothing had used it in this process; afterwards its global state is as before."""
    loader, config = GlobalHydra.instance().hydra, HydraConfig.instance().cfg
    GlobalHydra.instance().clear()
    try:
        yield
    finally:
        GlobalHydra.instance().hydra, HydraConfig.instance().cfg = loader, config


def remove_empty_run() -> None:
    """A run or a sweep that failed before it wrote anything leaves no folder behind."""
    remove_empty_sweep()
    if not HydraConfig.initialized() or HydraConfig.get().mode != RunMode.RUN:
        return
    if OmegaConf.is_missing(HydraConfig.get().runtime, "output_dir"):  # Hydra has made none yet
        return
    if HydraConfig.get().output_subdir is None:  # it made none: `serve`, and a run that is resumed
        return
    folder = Path(HydraConfig.get().runtime.output_dir)
    log_file = folder / f"{HydraConfig.get().job.name}.log"
    left = [path for path in folder.rglob("*") if path.is_file() and path.name != LOCK]
    if left and all(path.parent == folder / ".hydra" or path == log_file for path in left):
        remove_claimed(folder)
