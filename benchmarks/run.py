"""The benchmark: every competitor on the same image files, one process at a time, in turn, and again in the next round.

    python benchmarks/run.py [--cases s3,s4d,growth] [--rounds 5] [--continue] [--quick] [--render]

Each measurement is saved in benchmarks/results.json at once; at the end docs/benchmarks.md gets its tables from there. Image files
are drawn into $FACEATTR_CACHE/bench. The Keras peer runs in .venv-bench (or $KERAS_PYTHON), the rest in this environment.
"""

import argparse
import csv
import datetime
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import render
from cases import CASES, EXTRAS, GROWTH, PEERS, ROWS
from files import class_folders, drawn
from measure import Ended, Failed, measure

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
PACKAGES = ("torch", "torchvision", "pytorch-lightning", "torchmetrics", "timm", "hydra-core", "numpy", "pillow")
TINY = ("model=cnn", "model.blocks=[[8],[16]]", "model.image_size=[32,32]", "augment=light")
Record = dict[str, Any]


class Benchmark:
    """The measurements, the file they are kept in, and how each competitor is started."""

    def __init__(self, results: Path, cache: Path, quick: bool) -> None:
        self.file, self.cache, self.quick = results, cache, quick
        self.keras = Path(os.environ.get("KERAS_PYTHON", ROOT / ".venv-bench" / "bin" / "python"))
        self.results: Record = json.loads(results.read_text()) if results.exists() else {"machine": {}, "runs": []}
        self.failed = 0

    def start(self, names: Sequence[str], go_on: bool) -> None:
        """Forget what is to be measured again, and describe the machine."""
        if not go_on:
            self.results["runs"] = [run for run in self.results["runs"] if run["case"] not in names]
        ask = "import json, run; print(json.dumps(run.describe_machine()))"  # torch loaded here too would be shared memory
        said = subprocess.run(
            [sys.executable, "-c", ask], cwd=HERE, stdout=subprocess.PIPE, text=True, check=True
        ).stdout
        self.results["machine"] |= json.loads(said) | {"command": " ".join(["python", *sys.argv])}

    def turn(self, case: str, who: str, number: int, take: Callable[[], Record]) -> None:
        """One measurement, saved; a failed one is reported and left out."""
        key = {"case": case, "who": who, "round": number}
        if any(run.items() >= key.items() for run in self.results["runs"]):
            return
        now = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
        try:
            record = key | {"date": now, "commit": self.results["machine"]["commit"]} | take()
        except Failed as why:
            self.failed += 1
            print(f"{case} {who} round {number} FAILED: {why}", file=sys.stderr, flush=True)
            return
        self.results["machine"]["versions"] |= record.pop("versions", {})
        self.results["runs"].append(record)
        part = self.file.with_suffix(".part")
        part.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(json.dumps(self.results, indent=1) + "\n")
        part.replace(self.file)
        shown = f"{render.steady(record):,.1f} images/s, " if record.get("rates") else ""
        took, megabytes, others = record["seconds"], record["memory"]["pss"], record["others"]
        warning = f"  (other processes kept {others:.1f} cores busy)" if others > 0.15 else ""
        print(f"{case:10} {who:10} round {number}: {shown}{took:.1f} s, {megabytes:.0f} MB{warning}", flush=True)

    # ------------------------------------------------------------------ training cases

    def training(self, name: str, rounds: int) -> None:
        case = CASES[name]
        if self.quick:
            case = replace(case, train=3 * case.batch, val=case.batch, own_epochs=min(case.own_epochs, 4))
        pictures = drawn(self.cache, case.faces, 800)
        folder = class_folders(self.cache / f"{name}_{case.train}_{case.val}", pictures, train=case.train, val=case.val)
        optimizer = (f"optim={case.optimizer}", f"optim.lr={case.lr}", f"data.batch_size={case.batch}", "trainer=cpu")
        ours = (*case.overrides, *optimizer, "data=folders", f"data.root={folder}")
        classes = 3 if case.faces == "imfdb" else 2
        ceiling = ("ceiling.py", classes, case.train, case.own_epochs, *case.overrides, *optimizer)
        for number in range(1, rounds + 1):
            for peer in PEERS:
                if peer != "keras" or self.keras.exists():
                    self.turn(name, peer, number, lambda: self.script(f"{peer}_peer.py", name, folder, case.epochs))  # noqa: B023
            self.turn(name, "faceattr", number, lambda: self.train(*ours, epochs=case.own_epochs, images=case.train))
            self.turn(name, "ceiling", number, lambda: self.script(*ceiling))

    def script(self, script: str, *arguments: object) -> Record:
        """A peer or a loop of ours, which prints a line of JSON."""
        python = self.keras if script.startswith("keras") else Path(sys.executable)
        env = (
            {**os.environ, "GOMP_SPINCOUNT": "20000"} if script == "ceiling.py" else os.environ
        )  # as `train.py` sets it
        ended = measure([str(python), str(HERE / script), *map(str, arguments)], cwd=ROOT, env=env)
        said = json.loads(ended.out.strip().splitlines()[-1])
        epochs = said.pop("epochs")
        times = {"rates": [e["rate"] for e in epochs], "epochs": [e["seconds"] for e in epochs]}
        return rounded({**times, "first_epoch": epochs[0]["done"], **said, "seconds": ended.seconds}, ended)

    def train(self, *overrides: str, epochs: int, images: int, cache: Path | None = None) -> Record:
        """A real run of train.py, its cache empty unless one is given."""
        with tempfile.TemporaryDirectory(prefix="faceattr-bench-") as temporary:
            folder, own = Path(temporary, "run"), cache or Path(temporary, "cache")
            length = (f"trainer.max_epochs={epochs}", "trainer.patience=null", f"hydra.run.dir={folder}")
            command = [sys.executable, str(ROOT / "train.py"), *overrides, *length]
            env = {**os.environ, "FACEATTR_CACHE": str(own)}
            ended = measure(command, cwd=ROOT, env=env, watch=folder / "metrics.csv")
            with (folder / "metrics.csv").open() as file:
                rows = list(csv.DictReader(file))
            about = json.loads((folder / "run.json").read_text())
        if about["images"]["train"] != images or len(rows) != epochs:
            raise Failed(f"trained on {about['images']['train']} images for {len(rows)} epochs")
        times = {
            "rates": [float(row["images_per_second"]) for row in rows],
            "epochs": [float(row["seconds"]) for row in rows],
            "first_epoch": ended.appeared,
            "parameters": about["parameters"]["total"],
            "precision": about["precision"],
            "seconds": ended.seconds,
        }
        return rounded(times, ended)

    # ------------------------------------------------------------------ the rest

    def feeding(self, rounds: int) -> None:
        n = 128 if self.quick else 640
        folder = class_folders(self.cache / f"feeding_{n}", drawn(self.cache, "imfdb", 800), train=n, val=32)
        for number in range(1, rounds + 1):
            for who, epochs in (("lightning", 2), ("faceattr", 20)):
                self.turn("feeding", who, number, lambda: self.script("feeding.py", who, folder, epochs))  # noqa: B023

    def growth(self, rounds: int) -> None:
        pictures, cache = drawn(self.cache, "imfdb", 1000, 64), self.cache / "kept"
        for number in range(1, rounds + 1):
            for n in GROWTH[:2] if self.quick else GROWTH:
                folder = class_folders(self.cache / f"growth_{n}", pictures, train=n, val=200)
                run = (*TINY, "data=folders", f"data.root={folder}", "loss=ce", "trainer=cpu")
                epochs = max(2, min(17, 24_000 // n))
                take = lambda: self.train(*run, epochs=epochs, images=n, cache=cache)  # noqa: B023, E731
                self.turn("growth", str(n), number, take)

    def evaluation(self, rounds: int) -> None:
        pictures = drawn(self.cache, "imfdb", 1000, 64)
        env = {**os.environ, "FACEATTR_CACHE": str(self.cache / "kept")}
        with tempfile.TemporaryDirectory(prefix="faceattr-bench-") as temporary:
            folder = class_folders(self.cache / "growth_1000", pictures, train=1000, val=200)
            run = Path(temporary, "run")
            train = (*TINY, "data=folders", f"data.root={folder}", "loss=ce", "trainer=cpu", f"hydra.run.dir={run}")
            measure([sys.executable, "train.py", *train, "trainer.max_epochs=1"], cwd=ROOT, env=env)

            def evaluate(n: int) -> Record:
                folder = class_folders(self.cache / f"rows_{n}", pictures, val=n)
                out = Path(temporary, f"evaluate_{n}_{os.urandom(4).hex()}")
                given = (f"ckpt={run}/checkpoints/best.ckpt", "data=folders", f"data.root={folder}", "split=all")
                command = [sys.executable, "evaluate.py", *given, "trainer=cpu", f"hydra.run.dir={out}"]
                ended = measure(command, cwd=ROOT, env=env)
                return rounded({"seconds": ended.seconds}, ended)

            for number in range(1, rounds + 1):
                for n in ROWS[:1] if self.quick else ROWS:
                    self.turn("evaluation", str(n), number, lambda: evaluate(n))  # noqa: B023

    def startup(self, rounds: int) -> None:
        env = {**os.environ, "FACEATTR_CACHE": str(self.cache / "kept")}

        def take(*command: object) -> Record:
            with tempfile.TemporaryDirectory(prefix="faceattr-bench-") as run:
                ended = measure([sys.executable, *map(str, command), f"hydra.run.dir={run}/run"], cwd=ROOT, env=env)
            said = json.loads(ended.out.splitlines()[-1]) if "first_step" in str(command[0]) else {}
            return rounded({"first_step": said.get("first_step"), "seconds": ended.seconds}, ended)

        take(HERE / "first_step.py")  # draws and packs the sample faces, once
        for number in range(1, rounds + 1):
            self.turn("startup", "first_step", number, lambda: take(HERE / "first_step.py"))
            self.turn("startup", "compose", number, lambda: take("train.py", "--cfg", "job"))


def cache_folder() -> Path:
    """Where image files, packs and kept outputs of the benchmark lie."""
    return Path(os.environ.get("FACEATTR_CACHE") or Path.home() / ".cache" / "faceattr") / "bench"


def rounded(values: Record, ended: Ended) -> Record:
    """With the memory, and what else the machine did; five digits are plenty."""

    def short(value: Any) -> Any:
        if isinstance(value, list):
            return [short(each) for each in value]
        return float(f"{value:.5g}") if isinstance(value, float) else value

    return {name: short(value) for name, value in values.items()} | {"memory": ended.memory, "others": ended.others}


def describe_machine() -> Record:
    from faceattr.data.decode import cores
    from faceattr.training.run_record import describe_machine as describe
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


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", default=",".join([*CASES, *EXTRAS]), help="comma-separated; default: %(default)s")
    parser.add_argument("--rounds", type=int, default=5, help="of each competitor")
    parser.add_argument("--continue", dest="go_on", action="store_true", help="measure only what results.json lacks")
    parser.add_argument(
        "--quick", action="store_true", help="try it out: one round, few images, tables on the terminal only"
    )
    parser.add_argument("--render", action="store_true", help="only make the tables again")
    given = parser.parse_args(arguments)
    names, rounds = given.cases.split(","), 1 if given.quick else given.rounds
    if unknown := [name for name in names if name not in {**CASES, **EXTRAS}]:
        parser.error(f"no case {', '.join(unknown)}; there are: {', '.join([*CASES, *EXTRAS])}")
    results = cache_folder() / "results-quick.json" if given.quick else HERE / "results.json"
    benchmark = Benchmark(results, cache_folder(), given.quick)
    if not given.render:
        if not benchmark.keras.exists():
            print("No .venv-bench here (make bench makes it): the Keras peer is left out.", file=sys.stderr)
        benchmark.start(names, given.go_on)
        for name in names:
            if name in CASES:
                benchmark.training(name, rounds)
            else:
                getattr(benchmark, name)(rounds)
    text = render.tables(benchmark.results)
    if given.quick:
        print(text)
    else:
        render.insert(ROOT / "docs" / "benchmarks.md", text)
    return 1 if benchmark.failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
