"""Progress of whatever takes longer than a few seconds: a bar on a terminal, else a line in the log for each tenth."""

import logging
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

log = logging.getLogger(__name__)

DELAY = 3.0
"""Seconds. What is done by then shows nothing."""
Item = TypeVar("Item")


class Progress:
    """`with Progress("Hashing", total=1000) as progress: progress.update(64)`.

    total: how many steps there are; inf where nobody knows. unit: what a step is, for the bar. delay: seconds before anything is
    shown. The title "" shows nothing.
    """

    def __init__(self, title: str, total: float, *, unit: str = "img", delay: float = DELAY) -> None:
        self._title, self._total, self._delay, self.done, self._tenths = title, total, delay, 0, 0
        self._began = time.monotonic()
        self._bar: Any = None
        if title and sys.stderr.isatty():
            from tqdm import tqdm  # an exported model needs none

            self._bar = tqdm(desc=title, total=total, unit=unit, delay=delay, leave=False)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def update(self, steps: int = 1) -> None:
        """So many more steps are done."""
        self.done += steps
        if self._bar is not None:
            self._bar.update(steps)
        elif self._title:
            self._log()

    def _log(self) -> None:
        tenths, seconds = int(10 * self.done // max(1, self._total)), time.monotonic() - self._began
        if seconds < self._delay or tenths <= self._tenths or self.done >= self._total:
            return
        self._tenths = tenths
        left = seconds * (self._total - self.done) / self.done
        done = f"{self.done:,} of {self._total:,}"
        log.info("%s: %d%% (%s), %s left", self._title, 100 * self.done // self._total, done, clock(left))


def tracked(items: Iterable[Item], title: str, total: int, *, unit: str = "img") -> Iterator[Item]:
    """The items, each of which is a step of `Progress`."""
    with Progress(title, total, unit=unit) as progress:
        for item in items:
            yield item
            progress.update()


def clock(seconds: float) -> str:
    """Minutes and seconds: 0:05, 12:30, 1:02:03."""
    hours, rest = divmod(round(seconds), 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}" if hours else f"{rest // 60}:{rest % 60:02d}"
