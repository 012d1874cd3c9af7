"""What a run stores about itself: run.json."""

import logging
import platform
import subprocess
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd

from faceattr import __version__
from faceattr.config.command_to_paste import this_command
from faceattr.files import read_csv, read_json, write_json

log = logging.getLogger(__name__)


def read_metrics(folder: Path) -> dict[str, dict[str, Any]]:
    """The metrics of each split that the run in `folder` evaluated: its <split>_metrics.json."""
    files = sorted(folder.glob("*_metrics.json"))
    return {file.name.removesuffix("_metrics.json"): read_json(file) for file in files}


class RunRecord:
    """run.json of the run in `folder`: its keys in `fields`, written when training begins and when the run ends."""

    FILE = "run.json"

    def __init__(self, folder: Path, overrides: Sequence[str] = ()) -> None:
        self.file = folder / self.FILE
        self.fields: dict[str, Any] = {"status": "running", "overrides": list(overrides)}
        self._start, self._begun = time.perf_counter(), False

    def resume(self) -> None:
        """Go on with the record of the run that is resumed in this folder: its overrides, and the time it has taken."""
        past = read_json(self.file)
        self._start -= past.get("seconds") or 0
        self.fields |= {key: past[key] for key in ("overrides", "weights_warning") if key in past}

    def begin(self, fields: Mapping[str, Any], *, write: bool = True) -> None:
        """The run is about to train: from here on it is recorded, however it ends. Of several processes one writes."""
        self.fields |= fields
        self._begun = write
        if write:
            self.write()

    def set_status(self, status: str, error: str | None = None) -> None:
        """How the run ended, and the seconds that it took; not written yet."""
        self.fields |= {"status": status, "error": error, "seconds": round(time.perf_counter() - self._start, 2)}

    def end(self, status: str, error: str, *, always: bool = False, refused: bool = False) -> None:
        """Records the end of a run that did not finish. A run that never began writes nothing, unless `always`.

        refused: `error` is for the user to mend. Before the run began, it means that the same arguments fail again.

        If run.json cannot be written (a full disk may be why the run failed), that is only logged: `error` is what matters.
        """
        self.set_status(status, error)
        if not (always or self._begun):
            return
        self.fields |= {"refused": True} if refused and not self._begun else {}
        try:
            self.write()
        except OSError as problem:
            log.error("%s cannot be written: %s", self.file, problem.strerror or problem)

    def write(self) -> None:
        write_json(self.file, self.fields)


PACKAGES = ("torch", "torchvision", "pytorch-lightning", "hydra-core", "timm", "torchmetrics", "pandas")


def describe_machine(command: str | None = None) -> dict[str, Any]:
    """Versions of what computes, the state of the source code, the command (by default this process's) and when it was given."""
    return {
        "versions": {
            "python": platform.python_version(),
            "faceattr": __version__,
            **{name: version(name) for name in PACKAGES},
        },
        "git": _git(),
        "command": command or this_command(),
        "date": datetime.now().isoformat(" ", "minutes"),
    }


def _git() -> str | None:
    """Commit, with -dirty where files differ from it; None outside a checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def read_slices(file: Path) -> pd.DataFrame | None:
    """A run's slices_<split>.csv; None where there is no such file, or it is damaged."""
    try:
        table = read_csv(file, texts=("column", "value"))
    except (OSError, ValueError):
        return None
    needed = {"column", "value", "n", "accuracy", "accuracy_low", "accuracy_high", "gap", "gap_low", "gap_high", "p"}
    return table if needed <= set(table) else None
