"""Commands that a user can paste, in the form in which this process was started; for messages and run files."""

import shlex
import subprocess
import sys
from pathlib import Path

SCRIPTS = ("train", "evaluate", "predict", "export", "serve")
"""Commands that are also a script at the top of a checkout."""


def command_to_paste(command: str, *arguments: str) -> str:
    """The command in the form in which this process was started: `python train.py …`, `python -m faceattr train …` or, else,
    `faceattr train …`.

    `arguments` are options, or `key=value` from `argument`.
    """
    if _program().removesuffix(".py") in SCRIPTS and command in SCRIPTS:
        return for_shell(["python", f"{command}.py", *arguments])
    return for_shell([*_faceattr(), command, *arguments])


def this_command() -> str:
    """The command line of this process, to be typed again."""
    if _as_module() or _program().removesuffix(".exe") == "faceattr":
        return for_shell([*_faceattr(), *sys.argv[1:]])
    return for_shell(["python", *sys.argv])


def _program() -> str:
    return Path(sys.argv[0]).name


def _faceattr() -> list[str]:
    return ["python", "-m", "faceattr"] if _as_module() else ["faceattr"]


def _as_module() -> bool:
    return Path(sys.argv[0]).parts[-2:] == ("faceattr", "__main__.py")


def leaderboard_to_paste(folder: str | Path) -> str:
    """Makes the leaderboard of the sweep in `folder` again, and says what is left to do of it."""
    return for_shell(["python", "-m", "faceattr.report.leaderboard", str(folder)])


def for_shell(arguments: list[str]) -> str:
    """The arguments, quoted for the shell of the system: in that of Windows, single quotes mean nothing."""
    return subprocess.list2cmdline(arguments) if sys.platform == "win32" else shlex.join(arguments)
