"""The end of a sweep: its jobs' files, gathered into one row per configuration, best validation accuracy first.

The table is made from the job folders alone, so it can be made again at any time, for a sweep that was killed too:
`python -m faceattr.report.leaderboard multirun/<date_time>`. Jobs that differ only in `seed` are one configuration.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd
from hydra.core.utils import JobReturn
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from faceattr.errors import FaceattrError

FILE = "leaderboard.csv"
RESULTS = ("val_accuracy", "average_precision", "test_accuracy", "trainable", "seconds")


def leaderboard(folder: str | Path, *, over: bool = True) -> pd.DataFrame:
    """A row per configuration of the sweep in `folder`: what varies, then the results over its seeds.

    Columns: an override key each (those that vary; where nothing does, all), `seeds` (finished ones), `val_accuracy`
    (mean) with `_sd`, `_low` and `_high`, `average_precision` (validation), `test_accuracy` with `_sd` where there is a
    test split, `trainable` (parameters), `seconds` (mean), `weights`, `failed` (count), `jobs` (folder names).

    `_low` and `_high` are the 95% Wilson interval of the mean accuracy for the images of *one* run: all seeds are
    judged on the same images, so more seeds average out the training's chance but add no images. `_sd` is the other
    uncertainty, that of the seeds.

    A job without results counts as failed. With `over=False`, while the sweep is still running, jobs that have not
    said how they ended are left out.
    """
    jobs = [job for job in read_jobs(folder) if over or job["status"] != "unfinished"]
    keys = [key for key in dict.fromkeys(key for job in jobs for key in job["overrides"]) if key != "seed"]
    keys = [key for key in keys if len({job["overrides"].get(key) for job in jobs}) > 1] or keys
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for job in jobs:
        groups.setdefault(tuple(job["overrides"].get(key, "") for key in keys), []).append(job)
    rows = [dict(zip(keys, values, strict=True)) | _summary(group) for values, group in groups.items()]
    board = pd.DataFrame(rows, columns=[*keys, *_summary([])]).sort_values(
        "val_accuracy", ascending=False, kind="stable"
    )
    if board["test_accuracy"].isna().all():
        board = board.drop(columns=["test_accuracy", "test_accuracy_sd"])
    return board.reset_index(drop=True)


def read_jobs(folder: str | Path) -> list[dict[str, Any]]:
    """The sweep's jobs in their order: `job` (its folder), `status`, `error`, `overrides`, `seed` and its results.

    Status is `finished`, `failed`, `interrupted`, or `unfinished` where a job left no word: killed, or still running.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FaceattrError(f"{folder}: no such folder. Give the folder of a sweep, such as multirun/<date_time>.")
    found = [path for path in folder.iterdir() if (path / "run.json").is_file() or (path / ".hydra").is_dir()]
    if not found:
        raise FaceattrError(f"{folder} holds no jobs of a sweep (<job number>/run.json).")
    found.sort(key=lambda path: (not path.name.isdigit(), int(path.name) if path.name.isdigit() else 0, path.name))
    return [_read_job(path) for path in found]


def _read_job(folder: Path) -> dict[str, Any]:
    run, val, test = (_read_json(folder / name) for name in ("run.json", "val_metrics.json", "test_metrics.json"))
    written = folder / ".hydra" / "overrides.yaml"
    given = run.get("overrides") or (list(OmegaConf.load(written)) if written.is_file() else [])
    overrides = {key.lstrip("+~"): value for key, _, value in (str(text).partition("=") for text in given)}
    status, error = run.get("status", "unfinished"), run.get("error")
    if status == "running":
        status = "unfinished"
    elif status == "finished" and "accuracy" not in val:
        status, error = "failed", "finished without a val_metrics.json that can be read"
    return {
        "job": folder,
        "status": status,
        "error": error or {"unfinished": "ended without a word: killed, or still running"}.get(status, status),
        "overrides": overrides,
        "seed": str(run.get("seed", overrides.get("seed", ""))),
        "weights": run.get("weights") or "",
        "val_accuracy": val.get("accuracy"),
        "n": val.get("n"),
        "average_precision": val.get("average_precision"),
        "test_accuracy": test.get("accuracy"),
        "trainable": run.get("parameters", {}).get("trainable"),
        "seconds": run.get("seconds"),
    }


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}  # what a killed job leaves behind


def _summary(jobs: list[dict[str, Any]]) -> dict[str, Any]:
    """The results of one configuration. The same seed twice (a search can draw that) is the same run: counted once."""
    from faceattr.metrics import wilson  # imports torch

    finished = list({job["seed"]: job for job in jobs if job["status"] == "finished"}.values())
    results = pd.DataFrame(finished, columns=[*RESULTS, "n"]).astype(float)
    mean, sd, n = results.mean(), results.std(), results["n"].min()
    low, high = wilson(mean["val_accuracy"], int(n)) if n > 0 else (float("nan"), float("nan"))
    return {
        "seeds": len(finished),
        "val_accuracy": mean["val_accuracy"],
        "val_accuracy_sd": sd["val_accuracy"],
        "val_accuracy_low": low,
        "val_accuracy_high": high,
        "average_precision": mean["average_precision"],
        "test_accuracy": mean["test_accuracy"],
        "test_accuracy_sd": sd["test_accuracy"],
        "trainable": mean["trainable"],
        "seconds": mean["seconds"],
        "weights": "; ".join(sorted({job["weights"] for job in finished} - {""})),
        "failed": sum(job["status"] != "finished" for job in jobs),
        "jobs": " ".join(job["job"].name for job in jobs),
    }


