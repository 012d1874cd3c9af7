"""faceattr cache: what is kept between runs; faceattr cache clear: remove it."""

import shutil
import sys

import numpy as np

from faceattr.data.array_cache import folder


def cache(arguments: list[str]) -> None:
    """List the arrays that are kept between runs; with `clear`, remove them."""
    if arguments not in ([], ["clear"]):
        sys.exit("usage: faceattr cache [clear]")
    files = sorted(folder().glob("*.npy"))
    for file in files:
        print(f"{file.name}  {file.stat().st_size / 1e6:8.1f} MB  {len(np.load(file, mmap_mode='r'))} rows")
    if arguments:
        shutil.rmtree(folder(), ignore_errors=True)
    print(f"{len(files)} arrays in {folder()}{', all removed' if arguments else ''}")
