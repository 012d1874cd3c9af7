"""faceattr cache: list the arrays stored between runs (decoded images, hashes, features); cache verify: remove damaged ones;
cache clear: remove all."""

import shutil
import sys
from pathlib import Path

from faceattr.data.array_cache import folder, is_damaged, remove
from faceattr.data.row_array import RowArray

USAGE = "usage: faceattr cache [verify | clear]"


def cache(arguments: list[str]) -> None:
    """Print a line per array; `verify` reads them all and removes damaged ones (exit code 1 if there were any); `clear` removes
    all. Those that another process has open stay on Windows."""
    if {"-h", "--help"} & set(arguments):
        return print(USAGE)
    if arguments not in ([], ["verify"], ["clear"]):
        sys.exit(f"Error: {USAGE}")
    files = sorted(folder().glob("*.npy"))
    damaged = 0
    for file in files:
        broken = arguments == ["verify"] and is_damaged(file)
        damaged += broken
        print(f"{file.name}  {file.stat().st_size / 1e6:8.1f} MB  {'damaged, removed' if broken else _rows(file)}")
        if broken:
            remove(file)
    if arguments == ["verify"]:
        print(f"{len(files) - damaged} arrays as they were written, {damaged} damaged, in {folder()}")
        return sys.exit(1) if damaged else None
    if not arguments:
        return print(f"{len(files)} arrays in {folder()}")
    shutil.rmtree(folder(), ignore_errors=True)
    left = len(list(folder().glob("*.npy")))
    print(f"{len(files) - left} arrays removed from {folder()}{f', {left} are in use' if left else ''}")


def _rows(file: Path) -> str:
    try:
        return f"{len(RowArray(file))} rows"
    except (OSError, ValueError, EOFError):
        return "damaged"
