"""How commands are typed: messages and run files that name one show it as this process was started."""

import shlex
import subprocess
import sys
from pathlib import Path

SCRIPTS = ("train", "evaluate", "predict")
"""Commands that are also a script at the top of a checkout."""


def typed(command: str, *arguments: str) -> str:
    """`python train.py …` where a script was started, `python -m faceattr train …`, else `faceattr train …`."""
    if _program().removesuffix(".py") in SCRIPTS and command in SCRIPTS:
        return _join(["python", f"{command}.py", *arguments])
    return _join([*_faceattr(), command, *arguments])


def this_command() -> str:
    """The command line of this process, to be typed again."""
    if _as_module() or _program().removesuffix(".exe") == "faceattr":
        return _join([*_faceattr(), *sys.argv[1:]])
    return _join(["python", *sys.argv])


def _program() -> str:
    return Path(sys.argv[0]).name


def _faceattr() -> list[str]:
    return ["python", "-m", "faceattr"] if _as_module() else ["faceattr"]


def _as_module() -> bool:
    return Path(sys.argv[0]).parts[-2:] == ("faceattr", "__main__.py")


def _join(arguments: list[str]) -> str:
    """Quoted as the system's shell wants it: Windows knows no single quotes."""
    return subprocess.list2cmdline(arguments) if sys.platform == "win32" else shlex.join(arguments)
