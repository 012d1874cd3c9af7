"""The end of a run: CPU seconds from the last epoch to the last file, of it the network and the drawing of charts and galleries.

python benchmarks/end_of_run.py [override …]
"""

import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from faceattr.commands import evaluate_split, run_training
from faceattr.commands.main import run
from faceattr.report import charts, image_grid
from faceattr.training.lightning_module import Classifier

SECONDS: Counter[str] = Counter()


def timed(part: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, which adds the CPU time of each call to `SECONDS`."""

    def call(*args: Any, **kwargs: Any) -> Any:
        start = time.process_time()
        try:
            return function(*args, **kwargs)
        finally:
            SECONDS[part] += time.process_time() - start

    return call


def main() -> None:
    places: tuple[tuple[Any, str, str], ...] = (
        (run_training, "_finish", "all"),
        (evaluate_split, "probabilities", "network"),
        (Classifier, "explain", "network"),
        (charts, "save", "drawing"),
        (image_grid, "save", "drawing"),
    )
    for owner, name, part in places:
        setattr(owner, name, timed(part, getattr(owner, name)))
    run("train", sys.argv[1:])
    print(", ".join(f"{part} {seconds:.2f} s" for part, seconds in SECONDS.items()))


if __name__ == "__main__":
    main()
