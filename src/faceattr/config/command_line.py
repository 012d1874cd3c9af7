"""How commands are typed: messages and run files that name one show it as this process was started, to be pasted as it is.

A value is quoted twice: for Hydra's grammar (`argument`, `quoted`), then for the shell (`typed`).
"""

import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

SCRIPTS = ("train", "evaluate", "predict")
"""Commands that are also a script at the top of a checkout."""


PLAIN = re.compile(r"[A-Za-z0-9_.:@%+-]*/[A-Za-z0-9_./:@%+-]*")
"""A path in which neither Hydra nor a shell finds anything to interpret."""


def argument(key: str, value: str | Path) -> str:
    """`key=value` as Hydra reads it: `ckpt='runs/größe=3/last.ckpt'`; an ordinary path stays without quotes."""
    text = str(value)
    return f"{key}={text if PLAIN.fullmatch(text) else quoted(text)}"


def quoted(value: Any) -> str:
    """A value as Hydra's grammar takes it: text in quotes, whatever is in it, `${` too."""
    if isinstance(value, list):
        return f"[{','.join(map(quoted, value))}]"
    if value is None or isinstance(value, int | float):
        return "null" if value is None else str(value)
    escaped = re.sub(r"(\\*)\$\{", lambda found: 2 * found[1] + r"\${", str(value))
    return QuotedString(escaped, Quote.single).with_quotes()


def value_of(key: str, arguments: Sequence[str]) -> str | None:
    """The text that the last argument `key=…` gives, read as Hydra reads it; None where there is none."""
    given = [text for text in arguments if text.startswith(f"{key}=")]
    if not given:
        return None
    try:
        value = OverridesParser.create().parse_override(given[-1]).value()
        return None if value is None else str(OmegaConf.create({key: value})[key])
    except (HydraException, OmegaConfBaseException):  # Hydra will say what is wrong
        return given[-1].partition("=")[2]


def typed(command: str, *arguments: str) -> str:
    """`python train.py …` where a script was started, `python -m faceattr train …`, else `faceattr train …`.

    `arguments` are options, or `key=value` from `argument`.
    """
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
