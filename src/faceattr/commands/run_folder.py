"""A folder holds one run: it is claimed before anything is written, and no second run is begun in it."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from faceattr.config.command_line import argument, typed
from faceattr.errors import FaceattrError
from faceattr.files import remove_parts

LOCK = ".lock"
"""A file in the folder, locked while a process runs there. The system unlocks it when the process ends, however it ends."""
_claimed: dict[Path, FileLock] = {}


def claim(folder: Path) -> None:
    """Make `folder` this process's own (see `released`), and clear away what a killed one left half-written.

    Raises FaceattrError where another process has it.
    """
    folder = folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
        while not (folder / LOCK).exists():  # its last owner has just removed the file that is locked here
            lock.release()
            lock.acquire(timeout=0)
    except Timeout:
        raise FaceattrError(
            f"{folder}: another process runs in this folder. Give another hydra.run.dir, or wait until it ends."
        ) from None
    _claimed[folder] = lock
    remove_parts(folder)
    remove_parts(folder / "checkpoints")


@contextmanager
def released() -> Iterator[None]:
    """The folders that were claimed in this block are released at its end."""
    try:
        yield
    finally:
        while _claimed:
            folder, lock = _claimed.popitem()
            with suppress(OSError):  # Windows removes no locked file, and removes it when it is released
                (folder / LOCK).unlink()
            lock.release()


def checkpoint_of(folder: Path) -> Path | None:
    """The checkpoint to go on with, of the run that `folder` holds. Without one there is nothing to lose: no run."""
    return next((file for name in ("last", "best") if (file := folder / "checkpoints" / f"{name}.ckpt").exists()), None)


class RunFolder(Callback):
    """Hydra's hook before it writes anything."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        HydraConfig.instance().set_config(config)  # the default folder is named by its choices
        if _first_process():  # the others of a DDP run come to their own folder
            _claim_or_exit(Path(config.hydra.run.dir))
            if not config.ckpt:
                _refuse_second_run(Path(config.hydra.run.dir))

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        _claim_or_exit(Path(config.hydra.sweep.dir))


def _first_process() -> bool:
    """Whether this is the first process of a run, on the first machine, whatever started it."""
    return all(os.environ.get(name, "0") == "0" for name in ("LOCAL_RANK", "RANK", "SLURM_PROCID"))


def _claim_or_exit(folder: Path) -> None:
    """Hydra swallows the exceptions of a callback, but not SystemExit."""
    try:
        claim(folder)
    except FaceattrError as error:
        sys.exit(f"Error: {error}")
    except OSError as error:
        sys.exit(f"Error: {error.filename or folder}: {error.strerror}")


def _refuse_second_run(folder: Path) -> None:
    if checkpoint := checkpoint_of(folder):
        resume = typed("train", argument("ckpt", checkpoint))
        sys.exit(f"Error: {folder} already holds a run. Give another hydra.run.dir, or go on with it: {resume}")
