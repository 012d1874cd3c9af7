"""A folder holds one run: a process locks it before it writes anything, and nothing else is written into it later."""

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig

from faceattr.config.command_to_paste import command_to_paste
from faceattr.config.quote_for_hydra import argument
from faceattr.errors import FaceattrError
from faceattr.files import remove_parts

LOCK = ".lock"
"""A file in the folder, locked while a process runs there. The system unlocks it when the process ends, however it ends."""
_claimed: dict[Path, FileLock] = {}


def claim(folder: Path) -> None:
    """Locks `folder` for this process (until the end of `released`), and removes what a killed process left half-written.

    Raises FaceattrError if another process has locked it.
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
    """At the end of this block, the folders that were claimed in it are unlocked."""
    try:
        yield
    finally:
        for folder in list(_claimed):
            release(folder)


def release(folder: Path) -> None:
    """Unlocks a folder, where this process has locked it."""
    if lock := _claimed.pop(folder.absolute(), None):
        with suppress(OSError):  # Windows removes no locked file, and removes it when it is released
            (folder / LOCK).unlink()
        lock.release()


def remove_claimed(folder: Path) -> None:
    """Removes a folder that this process has locked, and those above it that are empty then, up to the current one."""
    release(folder)  # Windows removes no locked file
    shutil.rmtree(folder, ignore_errors=True)
    with suppress(OSError, ValueError):  # until one is not empty, or none below the current folder
        for parent in folder.absolute().relative_to(Path.cwd()).parents[:-1]:
            parent.rmdir()


def remove_empty_sweep() -> None:
    """A sweep that was refused before its first job leaves no folder behind."""
    for folder in list(_claimed):
        if {path.name for path in folder.glob("*")} == {LOCK, "multirun.yaml"}:
            remove_claimed(folder)


def checkpoint_of(folder: Path) -> Path | None:
    """The checkpoint with which the run in `folder` can go on. None: the folder counts as one without a run."""
    return next((file for name in ("last", "best") if (file := folder / "checkpoints" / f"{name}.ckpt").exists()), None)


def content(folder: Path) -> str | None:
    """What the files of a command in `folder` would overwrite, or mix with."""
    from faceattr.training.exported_folder import ONNX, is_exported  # 0.2 s, which --help does without

    if checkpoint_of(folder):
        return "a run"
    if is_exported(folder) and (folder / ONNX).exists():  # other programs have a config.json too
        return "an exported model"
    if (folder / "multirun.yaml").exists():
        return "a sweep"
    evaluated = any(file.is_file() for file in folder.glob("*_metrics.json")) and not (folder / "run.json").exists()
    return "an evaluation" if evaluated else None


def how_to_go_on(folder: Path) -> str:
    """What to type after the run in `folder` has stopped on its way."""
    last = folder / "checkpoints" / "last.ckpt"
    if last.exists():
        return f"To go on: {command_to_paste('train', argument('ckpt', last))}"
    return "Nothing was trained yet: give the same command again."


class RunFolder(Callback):
    """Hydra calls this before it writes anything: locks the folder, and refuses one that holds something else."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        HydraConfig.instance().set_config(config)  # the default folder is named by its choices
        if not _first_process():  # the others of a DDP run come to their own folder
            return
        folder = Path(config.hydra.run.dir)
        _claim_or_exit(folder)
        present, trains = content(folder), _trains(config)
        if present == "a run" and trains:
            _refuse_second_run(folder, config.ckpt)
        elif present and (
            trains or present != "an evaluation"
        ):  # which may be made again; or predictions lie beside it
            _refuse("hydra.run.dir", folder, present)

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        folder = Path(config.hydra.sweep.dir)
        _claim_or_exit(folder)
        present = content(folder)
        if present and not (present == "a sweep" and _trains(config)):  # Leaderboard says how to go on with that
            _refuse("hydra.sweep.dir", folder, present)

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        """A job of a sweep locks its own folder too: else it could be resumed while it runs."""
        if config.hydra.mode == RunMode.MULTIRUN and _first_process():
            _claim_or_exit(Path(config.hydra.runtime.output_dir))

    def on_job_end(self, config: DictConfig, **kwargs: Any) -> None:
        release(Path(config.hydra.runtime.output_dir))


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


def _trains(config: DictConfig) -> bool:
    """Whether the command is `train`; `preview` and `leaks` take its config."""
    return bool(config.hydra.job.config_name == "train" and config.hydra.job.name not in ("preview", "leaks"))


def _refuse_second_run(folder: Path, ckpt: str | None) -> None:
    """Exits where `folder` holds a run, unless `ckpt` is a checkpoint of it."""
    checkpoint = checkpoint_of(folder)
    if checkpoint and not (ckpt and Path(ckpt).expanduser().resolve().parent == checkpoint.resolve().parent):
        resume = command_to_paste("train", argument("ckpt", checkpoint))
        sys.exit(f"Error: {folder} already holds a run. Give another hydra.run.dir, or go on with it: {resume}")


def _refuse(key: str, folder: Path, present: str) -> None:
    sys.exit(f"Error: {key}={folder}: this folder already holds {present}. Give another one, or leave {key} out.")
