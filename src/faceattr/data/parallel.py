"""Spreads work on many images over the cores: in threads, or in processes where Python's lock would be the limit."""

import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import BrokenExecutor, Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from faceattr.errors import FaceattrError

Result = TypeVar("Result")

PROCESSES_FROM = 2000
"""Images. For fewer it is not worth starting processes: each imports numpy, Pillow and OpenCV first."""
THREADS_UP_TO = 4
"""Workers. Part of decoding is Python's own work, which threads take in turn: of small images four threads decode as many as four
processes, and 16 threads fewer (docs/scaling.md)."""

MOST_WORKERS = 32
"""More than the process that collects their results can feed; each takes 50 MB."""


def cores() -> int:
    """Number of CPU cores that this process may use; the limits of a container count (`docker run --cpus`)."""
    from loky import cpu_count

    return cpu_count()


def default_workers() -> int:
    """One for each core, up to `MOST_WORKERS`."""
    return min(cores(), MOST_WORKERS)


def processes_pay(images: int, workers: int | None) -> bool:
    """Whether to read so many images in processes, not in threads."""
    return images >= PROCESSES_FROM and (workers or default_workers()) > THREADS_UP_TO


def run_tasks(
    tasks: Iterable[Callable[[], Result]], *, workers: int | None = None, processes: bool = True
) -> Iterator[Result]:
    """The results of the tasks, in their order.

    tasks: of some 64 images each, so that one is worth sending to a process; with their results they must be picklable.
    workers: number of threads or processes; None: `default_workers`.

    Raises FaceattrError where a process was killed.
    """
    workers = workers or default_workers()
    with _processes(workers) if processes else ThreadPoolExecutor(workers) as pool:
        yield from in_order(pool, tasks, ahead=2 * workers)


@contextmanager
def _processes(workers: int) -> Iterator[Executor]:
    from loky import ProcessPoolExecutor  # it does not run the main script again, as Python's own pool does

    pool = ProcessPoolExecutor(
        workers, initializer=_start_process, initargs=(os.getpid(),), env={"OMP_NUM_THREADS": "1"}
    )
    try:
        yield pool
    except BrokenExecutor as error:
        raise FaceattrError(
            f"One of {workers} processes that read or draw images was killed. Is the memory full?"
        ) from error
    finally:
        pool.shutdown(kill_workers=True)


def _start_process(main: int) -> None:
    """Ctrl-C reaches every process of a terminal: the main one ends the others. They end by themselves where it was killed."""
    import cv2

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(1)  # there is a process for each core

    def watch() -> None:
        while os.getppid() == main:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def in_order(pool: Executor, tasks: Iterable[Callable[[], Result]], *, ahead: int) -> Iterator[Result]:
    """The results of the tasks, in their order. At most `ahead` tasks are started before their results are taken."""
    submitted: deque[Future[Result]] = deque()
    for task in tasks:
        submitted.append(pool.submit(task))
        while submitted and (len(submitted) >= ahead or submitted[0].done()):
            yield submitted.popleft().result()
    while submitted:
        yield submitted.popleft().result()
