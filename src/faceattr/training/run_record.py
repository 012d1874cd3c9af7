"""What a run says of itself: run.json."""

import json
import logging
import platform
import subprocess
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from faceattr import __version__
from faceattr.config.command_line import this_command

log = logging.getLogger(__name__)


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


def write_json(file: Path, content: dict[str, Any]) -> None:
    """Written beside and renamed, so that a reader never sees half of it."""
    part = file.with_name(f".{file.name}.part")
    part.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    part.replace(file)
