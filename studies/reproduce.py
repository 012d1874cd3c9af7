"""Runs the published studies and writes what came out: docs/studies-results.md and docs/images/studies.png.

    python studies/reproduce.py ROOT [--budget quick|study] [--only s4a,s4d] [--seeds 0,1,2] [--jobs 2] [--continue] [--render]

ROOT holds the data sets (and, in or beside it, `weights/`); where a study's own images are not there its stand-in is used. Runs
replace those of the same job, budget and seed in studies/results.json; --continue leaves out what is there already with the
same command. Two go on at a time, each on one core and each a `python train.py experiment=…` in a process of its own; the document
shows the commands.
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

import document
import numpy as np
from claims import Record
from plan import JOBS, SEEDS, overrides

SPLITS = ("train", "val", "test", "all")
HERE = Path(__file__).resolve().parent
ROOT = HERE.parent


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
    judged = {split: folder for split in SPLITS if (folder / f"{split}_metrics.json").exists()}
    if JOBS[name].train_too and "train" not in judged:
        checkpoint = folder / "checkpoints" / "last.ckpt"
        judged["train"] = folder / "train"
        call("evaluate.py", f"ckpt={checkpoint}", "split=train", f"hydra.run.dir={folder / 'train'}")
    about = json.loads((folder / "run.json").read_text())
    return {
        **{"job": name, "budget": budget, "seed": seed, "data": source, "seconds": round(seconds, 1)},
        "command": command(given, data),
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


def command(given: list[str], data: Path) -> str:
    """What the document shows: with ROOT for the folder that held the data."""
    return shlex.join(["python", "train.py", *(text.replace(f"{data}/", "ROOT/") for text in given)])


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


def seeds(text: str) -> list[int]:
    """Of a command line: 0,1,2."""
    return [int(seed) for seed in text.split(",")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path, nargs="?", help="the folder with the data sets")
    parser.add_argument("--budget", choices=("quick", "study"), default="quick")
    parser.add_argument(
        "--only", type=lambda text: text.split(","), help="jobs, such as s4a,s4d; by default all that fit"
    )
    parser.add_argument("--seeds", type=seeds, default=list(SEEDS))
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--continue", action="store_true", dest="go_on", help="leave out the runs that are there")
    parser.add_argument("--render", action="store_true", help="only the document, from studies/results.json")
    parser.add_argument("--work", type=Path, default=ROOT / "outputs" / "studies", help="where the runs are left")
    given = parser.parse_args()
    results, failed = Results(HERE / "results.json"), 0
    if not given.render:
        if given.root is None or not given.root.is_dir():
            where = "is not given" if given.root is None else f"{given.root} is not a folder"
            raise SystemExit(f"Error: ROOT {where}. Give the one with the data sets: make reproduce ROOT=…")
        if unknown := [name for name in given.only or () if name not in JOBS]:
            raise SystemExit(f"Error: --only={','.join(unknown)}: no such job. There are: {', '.join(JOBS)}")
        names = given.only or [name for name, job in JOBS.items() if given.budget == "quick" or job.fits]
        failed = make([(name, seed) for seed in given.seeds for name in names], given, results)
    document.write(results.runs, ROOT / "docs" / "studies-results.md", ROOT / "docs" / "images" / "studies.png")
    sys.exit(1 if failed else 0)


def make(wanted: list[tuple[str, int]], given: argparse.Namespace, results: Results) -> int:
    """The runs, several at a time; returns how many failed. All data are looked for before the first begins."""
    root, began = given.root.absolute(), time.perf_counter()
    commands = {(name, seed): command(overrides(name, root, given.budget, seed)[1], root) for name, seed in wanted}
    todo = [key for key in wanted if not (given.go_on and results.has(budget=given.budget, command=commands[key]))]
    if len(todo) < len(wanted):
        print(
            f"{len(wanted) - len(todo)} of {len(wanted)} runs are there with the same command (--continue)", flush=True
        )

    def one(name: str, seed: int) -> bool:
        try:
            record = run(name, given.budget, seed, root, given.work.absolute())
        except RuntimeError as error:
            print(f"{name} seed {seed} FAILED: {error}", file=sys.stderr, flush=True)
            return False
        results.keep(record)
        found = record["metrics"].get("test") or record["metrics"]["val"]
        print(f"{name:36} seed {seed}  accuracy {found['accuracy']:.3f}  {record['seconds']:.0f} s", flush=True)
        return True

    with ThreadPoolExecutor(given.jobs) as pool:
        failed = list(pool.map(lambda key: one(*key), todo)).count(False)
    print(f"{len(todo)} runs in {(time.perf_counter() - began) / 60:.1f} minutes, {failed} failed", flush=True)
    return failed


if __name__ == "__main__":
    main()
