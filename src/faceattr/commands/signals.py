"""How every command ends on a signal (Ctrl-C, SIGTERM, SIGHUP), and how processes end with their parent."""

import math
import os
import signal
import sys
import threading
import time
from _thread import interrupt_main
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


@contextmanager
def end_with_reader() -> Iterator[None]:
    """Ends the process quietly, with exit code 141, when the reader of its output has gone (`--help | head`)."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more when it ends
        raise SystemExit(128 + 13) from None


_watched_parent: int | None = None


def end_with_parent() -> None:
    """If a faceattr command started this process (DDP, or joblib for a sweep), end it when that command ends, even if it is
    killed. Not on Windows, where a process does not see that its parent ended."""
    global _watched_parent
    parent = os.getppid()
    started_by_command = os.environ.get(MAIN_PROCESS) == str(parent)
    os.environ[MAIN_PROCESS] = str(os.getpid())  # of the processes that this one starts
    if not started_by_command or _watched_parent is not None:
        return
    _watched_parent = parent

    def watch() -> None:
        while not parent_ended():
            time.sleep(0.5)
        interrupt_main_thread()
        time.sleep(5)  # the main thread may wait for another process that is gone
        os._exit(128 + signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def interrupt_main_thread() -> None:
    """What SIGTERM does to this process. On Windows, `os.kill` would end it at once, with nothing said or cleaned up."""
    if sys.platform == "win32":
        interrupt_main(signal.SIGTERM)
    else:
        os.kill(os.getpid(), signal.SIGTERM)


def is_worker() -> bool:
    """Whether Lightning started this process for the DDP run of a faceattr command; known after `end_with_parent`."""
    return _watched_parent is not None and os.environ.get("LOCAL_RANK", "0") != "0"


def parent_ended() -> bool:
    """Whether the command that started this process has ended."""
    return _watched_parent is not None and os.getppid() != _watched_parent
