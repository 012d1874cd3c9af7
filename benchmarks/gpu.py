"""The same on a CUDA device: images per second of every model, with each switch, beside the ceiling and two peers.

    python benchmarks/gpu.py [--seconds 480] [--only ours,ceiling] [--images 20000] [--device cpu --tiny]

One process, no network. The most valuable measurements come first; a line is printed and results-gpu.json written after each,
and what the time does not allow is named at the end. `--tiny` tries every part on a CPU in a minute or two.
"""

import argparse
import gc
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
STUDY = HERE.parent / ".gpu"  # faces/faces.csv and vgg16_fp16.pth, where they were brought along
SLOW = {"compile": 25.0, "peer": 14.0, "study": 10.0, "tests": 80.0}
"""Seconds that a measurement of this kind may take; another takes 4."""


class Utilisation:
    """What nvidia-smi says of the GPU, ten times a second; nothing where it is not installed."""

    def __init__(self) -> None:
        self.samples: list[tuple[float, float]] = []
        command = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "-lms", "100"]
        self.process = (
            subprocess.Popen(command, stdout=subprocess.PIPE, text=True) if shutil.which(command[0]) else None
        )
        if self.process:
            threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process is not None and self.process.stdout is not None
        for line in self.process.stdout:
            if line.split(",")[0].strip().isdigit():
                self.samples.append((time.time(), float(line.split(",")[0])))

    def mean(self, since: float, until: float) -> float | None:
        found = [value for at, value in self.samples if since <= at <= until]
        return sum(found) / len(found) if found else None

    def stop(self) -> None:
        if self.process:
            self.process.kill()
            self.process.wait()


def plan(cases: Sequence[str], batches: tuple[int, int], *, cuda: bool, study: bool) -> list[tuple[str, str, int, str]]:
    """(part, case, batch, how), the most valuable first."""
    small, large = batches
    order: list[tuple[str, str, int, str]] = []
    for case in cases:
        order += [("ours", case, batch, "default") for batch in (large, small)]
        order += [("ceiling", case, batch, "eager") for batch in (large, small)]
        order += [("ours", case, small, "eager"), ("ceiling", case, small, "graph")] if cuda else []
        order += [("peer", case, large, "lightning")] if case == "cnn7" else []
    order += [("study", "faces", 32, "first"), ("study", "faces", 32, "again")] if study else []
    if cuda:
        order += [("tests", "pytest -m gpu", 0, "")]
        for case in ("cnn7", "alexnet", "vgg16 frozen cached"):
            order += [("ours", case, large, "eager"), ("ceiling", case, large, "graph")]
        order += [("compile", case, large, "ceiling") for case in ("cnn7", "resnet18 224")]
    for case in ("cnn7", "resnet18 224", "vgg16 full 224"):
        order += [("peer", case, large, who) for who in ("lightning", "timm")]
    for case in ("cnn7", "vgg16 last_block cached", "vgg16 frozen cached", "vgg16 full 224"):
        order += [("ours", case, large, "disk")]
    order += [("ours", "cnn7", small, "disk"), ("ours", "vgg16 frozen cached", small, "disk")]
    order += [("ours", "resnet18 224", small, "no gc"), ("pieces", "cnn7", large, ""), ("pieces", "cnn7", small, "")]
    if cuda:
        order += [("ours", case, large, "deterministic") for case in ("cnn7", "vgg16 full 224")]
        order += [("compile", case, large, "ours") for case in ("cnn7", "resnet18 224")]
        order += [("compile", "vgg16 full 224", large, "ceiling")]
    return list(dict.fromkeys(item for item in order if item[1] in cases or item[0] in ("study", "tests")))


SWITCHES = {
    "default": (),
    "eager": ("trainer.compile=false",),
    "disk": ("data.pack=disk",),
    "deterministic": ("trainer.deterministic=true",),
    "no gc": (),
}


def measure(setting: Any, part: str, case: str, batch: int, how: str) -> dict[str, Any]:
    """One measurement of the plan."""
    import gpu_cases
    import gpu_peers

    if part == "ours":
        return gpu_cases.ours(setting, case, batch, *SWITCHES[how], collect=how != "no gc")
    if part == "ceiling":
        return gpu_cases.ceiling(setting, case, batch, how)
    if part == "compile" and how == "ours":
        return gpu_cases.ours(setting, case, batch, "trainer.compile=true")
    if part == "compile":
        return gpu_cases.ceiling(setting, case, batch, "compiled")
    if part == "study":
        return gpu_cases.study(setting, STUDY / "faces", STUDY / "vgg16_fp16.pth")
    if part == "tests":
        return gpu_tests()
    if part == "pieces":
        return gpu_cases.pieces(setting, case, batch)
    return {"lightning": gpu_peers.lightning, "timm": gpu_peers.timm}[how](setting, case, batch)


