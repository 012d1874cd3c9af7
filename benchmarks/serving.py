"""serve.py under load, by `hey` (Debian's package): requests per second, latencies, and memory over many requests.

    python benchmarks/serving.py IMAGE CKPT [CKPT …]      # 1, 8 and 64 clients, with faces found and without; 2 minutes for each
    python benchmarks/serving.py IMAGE CKPT --requests 20000      # memory of the server, with 8 clients

IMAGE is sent as it is. CKPT is a checkpoint, or a folder of export.py. Prints tables in Markdown; the last column is how many cores
other programs used meanwhile. `hey` runs on the same machine.
"""

import argparse
import csv
import os
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from measure_process import busy_seconds

ROOT = Path(__file__).resolve().parents[1]
CLIENTS, SECONDS = (1, 8, 64), 20
STEPS = 10


@contextmanager
def server(ckpt: str, *arguments: str) -> Iterator[tuple[int, str]]:
    """serve.py on a free port: the id of its process, and its address."""
    command = [sys.executable, str(ROOT / "serve.py"), f"ckpt={ckpt}", "port=0", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout
        line = next(line for line in process.stdout if line.startswith("Serving at "))
        yield process.pid, re.findall(r"http://\S+", line)[0]
    finally:
        process.terminate()
        process.wait()


def hey(address: str, image: Path, *limit: str) -> tuple[np.ndarray, Counter[str]]:
    """Seconds of each answered request, and how many had which status."""
    given = ["-t", "0", "-m", "POST", "-T", "application/octet-stream", "-D", str(image), "-o", "csv"]
    done = subprocess.run(["hey", *given, *limit, f"{address}/predict"], capture_output=True, text=True, check=True)
    rows = list(csv.DictReader(done.stdout.splitlines()))
    statuses = Counter(row["status-code"] for row in rows)
    return np.array([float(row["response-time"]) for row in rows if row["status-code"] == "200"]), statuses


def used(process: int) -> tuple[float, float, float]:
    """Seconds of processor time of all programs, and of the server and the runs of hey that have ended; the time."""
    user, system = map(int, Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[11:13])
    ended = os.times()
    own = (user + system) / os.sysconf("SC_CLK_TCK") + ended.children_user + ended.children_system
    return busy_seconds(), own, time.monotonic()


def resident(process: int) -> float:
    """Megabytes."""
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def rates(image: Path, ckpts: list[str]) -> None:
    print("| model | faces | clients | requests/s | p50 ms | p95 ms | p99 ms | other answers | others' cores |")
    print("|---|---|---|---|---|---|---|---|---|")
    for ckpt in ckpts:
        for faces in ("as trained", "none"):
            with server(ckpt, *(["faces=none"] if faces == "none" else [])) as (process, address):
                hey(address, image, "-n", "16", "-c", "8")
                for clients in CLIENTS:
                    start = used(process)
                    seconds, statuses = hey(address, image, "-z", f"{SECONDS}s", "-c", str(clients))
                    busy, own, elapsed = (end - begin for begin, end in zip(start, used(process), strict=True))
                    p = 1000 * np.percentile(seconds, (50, 95, 99))
                    failed = {status: n for status, n in statuses.items() if status != "200"} or ""
                    print(
                        f"| {ckpt} | {faces} | {clients} | {len(seconds) / elapsed:.1f} | {p[0]:,.0f} | {p[1]:,.0f} | "
                        f"{p[2]:,.0f} | {failed} | {max(0, busy - own) / elapsed:.1f} |",
                        flush=True,
                    )


def memory(image: Path, ckpt: str, requests: int) -> None:
    print("| requests | resident memory, MB |\n|---|---|")
    with server(ckpt) as (process, address):
        for step in range(STEPS + 1):
            if step:
                seconds, _ = hey(address, image, "-n", str(requests // STEPS), "-c", "8")
                assert len(seconds) == requests // STEPS
            print(f"| {step * requests // STEPS:,} | {resident(process):,.0f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("image", type=Path)
    parser.add_argument("ckpt", nargs="+")
    parser.add_argument("--requests", type=int)
    given = parser.parse_args()
    if given.requests:
        memory(given.image, given.ckpt[0], given.requests)
    else:
        rates(given.image, given.ckpt)


if __name__ == "__main__":
    main()
