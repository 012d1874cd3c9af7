"""How every command ends on a signal (Ctrl-C, SIGTERM, SIGHUP), and how processes end with their parent."""

import math
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

SIGNALS = [getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGHUP") if hasattr(signal, name)]
CLEANING = 3.0
"""Seconds after a signal in which another one is ignored: a second, impatient Ctrl-C would interrupt the cleaning up."""
_last_signal = -math.inf
MAIN_PROCESS = "FACEATTR_MAIN_PROCESS"
"""Environment variable: the id of the process that a user started."""


class Stopped(SystemExit):
    """A signal asked this process to end. The exit code `code` is 128 plus the signal's number, as in a shell."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.name = signal.Signals(number).name

    def __str__(self) -> str:
        return f"Stopped by {self.name}"


@contextmanager
def stop_on_signals() -> Iterator[None]:
    """In this block a signal raises `Stopped` in the main thread, so that `finally` and `with` blocks clean up.

    A signal that is ignored already (`nohup`, a shell's `&`) stays ignored. Outside the main thread this changes nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: Any) -> None:
        global _last_signal
        if time.monotonic() - _last_signal > CLEANING:
            _last_signal = time.monotonic()
            raise Stopped(number)

    previous_handlers = {number: signal.getsignal(number) for number in SIGNALS}
    handled = [number for number, handler in previous_handlers.items() if handler is not signal.SIG_IGN]
    for number in handled:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number in handled:
            signal.signal(number, previous_handlers[number])


def end_with_parent() -> None:
    """If a faceattr command started this process (DDP, or joblib for a sweep), end it when that command ends, even if it is
    killed. Not on Windows, where a process does not see that its parent ended."""
    parent = os.getppid()
    if os.environ.get(MAIN_PROCESS) != str(parent):
        os.environ[MAIN_PROCESS] = str(os.getpid())
        return

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)  # the main thread may wait for another process that is gone
        os._exit(128 + signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()
