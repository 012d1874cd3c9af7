"""faceattr cache: list the arrays stored between runs (decoded images, hashes, features); faceattr cache clear: remove them."""

import shutil
import sys

import numpy as np

from faceattr.data.array_cache import folder

USAGE = "usage: faceattr cache [clear]"


def cache(arguments: list[str]) -> None:
    """Print a line per array; with `clear`, remove them. Those that another process has open stay on Windows."""
    if {"-h", "--help"} & set(arguments):
        return print(USAGE)
    if arguments not in ([], ["clear"]):
        sys.exit(f"Error: {USAGE}")
    files = sorted(folder().glob("*.npy"))
    for file in files:
        print(f"{file.name}  {file.stat().st_size / 1e6:8.1f} MB  {len(np.load(file, mmap_mode='r'))} rows")
    if not arguments:
        return print(f"{len(files)} arrays in {folder()}")
    shutil.rmtree(folder(), ignore_errors=True)
    left = len(list(folder().glob("*.npy")))
    print(f"{len(files) - left} arrays removed from {folder()}{f', {left} are in use' if left else ''}")
