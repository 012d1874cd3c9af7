"""Measures faceattr and its competitors on the same image files, one process at a time, all of them once per round.

    python benchmarks/run.py [--cases s3,s4d,growth] [--rounds 5] [--continue] [--quick] [--render]

Each measurement is saved in benchmarks/results.json at once; at the end the tables of docs/benchmarks.md are made from it. Image
files are generated in $FACEATTR_CACHE/bench. The Keras peer runs in .venv-bench (or $KERAS_PYTHON), the rest in this environment.
"""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import result_tables
from benchmark import HERE, ROOT, Benchmark, Record, cache_folder, to_record
from cases import CASES, EVALUATION_ROWS, GROWTH_IMAGES, PEERS
from image_files import class_folders, draw_faces
from measure_process import measure

from faceattr.report.markdown import write_between_marks

TINY = ("model=cnn", "model.blocks=[[8],[16]]", "model.image_size=[32,32]", "augment=light")


def training_case(benchmark: Benchmark, name: str, rounds: int) -> None:
    """The peers, a real train.py and the bare loop, on one case of cases.py."""
    case = CASES[name]
    if benchmark.quick:
        case = replace(case, train=3 * case.batch, val=case.batch, own_epochs=min(case.own_epochs, 4))
    pictures = draw_faces(benchmark.cache, case.faces, 800)
    folder = benchmark.cache / f"{name}_{case.train}_{case.val}"
    folder = class_folders(folder, pictures, train=case.train, val=case.val)
    optimizer = (f"optim={case.optimizer}", f"optim.lr={case.lr}", f"data.batch_size={case.batch}", "trainer=cpu")
    ours = (*case.overrides, *optimizer, "data=folders", f"data.root={folder}")
    classes = 3 if case.faces == "imfdb" else 2
    loop = ("bare_loop", classes, case.train, case.own_epochs, *case.overrides, *optimizer)

    def peer(who: str) -> Callable[[], Record]:
        return lambda: benchmark.run_module(f"peers.{who}", name, folder, case.epochs)

    for number in range(1, rounds + 1):
        for who in PEERS:
            if who != "keras" or benchmark.keras.exists():
                benchmark.record(name, who, number, peer(who))
        train = lambda: benchmark.run_training(*ours, epochs=case.own_epochs, images=case.train)  # noqa: E731
        benchmark.record(name, "faceattr", number, train)
        benchmark.record(name, "bare_loop", number, lambda: benchmark.run_module(*loop))


def data_loading(benchmark: Benchmark, rounds: int) -> None:
    """Images per second that one core loads."""
    n = 128 if benchmark.quick else 640
    pictures = draw_faces(benchmark.cache, "imfdb", 800)
    folder = class_folders(benchmark.cache / f"data_loading_{n}", pictures, train=n, val=32)
    for number in range(1, rounds + 1):
        for who, epochs in (("lightning", 2), ("faceattr", 20)):
            arguments = ("data_loading", who, folder, epochs)
            benchmark.record("data_loading", who, number, lambda: benchmark.run_module(*arguments))  # noqa: B023


