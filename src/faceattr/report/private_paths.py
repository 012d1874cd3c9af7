"""Takes absolute paths, and with them user names, out of a page that is made to be sent."""

import re
from collections.abc import Collection
from pathlib import Path

from markupsafe import escape

PATH = re.compile(
    r"data:[\w/+;,=-]{30,}"  # an embedded image, which stays: base64 has slashes
    r"|(?<![\w.~…/<:*+=-])(?P<path>(?:/[^\s/<>\"'&;,|(){}\[\]=]+){2,}/?|[A-Za-z]:\\[^\s<>\"'&;,|]+)"
    r"|(?<=[=:])(?P<value>(?:/[^\s/<>\"'&;,|(){}\[\]=]+){2,}/?)"
)
VALUE = re.compile(r"(?:^|[\s,{\[])[\w.@-]+: (/[^\n]+)$", re.MULTILINE)
"""A line of a YAML config whose value is an absolute path, which may have blanks."""


def without_absolute_paths(page: str, values: Collection[str] = ()) -> str:
    """`page` (HTML) with paths below the working directory relative to it, those below the home directory behind `~`, and of
    all others the last part only, behind `…/`. `values` are whole paths that occur in it: those with blanks need it."""
    names = {value: f"…/{value.rstrip('/').rpartition('/')[2]}" for value in values if value.count("/") > 1}
    here, home = str(Path.cwd()), str(Path.home())
    prefixes = (
        {f"{here}/": "", here: ".", f"{home}/": "~/", home: "~"} if len(home) > 1 else {f"{here}/": "", here: "."}
    )
    for prefix, short in prefixes.items():
        names = {value: name for value, name in names.items() if not value.startswith(prefix)}
        page = re.sub(re.escape(str(escape(prefix))) + r"(?![\w-])" * (not prefix.endswith("/")), short, page)
    for value in sorted(names, key=len, reverse=True):
        page = page.replace(str(escape(value)), str(escape(names[value])))
    return PATH.sub(_last_part, page)


def paths_in(config: str) -> list[str]:
    """The absolute paths that are values of a YAML config."""
    return [match[1].strip("'\" ") for match in VALUE.finditer(config)]


def _last_part(match: re.Match[str]) -> str:
    path = match["path"] or match["value"]
    return "…/" + re.split(r"[/\\]", path.rstrip("/"))[-1] if path else match[0]
