"""Starts the competitors, one process at a time, and saves each measurement in a JSON file at once."""

import csv
import datetime
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import result_tables
from measure_process import CommandFailed, Measurement, measure

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
PACKAGES = ("torch", "torchvision", "pytorch-lightning", "torchmetrics", "timm", "hydra-core", "numpy", "pillow")
Record = dict[str, Any]


class Benchmark:
    """The measurements so far, and the file that holds them."""

    def __init__(self, file: Path, cache: Path, quick: bool) -> None:
        self.file, self.cache, self.quick = file, cache, quick
        self.keras = Path(os.environ.get("KERAS_PYTHON", ROOT / ".venv-bench" / "bin" / "python"))
        self.results: Record = json.loads(file.read_text()) if file.exists() else {"machine": {}, "runs": []}
        self.failed = 0

    def start(self, cases: Sequence[str], resume: bool) -> None:
        """Remove old measurements of these cases, unless `resume`, and describe the machine."""
        if not resume:
            self.results["runs"] = [run for run in self.results["runs"] if run["case"] not in cases]
        # in a process of its own: torch loaded here would count as memory shared with the competitors
        program = "import json, benchmark; print(json.dumps(benchmark.describe_machine()))"
        command = [sys.executable, "-c", program]
        printed = subprocess.run(command, cwd=HERE, stdout=subprocess.PIPE, text=True, check=True).stdout
        self.results["machine"] |= json.loads(printed) | {"command": " ".join(["python", *sys.argv])}

    def record(self, case: str, variant: str, number: int, run: Callable[[], Record]) -> None:
        """Make one measurement and save it. A failed one is reported and left out; one that is saved already is not repeated."""
        key = {"case": case, "variant": variant, "round": number}
        if any(saved.items() >= key.items() for saved in self.results["runs"]):
            return
        now = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
        try:
            record = key | {"date": now, "commit": self.results["machine"]["commit"]} | run()
        except CommandFailed as error:
            self.failed += 1
            print(f"{case} {variant} round {number} FAILED: {error}", file=sys.stderr, flush=True)
            return
        self.results["machine"]["versions"] |= record.pop("versions", {})
        self.results["runs"].append(record)
        self._save()
        rate = f"{result_tables.steady_rate(record):,.1f} images/s, " if record.get("rates") else ""
        seconds, megabytes, others = record["seconds"], record["memory"]["pss"], record["other_busy_cores"]
        warning = f"  (other processes used {others:.1f} cores)" if others > 0.15 else ""
        print(f"{case:12} {variant:10} round {number}: {rate}{seconds:.1f} s, {megabytes:.0f} MB{warning}", flush=True)

    def _save(self) -> None:
        part = self.file.with_suffix(".part")
        part.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(json.dumps(self.results, indent=1) + "\n")
        part.replace(self.file)

    def run_module(self, module: str, *arguments: object) -> Record:
        """A peer or a loop of ours (`peers.timm`, `bare_loop`), which prints one line of JSON."""
        python = self.keras if module == "peers.keras" else Path(sys.executable)
        env = dict(os.environ)
        if module == "bare_loop":
            env["GOMP_SPINCOUNT"] = "20000"  # as train.py sets it
        measured = measure([str(python), "-m", module, *map(str, arguments)], cwd=HERE, env=env)
        printed = json.loads(measured.stdout.strip().splitlines()[-1])
        epochs = printed.pop("epochs")
        times = {"rates": [e["rate"] for e in epochs], "epochs": [e["seconds"] for e in epochs]}
        return to_record({**times, "first_epoch": epochs[0]["done"], **printed, "seconds": measured.seconds}, measured)

    def run_training(self, *overrides: str, epochs: int, images: int, cache: Path | None = None) -> Record:
        """A real run of train.py. Its cache is empty unless one is given. `images`: how many training images it must report."""
        with tempfile.TemporaryDirectory(prefix="faceattr-bench-") as temporary:
            folder, own_cache = Path(temporary, "run"), cache or Path(temporary, "cache")
            length = (f"trainer.max_epochs={epochs}", "trainer.patience=null", f"hydra.run.dir={folder}")
            command = [sys.executable, str(ROOT / "train.py"), *overrides, *length]
            env = {**os.environ, "FACEATTR_CACHE": str(own_cache)}
            measured = measure(command, cwd=ROOT, env=env, watch=folder / "metrics.csv")
            with (folder / "metrics.csv").open() as file:
                rows = list(csv.DictReader(file))
            summary = json.loads((folder / "run.json").read_text())
        if summary["images"]["train"] != images or len(rows) != epochs:
            raise CommandFailed(f"trained on {summary['images']['train']} images for {len(rows)} epochs")
        values = {
            "rates": [float(row["images_per_second"]) for row in rows],
            "epochs": [float(row["seconds"]) for row in rows],
            "first_epoch": measured.file_appeared,
            "parameters": summary["parameters"]["total"],
            "precision": summary["precision"],
            "seconds": measured.seconds,
        }
        return to_record(values, measured)


def cache_folder() -> Path:
    """The folder for the benchmark's image files, decoded pixels and cached features."""
    return Path(os.environ.get("FACEATTR_CACHE") or Path.home() / ".cache" / "faceattr") / "bench"


def to_record(values: Record, measured: Measurement) -> Record:
    """The values, rounded to five digits, with the memory and what else the machine did."""

    def shorten(value: Any) -> Any:
        if isinstance(value, list):
            return [shorten(each) for each in value]
        return float(f"{value:.5g}") if isinstance(value, float) else value

    used = {"memory": measured.memory, "other_busy_cores": measured.other_busy_cores}
    return {name: shorten(value) for name, value in values.items()} | used


def describe_machine() -> Record:
    from faceattr.data.decode import cores
    from faceattr.training.run_json import describe_machine as describe
    from faceattr.training.trainer import cpu_capabilities

    able = cpu_capabilities()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    return {
        "cpu": able.get("cpu_name") or platform.processor(),
        "cores": cores(),
        "bf16": bool(able.get("avx512_bf16") or able.get("amx_bf16")),
        "memory_gb": round(memory, 1),
        "system": f"{platform.system()} {platform.release()}",
        "versions": {"python": platform.python_version()} | {name: version(name) for name in PACKAGES},
        "commit": describe()["git"],
    }
