"""faceattr cache: list the arrays stored between runs (decoded images, hashes, features); cache verify: remove damaged ones;
cache clear: remove all."""

import shutil
import sys
from pathlib import Path

from faceattr.data.array_file import RowArray
from faceattr.data.disk_cache import folder, is_damaged, remove
from faceattr.data.faces.detector_file import cached_file
from faceattr.message_text import counted, did_you_mean

USAGE = "usage: faceattr cache [verify | clear]"


def cache(arguments: list[str]) -> None:
    """Print a line per array; `verify` reads them all and removes damaged ones (exit code 1 if there were any); `clear` removes
    all. Those that another process has open stay on Windows."""
    if {"-h", "--help"} & set(arguments):
        return print(USAGE)
    if arguments not in ([], ["verify"], ["clear"]):
        sys.exit(
            f"Error: cache {' '.join(arguments)}: cannot be read.{did_you_mean(arguments[0], ('verify', 'clear'))} {USAGE}"
        )
    files = sorted(folder().glob("*.npy"))
    damaged = 0
    for file in files:
        broken = arguments == ["verify"] and is_damaged(file)
        damaged += broken
        print(f"{file.name}  {file.stat().st_size / 1e6:8.1f} MB  {'damaged, removed' if broken else _rows(file)}")
        if broken:
            remove(file)
    if arguments == ["verify"]:
        print(f"{counted(len(files) - damaged, 'array')} as written, {damaged} damaged, in {folder()}")
        return sys.exit(1) if damaged else None
    if not arguments:
        print(f"{counted(len(files), 'array')} in {folder()}")
        for line in _others():
            print(line)
        return None
    shutil.rmtree(folder(), ignore_errors=True)
    left = len(list(folder().glob("*.npy")))
    print(f"{counted(len(files) - left, 'array')} removed from {folder()}{f', {left} are in use' if left else ''}")


def _others() -> list[str]:
    """A line for each folder of generated images, and for the face detector's file: `cache clear` leaves them."""
    folders = [path for path in sorted((folder().parent / "sample").glob("*")) if path.is_dir()]
    sizes = [[file.stat().st_size for file in path.rglob("*") if file.is_file()] for path in folders]
    lines = [
        f"{path}  {sum(size) / 1e6:8.1f} MB  {counted(len(size), 'file')}, images of data=sample"
        for path, size in zip(folders, sizes, strict=True)
    ]
    if (detector := cached_file()).is_file():
        lines.append(f"{detector}  {detector.stat().st_size / 1e6:8.1f} MB  face detector")
    return lines


def _rows(file: Path) -> str:
    try:
        return counted(len(RowArray(file)), "row")
    except (OSError, ValueError, EOFError):
        return "damaged"
