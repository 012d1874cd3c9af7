"""Kills at random moments: `make chaos`, or `python tests/chaos.py --kills 50 --seed 0`. Not part of the test suite.

A run, or a sweep, is killed while it packs, trains or evaluates, by SIGKILL, SIGTERM or SIGINT. Then it is resumed as a user
would: by `ckpt=…/last.ckpt`, or by the same command where there is no checkpoint yet. The result is compared bit for bit with
that of a run that nothing interrupted: packed pixels, weights, optimizer, every epoch's metrics, metrics and predictions.
"""

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path

import pandas as pd
import torch
from programs import TINY, Ended, quick

from faceattr.data.sources import sample
from faceattr.files import read_json
from faceattr.report import leaderboard

STAGES = ("packing", "training", "evaluating", "sweeping")
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
TIMES = ["seconds", "images_per_second"]
EPOCHS = 8


class Mismatch(Exception):
    """What differs from the run that nothing interrupted."""


def main() -> None:
    parser = argparse.ArgumentParser(description="kill runs at random moments, resume them, compare bit for bit")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng, counts, failed = random.Random(options.seed), Counter[str](), 0
    with tempfile.TemporaryDirectory() as name:
        chaos = Chaos(Path(name))
        for number in range(options.kills):
            stage, by = STAGES[number % len(STAGES)], rng.choice(SIGNALS)
            try:
                outcome = chaos.sweep(by, rng) if stage == "sweeping" else chaos.run(stage, by, rng)
            except Mismatch as mismatch:
                failed, outcome = failed + 1, f"MISMATCH: {mismatch}"
            counts[f"{stage}, {outcome.partition(':')[0]}"] += 1
            print(f"{number + 1:3d} {stage:<10} {by.name:<7} {outcome}", flush=True)
    print("\n".join(f"{count:3d} {what}" for what, count in sorted(counts.items())))
    print(f"{options.kills} kills, {failed} mismatches")
    sys.exit(1 if failed else 0)


