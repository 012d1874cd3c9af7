"""Runs the published studies and writes the results: docs/studies-results.md and docs/images/studies.png.

    python studies/reproduce.py ROOT [--budget quick|study] [--only s4a,s4d] [--seeds 0,1,2] [--jobs 2] [--continue] [--render]

ROOT holds the data sets (and, in or beside it, `weights/`). If the images of a study are not in it, its stand-in is used. A run
replaces that of the same job, budget and seed in studies/results.json; --continue leaves out runs that are saved with the same
command. Two runs go on at a time, each on one core. Each is a `python train.py experiment=…` in a process of its own; the page
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

import numpy as np
import results_page
from claims import Record
from jobs import JOBS, SEEDS, overrides

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

    def save(self, record: Record) -> None:
        """Replaces the record of the same job, budget and seed."""
        key = ("job", "budget", "seed")
        with self.lock:
            self.runs = [run for run in self.runs if any(run[k] != record[k] for k in key)] + [record]
            self.runs.sort(key=lambda run: (run["budget"], list(JOBS).index(run["job"]), run["seed"]))
            part = self.file.with_suffix(".part")
            part.write_text("[\n" + ",\n".join(json.dumps(run) for run in self.runs) + "\n]\n")
            part.replace(self.file)


def run_job(name: str, budget: str, seed: int, data: Path, work: Path) -> Record:
    """One run of train.py, and of evaluate.py on the training images where a claim needs them. Returns the record to save."""
    data_name, arguments = overrides(name, data, budget, seed)
    folder = work / f"{budget}_{name}_{seed}_{int(time.time())}"
    started = time.perf_counter()
    run_program("train.py", *arguments, f"hydra.run.dir={folder}")
    seconds = time.perf_counter() - started
    folders = {split: folder for split in SPLITS if (folder / f"{split}_metrics.json").exists()}
    if JOBS[name].on_train and "train" not in folders:
        folders["train"] = folder / "train"
        checkpoint = folder / "checkpoints" / "last.ckpt"
        run_program("evaluate.py", f"ckpt={checkpoint}", "split=train", f"hydra.run.dir={folders['train']}")
    summary = json.loads((folder / "run.json").read_text())
    copied = ("git", "published", "quirks", "parameters", "images", "device", "precision")
    return {
        **{"job": name, "budget": budget, "seed": seed, "data": data_name, "seconds": round(seconds, 1)},
        "command": shown_command(arguments, data),
        **{key: summary[key] for key in copied if key in summary},
        "weights": Path(summary["weights"]).name,
        "epochs": summary["epochs"],
        "rate": round(summary["images_per_second"], 1),
        "metrics": {split: json.loads((at / f"{split}_metrics.json").read_text()) for split, at in folders.items()},
        "correct": {split: correct_bits(at / f"predictions_{split}.csv") for split, at in folders.items()},
    }


def shown_command(arguments: list[str], data: Path) -> str:
    """The command as the page shows it: ROOT stands for the data folder."""
    return shlex.join(["python", "train.py", *(text.replace(f"{data}/", "ROOT/") for text in arguments)])


def correct_bits(predictions: Path) -> str:
    """Which images were classified correctly, in the order of the table: a bit each, as hexadecimal digits."""
    with predictions.open(newline="") as file:
        return np.packbits([row["true"] == row["predicted"] for row in csv.DictReader(file)]).tobytes().hex()


def run_program(program: str, *arguments: str) -> None:
    """In a process of its own, on one core. Raises RuntimeError with the end of its output if it fails."""
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    ended = subprocess.run([sys.executable, str(ROOT / program), *arguments], env=env, capture_output=True, text=True)
    if ended.returncode:
        raise RuntimeError(f"{shlex.join([program, *arguments])}\n{ended.stderr.strip()[-2000:]}")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path, nargs="?", help="the folder with the data sets")
    parser.add_argument("--budget", choices=("quick", "study"), default="quick")
    parser.add_argument(
        "--only", type=lambda text: text.split(","), help="jobs, such as s4a,s4d; default: all that fit"
    )
    parser.add_argument("--seeds", type=parse_seeds, default=list(SEEDS))
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1), help="runs at a time")
    parser.add_argument("--continue", action="store_true", dest="resume", help="leave out the runs that are saved")
    parser.add_argument(
        "--render", action="store_true", help="run nothing, only make the page from studies/results.json"
    )
    parser.add_argument("--work", type=Path, default=ROOT / "outputs" / "studies", help="the folder for the runs")
    options = parser.parse_args()
    if not options.render and (options.root is None or not options.root.is_dir()):
        problem = "is missing" if options.root is None else f"{options.root} is not a folder"
        raise SystemExit(f"Error: ROOT {problem}. Give the folder with the data sets: make reproduce ROOT=…")
    if unknown := [name for name in options.only or () if name not in JOBS]:
        raise SystemExit(f"Error: --only={','.join(unknown)}: no such job. The jobs are: {', '.join(JOBS)}")
    return options


def parse_seeds(text: str) -> list[int]:
    """`0,1,2` → [0, 1, 2]"""
    return [int(seed) for seed in text.split(",")]


def run_all(jobs: list[tuple[str, int]], options: argparse.Namespace, results: Results) -> int:
    """Run (job, seed) after (job, seed), several at a time; returns how many failed. Missing data stop it before the first."""
    root, started = options.root.absolute(), time.perf_counter()
    commands = {key: shown_command(overrides(key[0], root, options.budget, key[1])[1], root) for key in jobs}
    todo = [key for key in jobs if not (options.resume and results.has(budget=options.budget, command=commands[key]))]
    if len(todo) < len(jobs):
        saved = f"{len(jobs) - len(todo)} of {len(jobs)} runs are saved with the same command"
        print(f"{saved} (--continue leaves them out)", flush=True)

    def one(name: str, seed: int) -> bool:
        try:
            record = run_job(name, options.budget, seed, root, options.work.absolute())
        except RuntimeError as error:
            print(f"{name} seed {seed} FAILED: {error}", file=sys.stderr, flush=True)
            return False
        results.save(record)
        metrics = record["metrics"].get("test") or record["metrics"]["val"]
        print(f"{name:36} seed {seed}  accuracy {metrics['accuracy']:.3f}  {record['seconds']:.0f} s", flush=True)
        return True

    with ThreadPoolExecutor(options.jobs) as pool:
        failed = list(pool.map(lambda key: one(*key), todo)).count(False)
    print(f"{len(todo)} runs in {(time.perf_counter() - started) / 60:.1f} minutes, {failed} failed", flush=True)
    return failed


def main() -> None:
    options, results, failed = parse(), Results(HERE / "results.json"), 0
    if not options.render:
        names = options.only or [name for name, job in JOBS.items() if options.budget == "quick" or job.fits]
        failed = run_all([(name, seed) for seed in options.seeds for name in names], options, results)
    pictures = ROOT / "docs" / "images" / "studies.png"
    results_page.write(results.runs, ROOT / "docs" / "studies-results.md", pictures)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