def gpu_tests() -> dict[str, Any]:
    """The tests that need a CUDA device, in processes of their own: pytest's last line, and the first lines of what failed."""
    workers = str(min(5, os.cpu_count() or 1))
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-n", workers, "-p", "no:cacheprovider", "--tb=short"]
    ended = subprocess.run(command, cwd=HERE.parent, capture_output=True, text=True)
    lines = ended.stdout.strip().splitlines() or [ended.stderr.strip()[-300:]]
    if ended.returncode:
        raise RuntimeError(f"{lines[-1]}; {'; '.join(line for line in lines if line.startswith(('FAILED', 'ERROR')))}")
    return {"tests": lines[-1]}


class Benchmark:
    """The measurements, their time limit and their file."""

    def __init__(self, out: Path, setting: Any, seconds: float, results: dict[str, Any]) -> None:
        self.out, self.setting, self.results = out, setting, results
        self.end, self.began = time.monotonic() + seconds, time.monotonic()
        self.utilisation = Utilisation()

    @property
    def left(self) -> float:
        return self.end - time.monotonic()

    def run(self, item: tuple[str, str, int, str]) -> None:
        """Measure one item if the time allows, and write down what came of it."""
        part, case, batch, how = item
        need = SLOW.get(part, 4.0) if not self.setting.tiny else 1.0
        if self.left < need:
            self.results["cut"].append(" ".join(map(str, item)))
            self.write()
            return
        record: dict[str, Any] = {"part": part, "case": case, "batch": batch, "how": how}
        started, since = time.monotonic(), time.time()
        _memory(reset=True)
        signal.setitimer(signal.ITIMER_REAL, max(5.0, min(self.left + 5, 4 * need + 60)))
        try:
            record |= measure(self.setting, part, case, batch, how)
        except Exception as error:
            record |= {"error": f"{type(error).__name__}: {error}"[:400], "trace": traceback.format_exc()[-1500:]}
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        record |= {"took": time.monotonic() - started, "peak_memory_gb": _memory()}
        timed = record.get("ms_per_step", 0) * record.get("steps", 0) / 1000
        record["utilisation"] = self.utilisation.mean(max(since, time.time() - timed - 0.2), time.time())
        self.results["measurements"].append(record)
        self.write()
        print(_line(time.monotonic() - self.began, record), flush=True)
        _clear(part)

    def write(self) -> None:
        part = self.out.with_suffix(".part")
        part.write_text(json.dumps(self.results, indent=1), encoding="utf-8")
        part.replace(self.out)


def _memory(reset: bool = False) -> float | None:
    import torch

    if not torch.cuda.is_available():
        return None
    if reset:
        torch.cuda.reset_peak_memory_stats()
        return None
    return torch.cuda.max_memory_allocated() / 1e9


def _clear(part: str) -> None:
    import torch

    gc.collect()
    if part == "compile":
        torch._dynamo.reset()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _line(elapsed: float, record: dict[str, Any]) -> str:
    name = f"{elapsed:6.1f} s  {record['part']:8}{record['case']:26}{record['batch']:4} {record['how']:14}"
    if "error" in record:
        return f"{name}FAILED {record['error'][:200]}"
    if "tests" in record:
        return name + record["tests"]
    if "pieces_ms" in record:
        return name + ", ".join(f"{part} {ms:.3f} ({host:.3f})" for part, (ms, host) in record["pieces_ms"].items())
    flops = record.get("flops_per_step")
    more = f", {flops / record['ms_per_step'] / 1e9:,.0f} TFLOP/s" if flops else ""
    more += f", {record['seconds']:.1f} s, accuracy {record['val_accuracy']:.4f}" if "val_accuracy" in record else ""
    memory, busy = record.get("peak_memory_gb"), record.get("utilisation")
    more += f", {memory:.1f} GB" if memory is not None else ""
    more += f", {busy:.0f}% busy" if busy is not None else ""
    host = record.get("host_ms_per_step", float("nan"))
    rate = record["images_per_second"]
    return (
        f"{name}{rate:9,.0f} images/s {record['ms_per_step']:8.3f} ms (host {host:.3f}){more} [{record['took']:.1f} s]"
    )


