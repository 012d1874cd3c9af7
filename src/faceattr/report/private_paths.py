"""Takes absolute paths, and with them user names, out of a page that is made to be sent."""

import os
import re
from collections.abc import Collection
from pathlib import Path

from markupsafe import escape

PATH = re.compile(
    r"data:[\w/+;,=-]{30,}"  # an embedded image, which stays: base64 has slashes
    r"|(?<![\w.~…/<:*+=-])(?P<path>(?:/[^\s/<>\"'&;,|(){}\[\]=]+){2,}/?)"
    r"|(?<=[=:])(?P<value>(?:/[^\s/<>\"'&;,|(){}\[\]=]+){2,}/?)"
    r"|(?<![\w.…])(?P<windows>[A-Za-z]:[\\/][^\s<>\"'&;,|(){}\[\]=]+)"
)
VALUE = re.compile(r"(?:^|[\s,{\[])[\w.@-]+: ((?:/|[A-Za-z]:[\\/])[^\n]+)$", re.MULTILINE)
"""A line of a YAML config whose value is an absolute path, which may have blanks."""


def without_absolute_paths(page: str, values: Collection[str] = ()) -> str:
    """`page` (HTML) with paths below the working directory relative to it, those below the home directory behind `~`, and of
    all others the last part only, behind `…/`. `values` are whole paths that occur in it: those with blanks need it."""
    names = {value: f"…/{last_part(value)}" for value in values if len(re.findall(r"[/\\]", value)) > 1}
    for prefix, short in _prefixes().items():
        names = {value: name for value, name in names.items() if not value.startswith(prefix)}
        page = re.sub(re.escape(str(escape(prefix))) + r"(?![\w-])" * (prefix[-1] not in r"\/"), short, page)
    for value in sorted(names, key=len, reverse=True):
        page = page.replace(str(escape(value)), str(escape(names[value])))
    return PATH.sub(_shorten, page)


def paths_in(config: str) -> list[str]:
    """The absolute paths that are values of a YAML config."""
    return [match[1].strip("'\" ") for match in VALUE.finditer(config)]


def _prefixes() -> dict[str, str]:
    """What stands for the working directory and the home directory, each with a separator after it and without one. On Windows a
    path is written with either separator."""
    prefixes: dict[str, str] = {}
    for folder, short in ((Path.cwd(), ""), (Path.home(), "~/")):
        for text, separator in ((str(folder), os.sep), (folder.as_posix(), "/")):
            if len(text) > 1:  # the home directory of a container may be /
                prefixes |= {f"{text}{separator}": short, text: short.rstrip("/") or "."}
    return prefixes


def last_part(path: str) -> str:
    """The name of a file or folder, whose path has the separators of any system."""
    return re.split(r"[/\\]", path.rstrip(r"\/"))[-1]


def _shorten(match: re.Match[str]) -> str:
    return f"…/{last_part(match[0])}" if match.lastgroup else match[0]
