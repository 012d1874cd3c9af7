"""What train.py runs: one training run in Hydra's folder, and how it ends."""

import logging
import math
import traceback
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig
from pytorch_lightning.utilities.exceptions import SIGTERMException

from faceattr.commands.evaluate_run import RunResults
from faceattr.commands.run_training import run_training
from faceattr.config.command_line import typed
from faceattr.config.validate import validate
from faceattr.errors import FaceattrError
from faceattr.training.run_record import RunRecord

log = logging.getLogger(__name__)


def train(cfg: DictConfig) -> float:
    """What train.py runs; returns the validation accuracy of the evaluated checkpoint, minus infinity for a failed job of a
    sweep."""
    try:
        results = start(cfg)
    except (KeyboardInterrupt, SystemExit) as stop:
        raise SystemExit(143 if isinstance(stop, SIGTERMException) else 130) from None
    except Exception as error:
        if not _swept():
            raise
        log.error("%s", error if isinstance(error, FaceattrError) else traceback.format_exc())
        return -math.inf  # Optuna's sweeper cannot take nan
    return float(results.splits["val"].metrics["accuracy"]) if results else math.nan


def start(cfg: DictConfig, command: str | None = None) -> RunResults | None:
    """A run in the folder of Hydra's job. However it ends, its run.json says how. Returns None in DDP worker processes.

    `command`: the command that repeats this run, for run.json; None is this process's command line.
    """
    hydra = HydraConfig.get()
    folder = Path(hydra.runtime.output_dir)
    record = RunRecord(folder, list(hydra.overrides.task))
    try:
        return run_training(validate(cfg), folder, record, command)
    except (KeyboardInterrupt, SystemExit):
        record.end("interrupted")
        last = folder / "checkpoints" / "last.ckpt"
        if last.exists():
            log.warning("Interrupted. To go on: %s", typed("train", f"ckpt={last}"))
        raise
    except Exception as error:
        record.end("failed", str(error) or type(error).__name__, always=_swept())
        raise


def _swept() -> bool:
    return HydraConfig.get().mode == RunMode.MULTIRUN
