"""Folders of a sweep's jobs as they are left on disk, without training."""

import json
from pathlib import Path

from html_page import NASTY

from faceattr.report import leaderboard


def job(sweep: Path, number: int | str, overrides: list[str], accuracy: float | None = None, **run: object) -> Path:
    """A job's folder: finished with `accuracy`, or ended as `run` says; with neither, killed before it wrote anything."""
    folder = sweep / str(number)
    (folder / ".hydra").mkdir(parents=True)
    (folder / ".hydra" / "overrides.yaml").write_text("".join(f"- {override}\n" for override in overrides))
    seed = next((int(text[5:]) for text in overrides if text.startswith("seed=")), 0)
    record = {"overrides": overrides, "seed": seed, "weights": "imagenet", "parameters": {"total": 20, "trainable": 10}}
    if accuracy is not None:
        run = {"status": "finished", "error": None, "seconds": 100 + (number if isinstance(number, int) else 0)} | run
        metrics = {
            "accuracy": accuracy,
            "n": 400,
            "average_precision": accuracy + 0.01,
            "matthews_corrcoef": 2 * accuracy - 1,
        }
        (folder / "val_metrics.json").write_text(json.dumps(metrics))
    if run:
        (folder / "run.json").write_text(json.dumps(record | run))
    return folder


def write_sweep(folder: Path) -> Path:
    """The report of a sweep of three finished jobs and a failed one."""
    job(folder, 0, ["model=cnn", "optim.lr=0.1", "seed=0"], 0.90)
    job(folder, 1, ["model=cnn", "optim.lr=0.1", "seed=1"], 0.92)
    (job(folder, 2, ["model=vgg16", "optim.lr=0.01", "seed=0"], 0.95) / "report.html").write_text("x")
    job(folder, 3, [f"model={NASTY}", "optim.lr=0.01", "seed=1"], status="failed", error="Out of memory\nat <block5>")
    leaderboard.write(folder)
    return folder / "report.html"
