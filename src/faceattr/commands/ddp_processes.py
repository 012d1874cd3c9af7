"""The processes of a DDP run end together: with one message, and none outlives the first.

Lightning kills the first process as soon as it sees that another one has ended: no message, and run.json stays "running"
(Lightning #8130). An exception in the first process leaves the others waiting.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch.distributed as dist
from pytorch_lightning.strategies.launchers import subprocess_script

from faceattr.commands.run_folder import how_to_go_on
from faceattr.commands.signals import Stopped, interrupt_main_thread, is_worker, parent_ended
from faceattr.errors import FaceattrError
from faceattr.training.run_json import RunRecord

NOTICE = 5.0
"""Seconds that a process has to notice by itself that another one is gone: its next exchange with it fails."""
LEAVE = 3.0
"""Seconds that a process has to clean up when it is asked to end."""


@contextmanager
def workers_end_with(record: RunRecord) -> Iterator[None]:
    """In the first process, around training: a worker process that ends early is a FaceattrError, and no worker outlives an
    exception. `record` is stored where this process cannot be interrupted, and has to be ended."""
    workers: list[subprocess.Popen[bytes]] = []
    over, interrupted = threading.Event(), threading.Event()

    def observe(started: list[subprocess.Popen[bytes]]) -> None:
        workers.extend(started)
        threading.Thread(target=_watch, args=(workers, over, interrupted, record), daemon=True).start()

    original = subprocess_script._launch_process_observer
    subprocess_script._launch_process_observer = observe
    try:
        yield
    except BaseException as error:
        no_answer = _is_exchange_error(error)
        try:
            lost = _lost(workers, wait=NOTICE if no_answer else 0)
        finally:
            over.set()
            _end(workers)
        if lost and (no_answer or (isinstance(error, Stopped) and interrupted.is_set())):
            raise FaceattrError(_message(*lost, record)) from error
        if no_answer and not is_worker():  # torchrun or srun started the others
            raise FaceattrError(
                f"Another process of this DDP run has ended.\n{how_to_go_on(record.file.parent)}"
            ) from error
        raise
    finally:
        over.set()
        subprocess_script._launch_process_observer = original


def _watch(
    workers: list[subprocess.Popen[bytes]], over: threading.Event, interrupted: threading.Event, record: RunRecord
) -> None:
    """Where the main thread does not notice that a worker is gone (a GPU waits for it, or it never came): interrupt it, or end
    this process."""
    while not (lost := _lost(workers)):
        if over.wait(0.2):
            return
    if over.wait(NOTICE):
        return
    interrupted.set()
    interrupt_main_thread()
    if over.wait(LEAVE):
        return
    message = _message(*lost, record)
    sys.stderr.write(f"Error: {message}\n")
    record.end("failed", message)
    _end(workers)
    os._exit(1)


def _lost(workers: list[subprocess.Popen[bytes]], wait: float = 0) -> tuple[int, int] | None:
    """Number and exit code of a worker that did not end well, perhaps only within `wait` seconds."""
    until = time.monotonic() + wait
    while True:
        for number, worker in enumerate(workers, 1):
            if code := worker.poll():
                return number, code
        if not workers or time.monotonic() >= until:
            return None
        time.sleep(0.05)


def _message(number: int, code: int, record: RunRecord) -> str:
    by = -code if code < 0 else code - 128  # as a shell has it
    try:
        reason = f"was ended by {signal.Signals(by).name}"
    except ValueError:
        reason = f"ended with exit code {code}; if it said why, that is above"
    if by == 9:  # SIGKILL, which Windows does not have
        reason += " (so a system ends what takes too much memory)"
    return f"Process {number} of this DDP run {reason}.\n{how_to_go_on(record.file.parent)}"


def _end(workers: list[subprocess.Popen[bytes]]) -> None:
    for worker in workers:
        worker.terminate()
    until = time.monotonic() + LEAVE
    for worker in workers:
        try:
            worker.wait(max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:  # it waits for this process
            worker.kill()
            worker.wait()


def _is_exchange_error(error: BaseException) -> bool:
    """Whether another process did not answer."""
    return isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and "/gloo/" in str(error))


@contextmanager
def quiet_worker(folder: Path) -> Iterator[None]:
    """In a worker process of the run in `folder`: the first process says how the run ends. A worker says it where the first one
    was killed, or has no error of its own."""
    if not is_worker():
        yield
        return
    try:
        try:
            yield
        except Exception as error:  # the first process ends this one if it has the same error, or waits for an exchange
            _wait_for_end(60 if _is_exchange_error(error) else NOTICE)
            raise
    except (Exception, Stopped):
        if not parent_ended():
            raise
        if os.environ["LOCAL_RANK"] != "1":
            raise SystemExit(1) from None
        raise FaceattrError(f"The first process of this DDP run was killed.\n{how_to_go_on(folder)}") from None


def _wait_for_end(seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until and not parent_ended():
        time.sleep(0.05)
