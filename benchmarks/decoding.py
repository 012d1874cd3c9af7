"""Images per second of decoding a folder of JPEG files to 128x128 pixels, by threads and by processes.

python benchmarks/decoding.py DIR [--workers 4,16]
"""

import argparse
import time
from pathlib import Path

import numpy as np

from faceattr.data import parallel
from faceattr.data.decode import InputSpec, read_many

SPEC = InputSpec(128, 128, "bilinear", "unit")


def rate(paths: list[str], workers: int, *, processes: bool) -> float:
    """Images per second, the start of the processes included."""
    parallel.PROCESSES_FROM, parallel.THREADS_UP_TO = (0, 0) if processes else (len(paths) + 1, workers)
    decoded = np.empty((len(paths), SPEC.height, SPEC.width, 3), np.uint8)
    began = time.perf_counter()
    read_many(paths, SPEC, decoded, workers=workers, label="")
    return len(paths) / (time.perf_counter() - began)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--workers", default="4,16")
    given = parser.parse_args()
    files = sorted(map(str, given.folder.rglob("*.jpg")))
    for count in map(int, given.workers.split(",")):
        by_threads, by_processes = (rate(files, count, processes=kind) for kind in (False, True))
        print(
            f"{len(files):,} images, {count} workers: threads {by_threads:,.0f}, processes {by_processes:,.0f} images/s"
        )
