"""Runs one command in a process of its own and measures it: wall time, when a file appeared, peak memory of it and its children."""

import contextlib
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path


class CommandFailed(Exception):
    """The command timed out or had an exit code other than 0; the message holds the end of its output."""


@dataclass
class Measurement:
    """What a command printed and what it used.

    `memory`, peaks in MB: `pss` is the share of memory of the process and its children, `own` the part of it that belongs to
    no file (anonymous and shared memory, which the system cannot take back), `rss` the resident memory of the largest process.
    """

    stdout: str
    seconds: float
    file_appeared: float | None = None  # seconds after the launch
    memory: dict[str, float] = field(default_factory=dict)
    other_busy_cores: float = 0.0  # cores that other processes used meanwhile


def measure(
    command: Sequence[str], *, cwd: Path, env: Mapping[str, str], watch: Path | None = None, limit: float = 3600
) -> Measurement:
    """Run `command`. Memory is sampled twice a second; the file `watch` is looked for every 30 ms. `limit` is in seconds."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        busy = busy_seconds()
        started, environment = time.perf_counter(), {**env, "BENCH_LAUNCHED": str(time.time())}
        process = subprocess.Popen(command, cwd=cwd, env=environment, stdout=out, stderr=err, start_new_session=True)
        ended, appeared, memory = False, None, PeakMemory(process.pid)
        try:
            while not ended:
                pid, status, usage = os.wait4(process.pid, os.WNOHANG)
                ended, now = pid != 0, time.perf_counter() - started
                if watch and appeared is None and watch.exists():
                    appeared = now
                if not ended:
                    memory.sample(now)
                    if now > limit:
                        raise CommandFailed(f"still running after {limit:.0f} s")
                    time.sleep(0.03)
        finally:
            if not ended:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                os.waitpid(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status) if ended else -9
        stdout, stderr = (_text(file) for file in (out, err))
        if process.returncode:
            raise CommandFailed(f"exit code {process.returncode}: {(stderr or stdout).strip()[-2000:]}")
        others = max(0.0, busy_seconds() - busy - usage.ru_utime - usage.ru_stime) / now
        peak = memory.peak | {"rss": usage.ru_maxrss * 1024 / 1e6}  # Linux counts in KiB
        return Measurement(stdout, now, appeared, {n: round(mb, 1) for n, mb in peak.items()}, round(others, 3))


class PeakMemory:
    """The largest `pss` and `own` in MB of a process and its children."""

    def __init__(self, pid: int) -> None:
        self.pid, self.peak = pid, {"pss": 0.0, "own": 0.0}
        self._sampled, self._largest = 0.0, 0

    def sample(self, now: float) -> None:
        """At most twice a second; `pss` is read only where the resident pages grew, because reading it is slow."""
        if now - self._sampled <= 0.5:
            return
        self._sampled, pids = now, process_tree(self.pid)
        if (pages := resident_pages(pids)) > 1.01 * self._largest:
            self._largest, shares = pages, memory_shares(pids)
            self.peak = {name: max(self.peak[name], value) for name, value in shares.items()}


def busy_seconds() -> float:
    """CPU seconds of all cores that were not idle since the start of the machine (Linux; 0 elsewhere). Time that the host of a
    virtual machine took is included."""
    with contextlib.suppress(OSError):
        user, nice, system, _idle, _wait, irq, soft, steal, *_ = map(int, Path("/proc/stat").read_text().split()[1:11])
        return (user + nice + system + irq + soft + steal) / os.sysconf("SC_CLK_TCK")
    return 0.0


def _text(file) -> str:
    file.seek(0)
    return file.read().decode(errors="replace")


def process_tree(root: int) -> set[int]:
    """The process and its children, their children and so on, as far as they still run."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
    pids, grown = {root}, True
    while grown:
        more = {child for child, parent in parents.items() if parent in pids} - pids
        pids, grown = pids | more, bool(more)
    return pids


def resident_pages(pids: set[int]) -> int:
    """Pages in memory; a shared page counts once for each process."""
    pages = 0
    for pid in pids:
        with contextlib.suppress(OSError, IndexError):
            pages += int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages


def memory_shares(pids: set[int]) -> dict[str, float]:
    """`pss` and `own` in MB (Linux; 0 elsewhere)."""
    shares = {"pss": 0.0, "own": 0.0}
    for pid in pids:
        with contextlib.suppress(OSError):
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
            sizes = {name: float(rest.split()[0]) * 1024 / 1e6 for name, _, rest in (x.partition(":") for x in lines)}
            shares["pss"] += sizes.get("Pss", 0)
            shares["own"] += sizes.get("Pss_Anon", 0) + sizes.get("Pss_Shmem", 0)
    return shares