def growth(benchmark: Benchmark, rounds: int) -> None:
    """Time per image of a tiny CNN, by the number of training images."""
    pictures, cache = draw_faces(benchmark.cache, "imfdb", 1000, 64), benchmark.cache / "kept"
    for number in range(1, rounds + 1):
        for n in GROWTH_IMAGES[:2] if benchmark.quick else GROWTH_IMAGES:
            folder = class_folders(benchmark.cache / f"growth_{n}", pictures, train=n, val=200)
            run = (*TINY, "data=folders", f"data.root={folder}", "loss=ce", "trainer=cpu")
            length = {"epochs": max(2, min(17, 24_000 // n)), "images": n}
            train = lambda: benchmark.run_training(*run, **length, cache=cache)  # noqa: B023, E731
            benchmark.record("growth", str(n), number, train)


def evaluation(benchmark: Benchmark, rounds: int) -> None:
    """Peak memory of evaluate.py, by the number of images."""
    pictures = draw_faces(benchmark.cache, "imfdb", 1000, 64)
    env = {**os.environ, "FACEATTR_CACHE": str(benchmark.cache / "kept")}
    with tempfile.TemporaryDirectory(prefix="faceattr-bench-") as temporary:
        folder = class_folders(benchmark.cache / "growth_1000", pictures, train=1000, val=200)
        run = Path(temporary, "run")
        train = (*TINY, "data=folders", f"data.root={folder}", "loss=ce", "trainer=cpu", f"hydra.run.dir={run}")
        measure([sys.executable, "train.py", *train, "trainer.max_epochs=1"], cwd=ROOT, env=env)

        def evaluate(n: int) -> Record:
            folder = class_folders(benchmark.cache / f"rows_{n}", pictures, val=n)
            out = Path(temporary, f"evaluate_{n}_{os.urandom(4).hex()}")
            data = (f"ckpt={run}/checkpoints/best.ckpt", "data=folders", f"data.root={folder}", "split=all")
            command = [sys.executable, "evaluate.py", *data, "trainer=cpu", f"hydra.run.dir={out}"]
            measured = measure(command, cwd=ROOT, env=env)
            return to_record({"seconds": measured.seconds}, measured)

        for number in range(1, rounds + 1):
            for n in EVALUATION_ROWS[:1] if benchmark.quick else EVALUATION_ROWS:
                benchmark.record("evaluation", str(n), number, lambda: evaluate(n))  # noqa: B023


def start_up(benchmark: Benchmark, rounds: int) -> None:
    """Seconds until the first optimizer step, and of composing the config."""
    env = {**os.environ, "FACEATTR_CACHE": str(benchmark.cache / "kept")}

    def run(*command: object) -> Record:
        with tempfile.TemporaryDirectory(prefix="faceattr-bench-") as folder:
            arguments = [sys.executable, *map(str, command), f"hydra.run.dir={folder}/run"]
            measured = measure(arguments, cwd=ROOT, env=env)
        printed = json.loads(measured.stdout.splitlines()[-1]) if command[0] == first_step else {}
        return to_record({"first_step": printed.get("first_step"), "seconds": measured.seconds}, measured)

    first_step = HERE / "start_up.py"
    run(first_step)  # generates and decodes the sample faces, once
    for number in range(1, rounds + 1):
        benchmark.record("start_up", "first_step", number, lambda: run(first_step))
        benchmark.record("start_up", "compose", number, lambda: run("train.py", "--cfg", "job"))


OTHERS = {"data_loading": data_loading, "growth": growth, "evaluation": evaluation, "start_up": start_up}


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    names = [*CASES, *OTHERS]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", default=",".join(names), help="comma-separated; default: %(default)s")
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each competitor; default: %(default)s")
    parser.add_argument("--continue", dest="resume", action="store_true", help="measure only what results.json lacks")
    parser.add_argument(
        "--quick", action="store_true", help="a trial: one round, few images, tables on the terminal only"
    )
    parser.add_argument("--render", action="store_true", help="measure nothing, only make the tables again")
    options = parser.parse_args(arguments)
    options.cases = options.cases.split(",")
    if unknown := [name for name in options.cases if name not in names]:
        parser.error(f"no case {', '.join(unknown)}; the cases are: {', '.join(names)}")
    return options


def main(arguments: Sequence[str]) -> int:
    options = parse(arguments)
    rounds = 1 if options.quick else options.rounds
    file = cache_folder() / "results-quick.json" if options.quick else HERE / "results.json"
    benchmark = Benchmark(file, cache_folder(), options.quick)
    if not options.render:
        if not benchmark.keras.exists():
            print("No .venv-bench (`make bench` makes it): the Keras peer is left out.", file=sys.stderr)
        benchmark.start(options.cases, options.resume)
        for name in options.cases:
            if name in CASES:
                training_case(benchmark, name, rounds)
            else:
                OTHERS[name](benchmark, rounds)
    text = result_tables.all_tables(benchmark.results)
    if options.quick:
        print(text)
    else:
        write_between_marks(ROOT / "docs" / "benchmarks.md", text)
    return 1 if benchmark.failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