def parsed(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=float(os.environ.get("BENCH_SECONDS", "470")))
    parser.add_argument(
        "--only", default="", help="parts, comma-separated: ours, ceiling, study, tests, peer, pieces, compile"
    )
    parser.add_argument("--cases", default="", help="comma-separated; default: all")
    parser.add_argument("--images", type=int, default=20_000, help="generated training images")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--tiny", action="store_true", help="the smallest of everything: does it run?")
    parser.add_argument("--out", type=Path, default=HERE / "results-gpu.json")
    parser.add_argument("--go-on", action="store_true", help="keep what the file holds, measure what it lacks")
    return parser.parse_args(arguments)


def machine() -> dict[str, Any]:
    import pytorch_lightning
    import timm
    import torch
    import torchvision

    found: dict[str, Any] = {
        "gpu": None,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "date": time.strftime("%Y-%m-%d"),
    }
    versions = (
        ("torch", torch),
        ("torchvision", torchvision),
        ("pytorch_lightning", pytorch_lightning),
        ("timm", timm),
    )
    found["versions"] = {name: module.__version__ for name, module in versions}
    if torch.cuda.is_available():
        device = torch.cuda.get_device_properties(0)
        found |= {"gpu": device.name, "gpu_memory_gb": round(device.total_memory / 1e9, 1)}
    return found


def prepare(given: argparse.Namespace) -> Any:
    """Generated files and quiet surroundings."""
    import logging

    import gpu_cases
    import torch

    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    torch.backends.cudnn.benchmark = given.device == "cuda"
    root = Path(os.environ.setdefault("FACEATTR_CACHE", str(Path(tempfile.gettempdir()) / "faceattr-bench-gpu")))
    count, val = (48, 16) if given.tiny else (given.images, 512)
    folder = root / f"bench_{count}"
    if not (folder / "complete").exists():
        shutil.rmtree(folder, ignore_errors=True)
        gpu_cases.draw_files(folder, train=count, val=val)
    workers = 2 if given.tiny else min(16, os.cpu_count() or 1)
    return gpu_cases.Setting(given.device, folder, given.tiny, workers)


def main(arguments: Sequence[str]) -> int:
    given, began = parsed(arguments), time.monotonic()
    sys.path.insert(0, str(HERE))
    import torch

    if given.device == "cuda" and not torch.cuda.is_available():
        print("No CUDA device is visible here: nothing was measured.")
        return 0
    signal.signal(signal.SIGALRM, _too_long)
    setting = prepare(given)
    import gpu_cases

    results: dict[str, Any] = {"machine": machine(), "measurements": [], "cut": []}
    if given.go_on and given.out.exists():
        results = json.loads(given.out.read_text(encoding="utf-8"))
    print(f"{results['machine']}\nprepared in {time.monotonic() - began:.1f} s", flush=True)
    cases = [name for name in gpu_cases.CASES if not given.cases or name in given.cases.split(",")]
    study = (STUDY / "faces" / "faces.csv").exists() and (STUDY / "vgg16_fp16.pth").exists()
    items = plan(cases, (4, 8) if given.tiny else (32, 256), cuda=given.device == "cuda", study=study)
    if given.only:
        items = [item for item in items if item[0] in given.only.split(",")]
    done = {tuple(one[key] for key in ("part", "case", "batch", "how")) for one in results["measurements"]}
    benchmark = Benchmark(given.out, setting, given.seconds - (time.monotonic() - began), results)
    left = [item for item in items if item not in done]
    signal.signal(signal.SIGTERM, _stop)
    try:
        while left:
            benchmark.run(left[0])
            left.pop(0)
            _go_on_after_a_broken_device(results, benchmark.left, arguments)
    except Stopped:
        results["cut"] += [" ".join(map(str, item)) for item in left]
        benchmark.write()
    finally:
        benchmark.utilisation.stop()
    if results["cut"]:
        print(f"No time was left for {len(results['cut'])}: {'; '.join(results['cut'])}")
    from render_gpu import tables

    print(tables(results), flush=True)
    return 1 if any("error" in one for one in results["measurements"]) else 0


class Stopped(BaseException):
    """The process was asked to end: what was measured is shown."""


def _too_long(*_: object) -> None:
    raise TimeoutError("took too long")


def _stop(*_: object) -> None:
    signal.setitimer(signal.ITIMER_REAL, 0)
    raise Stopped


def _go_on_after_a_broken_device(results: dict[str, Any], left: float, arguments: Sequence[str]) -> None:
    """After some errors every further call of CUDA in this process fails: a new process takes over."""
    import torch

    if not results["measurements"] or "error" not in results["measurements"][-1] or not torch.cuda.is_available():
        return
    try:
        torch.cuda.synchronize()
    except Exception:
        print("The device is unusable in this process; a new one goes on.", flush=True)
        command = [sys.executable, str(Path(__file__).resolve()), *arguments, "--go-on", "--seconds", str(int(left))]
        os.execv(sys.executable, command)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
