"""Runs the published studies and writes what came out: docs/studies-results.md and docs/images/studies.png.

    python studies/reproduce.py ROOT [--budget quick|study] [--only s4a,s4d] [--seeds 0,1,2] [--jobs 2] [--render]

ROOT holds the data sets (and, in or beside it, `weights/`); where a study's own images are not there its stand-in is used.
A run that is in studies/results.json is not made again (--again does). As many runs go on at a time as there are cores, each on
one. Every run is a `python train.py experiment=…` in a process of its own; the document shows the commands.
"""

import argparse
import csv
import json
import os
import shlex
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import render
from plan import JOBS, SEEDS, overrides

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
Record = dict[str, Any]


class Results:
    """studies/results.json: a record per run, saved after each."""

    def __init__(self, file: Path) -> None:
        self.file, self.lock = file, Lock()
        self.runs: list[Record] = json.loads(file.read_text()) if file.exists() else []

    def has(self, **key: Any) -> bool:
        return any(run.items() >= key.items() for run in self.runs)

    def keep(self, record: Record) -> None:
        key = ("job", "budget", "seed")
        with self.lock:
            self.runs = [run for run in self.runs if any(run[k] != record[k] for k in key)] + [record]
            self.runs.sort(key=lambda run: (run["budget"], list(JOBS).index(run["job"]), run["seed"]))
            part = self.file.with_suffix(".part")
            part.write_text("[\n" + ",\n".join(json.dumps(run) for run in self.runs) + "\n]\n")
            part.replace(self.file)


def run(name: str, budget: str, seed: int, data: Path, work: Path) -> Record:
    """One run of train.py, and evaluate.py on its training images where a claim needs them; what of it is kept."""
    source, given = overrides(name, data, budget, seed)
    folder = work / f"{budget}_{name}_{seed}_{int(time.time())}"
    began = time.perf_counter()
    call("train.py", *given, f"hydra.run.dir={folder}")
    seconds = time.perf_counter() - began
    judged = {split: folder for split in ("val", "test") if (folder / f"{split}_metrics.json").exists()}
    if JOBS[name].train_too:
        checkpoint = folder / "checkpoints" / "last.ckpt"
        judged["train"] = folder / "train"
        call("evaluate.py", f"ckpt={checkpoint}", "split=train", f"hydra.run.dir={folder / 'train'}")
    about = json.loads((folder / "run.json").read_text())
    shown = [text.replace(f"{data}/", "ROOT/") for text in given]
    return {
        **{"job": name, "budget": budget, "seed": seed, "data": source, "seconds": round(seconds, 1)},
        "command": shlex.join(["python", "train.py", *shown]),
        **{
            key: about[key]
            for key in ("git", "published", "quirks", "parameters", "images", "device", "precision")
            if key in about
        },
        **{
            "weights": Path(about["weights"]).name,
            "epochs": about["epochs"],
            "rate": round(about["images_per_second"], 1),
        },
        "metrics": {
            split: json.loads((where / f"{split}_metrics.json").read_text()) for split, where in judged.items()
        },
        "right": {split: right(where / f"predictions_{split}.csv") for split, where in judged.items()},
    }


def right(predictions: Path) -> str:
    """Which images were classified right, in the table's order: bits, as hexadecimal digits."""
    with predictions.open(newline="") as file:
        return np.packbits([row["true"] == row["predicted"] for row in csv.DictReader(file)]).tobytes().hex()


def call(program: str, *arguments: str) -> None:
    """A process on one core; its last words where it fails."""
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    ended = subprocess.run([sys.executable, str(ROOT / program), *arguments], env=env, capture_output=True, text=True)
    if ended.returncode:
        raise RuntimeError(f"{shlex.join([program, *arguments])}\n{ended.stderr.strip()[-2000:]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path, nargs="?", help="the folder with the data sets")
    parser.add_argument("--budget", choices=("quick", "study"), default="quick")
    parser.add_argument(
        "--only", type=lambda text: text.split(","), help="jobs, such as s4a,s4d; by default all that fit"
    )
    parser.add_argument("--seeds", type=lambda text: [int(seed) for seed in text.split(",")], default=list(SEEDS))
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--again", action="store_true", help="make runs again that are there")
    parser.add_argument("--render", action="store_true", help="only the document, from studies/results.json")
    parser.add_argument("--work", type=Path, default=ROOT / "outputs" / "studies", help="where the runs are left")
    given = parser.parse_args()
    results = Results(HERE / "results.json")
    if not given.render:
        if given.root is None or not given.root.is_dir():
            raise SystemExit(
                f"Error: ROOT={given.root} is not a folder. Give the one with the data sets: make reproduce ROOT=…"
            )
        if unknown := [name for name in given.only or () if name not in JOBS]:
            raise SystemExit(f"Error: --only={','.join(unknown)}: no such job. There are: {', '.join(JOBS)}")
        names = given.only or [name for name, job in JOBS.items() if given.budget == "quick" or job.fits]
        wanted = [(name, seed) for seed in given.seeds for name in names]
        failed = make(wanted, given, results)
        if failed:
            print(f"{failed} of {len(wanted)} runs failed", file=sys.stderr)
    render.write(results.runs, ROOT / "docs" / "studies-results.md", ROOT / "docs" / "images" / "studies.png")
    sys.exit(0 if given.render or not failed else 1)


def make(wanted: list[tuple[str, int]], given: argparse.Namespace, results: Results) -> int:
    """The runs that are not there yet, several at a time; returns how many failed."""

    def one(name: str, seed: int) -> bool:
        if not given.again and results.has(job=name, budget=given.budget, seed=seed):
            return True
        try:
            record = run(name, given.budget, seed, given.root.absolute(), given.work.absolute())
        except RuntimeError as error:
            print(f"{name} seed {seed} FAILED: {error}", file=sys.stderr, flush=True)
            return False
        results.keep(record)
        found = record["metrics"].get("test") or record["metrics"]["val"]
        print(f"{name:36} seed {seed}  accuracy {found['accuracy']:.3f}  {record['seconds']:.0f} s", flush=True)
        return True

    with ThreadPoolExecutor(given.jobs) as pool:
        return list(pool.map(lambda pair: one(*pair), wanted)).count(False)


if __name__ == "__main__":
    main()