class Chaos:
    """A data set, and what nothing interrupted: a run, and a sweep over two seeds."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        faces = sample.write("folders", folder / "faces", n=300, image_size=48)
        small = (*TINY[2:], "model.blocks=[[4],[4]]", f"trainer.max_epochs={EPOCHS}", "trainer.patience=null")
        self.arguments = (
            "data=folders",
            f"data.root={faces}",
            *small,
            "evaluate.calibrate=True",
        )  # as a sweep writes it
        self.sweep_arguments = ("-m", *self.arguments, "seed=0,1")
        self._train(
            "warm", *self.arguments, _where(folder / "warm", self.arguments)
        )  # the first process starts a server
        self.whole, self.whole_sweep = folder / "whole", folder / "whole_sweep"
        self.seconds = self._measured(self.whole, self.arguments)
        self.seconds["sweeping"] = self._measured(self.whole_sweep, self.sweep_arguments)["packing"]

    def _measured(self, folder: Path, arguments: tuple[str, ...]) -> dict[str, float]:
        """A run that nothing interrupts; the seconds of its stages."""
        begun, moments = time.monotonic(), dict[str, float]()

        def never() -> bool:
            for stage in STAGES[:3]:
                if stage not in moments and begins(stage, folder):
                    moments[stage] = time.monotonic()
            return False

        with suppress(AssertionError):
            self._train(folder.name, *arguments, _where(folder, arguments), signals=(signal.SIGTERM, never))
        ends = [*sorted(moments.values())[1:], time.monotonic()]
        assert ends[-1] - begun > 0 and list(folder.rglob("test_metrics.json")), f"{folder} did not finish"
        return {stage: end - moments[stage] for stage, end in zip(STAGES[: len(moments)], ends, strict=True)}

    def _train(
        self, cache: str, *arguments: str, signals: tuple[signal.Signals, Callable[[], bool]] | None = None
    ) -> Ended:
        """`signals`: one that is sent as soon as its condition holds. Raises AssertionError if the run ends before that."""
        place, meanwhile = self.folder / f"cache_{cache}", partial(_send, *signals) if signals else None
        return quick("train", *arguments, cwd=self.folder, meanwhile=meanwhile, FACEATTR_CACHE=str(place))

    def run(self, stage: str, by: signal.Signals, rng: random.Random) -> str:
        """Kill a run in `stage`, resume it, compare; returns how it went on."""
        folder = self._fresh("run")
        where = _where(folder, self.arguments)
        moment = _moment(lambda: begins(stage, folder), rng.uniform(0, self.seconds[stage]))
        how = self._interrupted(stage, "run", by, moment, *self.arguments, where)
        self._go_on(folder, "run", self.arguments)
        compare(folder, self.whole)
        self._compare_pixels("run", "whole")
        return how

    def sweep(self, by: signal.Signals, rng: random.Random) -> str:
        """The same for a sweep: jobs that were begun are resumed, the others started in their folders."""
        folder = self._fresh("sweep")
        moment = _moment(lambda: True, rng.uniform(0, self.seconds["sweeping"]))
        how = self._interrupted(
            "sweeping", "sweep", by, moment, *self.sweep_arguments, _where(folder, self.sweep_arguments)
        )
        for seed in (0, 1):
            if read_json(folder / str(seed) / "run.json").get("status") != "finished":
                self._go_on(folder / str(seed), "sweep", (*self.arguments, f"seed={seed}"))
            compare(folder / str(seed), self.whole_sweep / str(seed))
        boards = [leaderboard.leaderboard(place) for place in (folder, self.whole_sweep)]
        names = ["val_accuracy", "val_accuracy_low", "test_accuracy"]
        if not boards[0][names].equals(boards[1][names]):
            raise Mismatch(f"leaderboard: {boards}")
        return how

    def _fresh(self, name: str) -> Path:
        for old in (self.folder / name, self.folder / f"cache_{name}"):
            shutil.rmtree(old, ignore_errors=True)
        return self.folder / name

    def _interrupted(
        self, stage: str, cache: str, by: signal.Signals, moment: Callable[[], bool], *arguments: str
    ) -> str:
        try:
            ended = self._train(cache, *arguments, signals=(by, moment))
        except AssertionError:
            return "had ended before"
        expected = -by if by == signal.SIGKILL else 128 + by
        if ended.code == expected:
            return "killed and resumed"
        if ended.code == 0:
            return "had ended before"
        if ended.code == -by and stage in ("packing", "sweeping"):
            return "killed and resumed: before its handler was there"
        if ended.code == -by:  # after its handler was gone; else `compare` would find it unfinished
            return "had ended before"
        raise Mismatch(f"exit code {ended.code}: {ended.err[-300:]}")

    def _go_on(self, folder: Path, cache: str, arguments: tuple[str, ...]) -> None:
        last = folder / "checkpoints" / "last.ckpt"
        given = (f"ckpt={last}",) if last.exists() else (*arguments, f"hydra.run.dir={folder}")
        ended = self._train(cache, *given)
        if ended.code:
            raise Mismatch(f"cannot be resumed: {ended.err[-300:]}")

    def _compare_pixels(self, one: str, other: str) -> None:
        found, expected = (
            {file.name: file.read_bytes() for file in (self.folder / f"cache_{name}").glob("kept/*.npy")}
            for name in (one, other)
        )
        if found != expected:
            raise Mismatch("packed pixels or hashes")
        if left := list((self.folder / f"cache_{one}").glob("kept/*.part")):
            raise Mismatch(f"{left[0]} is left")


def compare(run: Path, other: Path) -> None:
    """Raises Mismatch where a run is not, bit for bit, the other one; or where anything half-written is left."""
    for name in ("last", "best"):
        a, b = (torch.load(folder / "checkpoints" / f"{name}.ckpt", weights_only=True) for folder in (run, other))
        if a["epoch"] != b["epoch"] or not _equal(a["state_dict"], b["state_dict"]):
            raise Mismatch(f"weights of {name}.ckpt")
        if not _equal(a["optimizer_states"], b["optimizer_states"]):
            raise Mismatch(f"optimizer of {name}.ckpt")
        if a["faceattr"].get("temperature") != b["faceattr"].get("temperature"):
            raise Mismatch(f"temperature of {name}.ckpt")
    rows, others = (pd.read_csv(folder / "metrics.csv").drop(columns=TIMES) for folder in (run, other))
    if not rows.equals(others):
        raise Mismatch("metrics.csv")
    for name in ("val_metrics.json", "test_metrics.json", "predictions_val.csv", "predictions_test.csv", "table.csv"):
        if (run / name).read_bytes() != (other / name).read_bytes():
            raise Mismatch(name)
    if read_json(run / "run.json").get("status") != "finished":
        raise Mismatch("run.json does not say finished")
    if left := [*run.rglob(".*.part"), *run.rglob(".lock")]:
        raise Mismatch(f"{left[0].name} is left")


def _equal(a: object, b: object) -> bool:
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(_equal(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return isinstance(b, list | tuple) and len(a) == len(b) and all(map(_equal, a, b))
    return a == b


def _send(by: signal.Signals, condition: Callable[[], bool], process: BaseProcess) -> None:
    while not condition():
        assert process.is_alive(), "ended before it could be signalled"
        time.sleep(0.001)
    assert process.pid is not None
    os.kill(process.pid, by)


def _where(folder: Path, arguments: tuple[str, ...]) -> str:
    return f"hydra.{'sweep' if '-m' in arguments else 'run'}.dir={folder}"


def begins(stage: str, folder: Path) -> bool:
    """Whether the run in `folder` has reached this stage."""
    if stage == "packing":
        return True
    return (folder / "checkpoints").exists() if stage == "training" else _rows(folder) == EPOCHS


def _rows(folder: Path) -> int:
    file = folder / "metrics.csv"
    return file.read_text().count("\n") - 1 if file.exists() else 0


def _moment(begins: Callable[[], bool], delay: float) -> Callable[[], bool]:
    """True from `delay` seconds on after `begins` was true for the first time."""
    since: list[float] = []

    def reached() -> bool:
        if not since and begins():
            since.append(time.monotonic())
        return bool(since) and time.monotonic() >= since[0] + delay

    return reached


if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = "1"
    main()
