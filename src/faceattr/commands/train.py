"""What train.py runs: one training run in Hydra's folder, and how it ends."""

import logging
import math
import os
import traceback
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from faceattr.commands.ddp_in_sweep import processes_run_this_job
from faceattr.commands.ddp_processes import quiet_worker
from faceattr.commands.evaluate_after_training import TrainedRun
from faceattr.commands.run_folder import how_to_go_on
from faceattr.commands.run_training import run_training
from faceattr.commands.signals import Stopped
from faceattr.config.command_to_paste import leaderboard_to_paste
from faceattr.config.validate_keys import validate
from faceattr.errors import FaceattrError
from faceattr.files import read_json
from faceattr.training.run_json import RunRecord

log = logging.getLogger(__name__)


def train(cfg: DictConfig) -> float:
    """What train.py runs; returns the validation accuracy of the evaluated checkpoint, minus infinity for a failed job of a
    sweep."""
    try:
        run = start(cfg)
    except Exception as error:
        if not _swept():
            raise
        log.error("%s", error if isinstance(error, FaceattrError) else traceback.format_exc())
        return -math.inf  # Optuna's sweeper cannot take nan
    if run and run.resumed_finished:  # not logged: its train.log stays as it is
        early = read_json(run.folder / RunRecord.FILE).get("epochs", 0) < cfg.trainer.max_epochs
        more = "trainer.patience=… (it stopped early)" if early else "trainer.max_epochs=…"
        print(f"This run is finished; nothing is changed. To train on: {more}\nResults: {run.folder}")
    return float(run.metrics["val"]["accuracy"]) if run else math.nan


def start(cfg: DictConfig, command: str | None = None) -> TrainedRun | None:
    """A run in the folder of Hydra's job. However it ends, its run.json says how. Returns None in DDP worker processes.

    `command`: the command that repeats this run, for run.json; None is this process's command line.
    """
    hydra = HydraConfig.get()
    folder = Path(hydra.runtime.output_dir)
    record = RunRecord(folder, list(hydra.overrides.task))
    first_process = os.environ.get("LOCAL_RANK", "0") == "0"
    try:
        with quiet_worker(folder), processes_run_this_job():
            return run_training(validate(cfg), folder, record, command)
    except (KeyboardInterrupt, SystemExit) as stop:  # a signal, or Ctrl-C inside another program
        record.end("interrupted", str(stop) if isinstance(stop, Stopped) else "Interrupted")
        if first_process:
            log.warning("Interrupted. %s", how_to_go_on(folder))
        if first_process and _swept():
            log.warning("The commands for all jobs left: %s", leaderboard_to_paste(hydra.sweep.dir))
        raise
    except Exception as error:
        text, refused = str(error) or type(error).__name__, isinstance(error, FaceattrError)
        record.end("failed", text, always=_swept() and first_process, refused=refused)
        raise


def _swept() -> bool:
    return HydraConfig.get().mode == RunMode.MULTIRUN
