"""One measurement: a command in a process of its own, its wall time, when a file appeared, and the peak memory of its tree."""

import contextlib
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path


class Failed(Exception):
    """The command did not end well; says how."""


@dataclass
class Ended:
    """`memory`: MB at their peak. `pss` is the whole tree's share of memory, `own` the part of it that is no file's (anonymous
    and shared memory, which the system cannot take back), `rss` the largest process's resident memory as the kernel counts it.
    """

    out: str
    seconds: float
    appeared: float | None = None
    memory: dict[str, float] = field(default_factory=dict)
    others: float = 0.0  # cores that other processes kept busy meanwhile


def measure(
    command: Sequence[str], *, cwd: Path, env: Mapping[str, str], watch: Path | None = None, limit: float = 3600
) -> Ended:
    """Run `command`; memory is sampled twice a second, `watch` looked for every 30 ms."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        busy = busy_seconds()
        began, environment = time.perf_counter(), {**env, "BENCH_LAUNCHED": str(time.time())}
        process = subprocess.Popen(command, cwd=cwd, env=environment, stdout=out, stderr=err, start_new_session=True)
        ended, appeared, sampled, largest, peak = False, None, 0.0, 0, {"pss": 0.0, "own": 0.0}
        try:
            while not ended:
                pid, status, usage = os.wait4(process.pid, os.WNOHANG)
                ended, now = pid != 0, time.perf_counter() - began
                if watch and appeared is None and watch.exists():
                    appeared = now
                if not ended:
                    if now - sampled > 0.5:
                        sampled, pids = now, tree(process.pid)
                        if (size := resident(pids)) > 1.01 * largest:  # a closer look takes the system a while
                            largest, found = size, shares(pids)
                            peak = {name: max(peak[name], value) for name, value in found.items()}
                    if now > limit:
                        raise Failed(f"still running after {limit:.0f} s")
                    time.sleep(0.03)
        finally:
            if not ended:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                os.waitpid(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status) if ended else -9
        text, complaint = (_text(file) for file in (out, err))
        if process.returncode:
            raise Failed(f"exit code {process.returncode}: {(complaint or text).strip()[-2000:]}")
        peak["rss"] = usage.ru_maxrss * 1024 / 1e6  # Linux counts in KiB
        others = max(0.0, busy_seconds() - busy - usage.ru_utime - usage.ru_stime) / now
        memory = {name: round(megabytes, 1) for name, megabytes in peak.items()}
        return Ended(text, now, appeared, memory, round(others, 3))


def busy_seconds() -> float:
    """CPU seconds of all cores so far that were not idle, as Linux tells it; time taken by a machine's host counts as well."""
    with contextlib.suppress(OSError):
        user, nice, system, _idle, _wait, irq, soft, steal, *_ = map(int, Path("/proc/stat").read_text().split()[1:11])
        return (user + nice + system + irq + soft + steal) / os.sysconf("SC_CLK_TCK")
    return 0.0


def _text(file) -> str:
    file.seek(0)
    return file.read().decode(errors="replace")


def tree(root: int) -> set[int]:
    """A process and all that it has started and that still run."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
    found, grown = {root}, True
    while grown:
        more = {child for child, parent in parents.items() if parent in found} - found
        found, grown = found | more, bool(more)
    return found


def resident(pids: set[int]) -> int:
    """Pages in memory, those that are shared counted in each process."""
    pages = 0
    for pid in pids:
        with contextlib.suppress(OSError, IndexError):
            pages += int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages


def shares(pids: set[int]) -> dict[str, float]:
    """`pss` and `own` in MB, as Linux tells them; zeros elsewhere."""
    found = {"pss": 0.0, "own": 0.0}
    for pid in pids:
        with contextlib.suppress(OSError):
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
            sizes = {name: float(rest.split()[0]) * 1024 / 1e6 for name, _, rest in (x.partition(":") for x in lines)}
            found["pss"] += sizes.get("Pss", 0)
            found["own"] += sizes.get("Pss_Anon", 0) + sizes.get("Pss_Shmem", 0)
    return found
