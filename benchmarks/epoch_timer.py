"""Times the epochs of a competitor's training and prints one line of JSON at the end. Standard library only."""

import json
import os
import time
from typing import Any


class EpochTimer:
    """`start_epoch`, then `step` after each optimizer step, then `end_epoch` after the validation.

    The training time of an epoch ends with its last step, so validation is not in the rate. Seconds since the launch count
    from BENCH_LAUNCHED, a `time.time()` that the starting process left in the environment.
    """

    def __init__(self) -> None:
        self.launched = float(os.environ.get("BENCH_LAUNCHED") or time.time())
        self.first_step: float | None = None
        self.epochs: list[dict[str, float]] = []

    def start_epoch(self) -> None:
        self._started, self._images = time.perf_counter(), 0

    def step(self, images: int) -> None:
        """After each optimizer step, with the number of images in its batch."""
        self._last_step = time.perf_counter()
        self._images += images
        self.first_step = self.first_step or time.time() - self.launched

    def end_epoch(self) -> None:
        self.epochs.append(
            {
                "images": self._images,
                "rate": self._images / (self._last_step - self._started),
                "seconds": time.perf_counter() - self._started,
                "done": time.time() - self.launched,
            }
        )

    def print_json(self, **more: Any) -> None:
        print(json.dumps({"first_step": self.first_step, "epochs": self.epochs, **more}), flush=True)