def write(folder: str | Path, *, over: bool = True) -> pd.DataFrame:
    """Writes `leaderboard.csv` into the sweep's folder, in one step: jobs in other processes may be doing the same."""
    board = leaderboard(folder, over=over)
    part = Path(folder) / f".{FILE}.{socket.gethostname()}.{os.getpid()}"
    try:
        board.to_csv(part, index=False)
        part.replace(Path(folder) / FILE)
    finally:
        part.unlink(missing_ok=True)
    return board


def render(board: pd.DataFrame) -> str:
    """The table for the terminal: short heads, three digits, and only the columns that say something."""
    keys = list(board.columns[: board.columns.get_loc("seeds")])
    cells: dict[str, Iterable[str]] = {
        head: board[key].map(_short) for key, head in zip(keys, _short_heads(keys), strict=True)
    }
    cells["seeds"] = board["seeds"].astype(str)
    cells["val acc ±sd"] = _with_sd(board, "val_accuracy")
    cells["95% interval"] = [
        f"{low:.3f}–{high:.3f}" if pd.notna(low) else "–"
        for low, high in zip(board["val_accuracy_low"], board["val_accuracy_high"], strict=True)
    ]
    cells["AP"] = board["average_precision"].map(lambda value: _number(value, "{:.3f}"))
    if "test_accuracy" in board:
        cells["test acc ±sd"] = _with_sd(board, "test_accuracy")
    cells["trainable"] = board["trainable"].map(lambda value: _number(value, "{:,.0f}"))
    cells["seconds"] = board["seconds"].map(lambda value: _number(value, "{:,.0f}" if value >= 10 else "{:.1f}"))
    random = board["weights"].str.contains("random")
    if random.any():
        cells["weights"] = random.map({True: "random", False: ""})
    if board["failed"].any():
        cells["failed"] = board["failed"].map(lambda count: str(count or ""))
    cells["jobs"] = board["jobs"].map(lambda names: _short(names.replace(" ", ","), 12))
    notes = [
        "95% interval: Wilson, for the images of one run. All seeds are judged on the same images: more do not narrow it."
    ]
    notes += sorted({f"weights: {text}" for text in board["weights"][random]})
    return "\n".join([*_aligned(cells, left={*list(cells)[: len(keys)], "weights", "jobs"}), "", *notes])


def _short_heads(keys: list[str]) -> list[str]:
    """`optim.lr` as `lr`, where that names it among the other heads."""
    last = [key.rpartition(".")[2] for key in keys]
    taken = {"seeds", "trainable", "seconds", "weights", "failed", "jobs"} | {
        name for name in last if last.count(name) > 1
    }
    return [key if name in taken else name for name, key in zip(last, keys, strict=True)]


def _short(value: str, width: int = 24) -> str:
    """A searched number like 0.0031854622636 to four digits, a long text to its beginning."""
    with suppress(ValueError):
        value = f"{float(value):.4g}" if "." in value and len(value) > 7 else value
    return value if len(value) <= width else value[: width - 1] + "…"


def _number(value: float, form: str) -> str:
    return form.format(value) if pd.notna(value) else "–"


def _with_sd(board: pd.DataFrame, name: str) -> list[str]:
    pairs = zip(board[name], board[f"{name}_sd"], strict=True)
    cells = [_number(mean, "{:.3f}") + (f" ±{sd:.3f}" if pd.notna(sd) else "") for mean, sd in pairs]
    return [cell.ljust(max(map(len, cells))) for cell in cells]


def _aligned(cells: dict[str, Iterable[str]], left: set[str]) -> list[str]:
    columns = []
    for head, values in cells.items():
        texts = [head, *values]
        width = max(map(len, texts))
        texts = [text.ljust(width) if head in left else text.rjust(width) for text in texts]
        columns.append([texts[0], "─" * width, *texts[1:]])
    return ["  ".join(line).rstrip() for line in zip(*columns, strict=True)]


class Leaderboard(Callback):
    """Hydra's hook: keeps leaderboard.csv up to date while a sweep runs; at the end prints it and names what failed."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Refuses a folder with the jobs of another sweep: equal job numbers would mix the two."""
        folder = Path(config.hydra.sweep.dir)
        if any(folder.glob("*/.hydra")):
            sys.exit(
                f"Error: hydra.sweep.dir={folder} holds the jobs of an earlier sweep. Give another, or move it away."
            )

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        if config.hydra.mode == RunMode.MULTIRUN:
            write(Path(config.hydra.runtime.cwd) / config.hydra.sweep.dir, over=False)

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Exit code 1 where jobs failed: Hydra swallows the exceptions of a callback, but not SystemExit."""
        folder = Path(config.hydra.sweep.dir)
        print("\n" + render(write(folder)) + f"\n\nLeaderboard: {folder / FILE}", flush=True)
        jobs = read_jobs(folder)
        failed = [job for job in jobs if job["status"] != "finished"]
        if failed:
            lines = [f"  {job['job']}: {job['error'].strip().splitlines()[0]}" for job in failed]
            sys.exit("\n".join([f"{len(failed)} of {len(jobs)} jobs failed:", *lines]))


def _main() -> None:
    parser = argparse.ArgumentParser(prog="python -m faceattr.report.leaderboard", description="A sweep's leaderboard.")
    parser.add_argument("folder", help="of a sweep: multirun/<date_time>")
    folder = parser.parse_args().folder
    try:
        print(render(write(folder)) + f"\n\nLeaderboard: {Path(folder) / FILE}")
    except FaceattrError as error:
        sys.exit(f"Error: {error}")


if __name__ == "__main__":
    _main()
