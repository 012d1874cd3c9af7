"""A peer's stop-watch: it is told of epochs and steps and prints one line of JSON at the end. Standard library only."""

import json
import os
import time
from typing import Any


class Clock:
    """Training time of an epoch runs from `begin` to its last `step`; `end` closes the epoch, validation included.

    Seconds since the launch count from BENCH_LAUNCHED, a `time.time()` that the starting process left in the environment.
    """

    def __init__(self) -> None:
        self.launched = float(os.environ.get("BENCH_LAUNCHED") or time.time())
        self.first_step: float | None = None
        self.epochs: list[dict[str, float]] = []

    def begin(self) -> None:
        self._began, self._images = time.perf_counter(), 0

    def step(self, images: int) -> None:
        """After each optimizer step."""
        self._stepped = time.perf_counter()
        self._images += images
        self.first_step = self.first_step or time.time() - self.launched

    def end(self) -> None:
        self.epochs.append(
            {
                "images": self._images,
                "rate": self._images / (self._stepped - self._began),
                "seconds": time.perf_counter() - self._began,
                "done": time.time() - self.launched,
            }
        )

    def report(self, **more: Any) -> None:
        print(json.dumps({"first_step": self.first_step, "epochs": self.epochs, **more}), flush=True)
