"""The leaderboard of a sweep: one row per configuration, best validation accuracy first.

Jobs that differ only in `seed` are one configuration. The table is made from the job folders, so it can be made again, also
for a sweep that was killed: `python -m faceattr.report.leaderboard multirun/<date_time>`.
"""

import json
import math
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from faceattr.errors import FaceattrError
from faceattr.files import read_json, write_csv
from faceattr.message_text import counted
from faceattr.metrics.intervals import wilson
from faceattr.metrics.registry import METRICS

FILE = "leaderboard.csv"


def leaderboard(folder: str | Path) -> pd.DataFrame:
    """A row per configuration of the sweep in `folder`: the keys that vary, then the results over its seeds.

    Columns: the override keys that vary (all keys, where none varies), `seeds` (finished ones), `val_accuracy` (mean) with
    `_sd`, `_low`, `_high`, the mean of each other monitored metric (validation), `test_accuracy` with `_sd` where there is a test
    split, `trainable` (parameters), `seconds` (mean), `weights`, `failed` (number of jobs without results), `jobs` (folders).
    Where a study's preset gives a published figure: `published_figure` (such as test accuracy), `published`, `_low`, `_high`,
    and `ours`, the mean of that figure.

    `_low` and `_high` are the 95% Wilson interval of the mean accuracy for the images of *one* run. Where `data.seed` is fixed,
    all seeds use the same images: more seeds average out the variation of training but add no images.
    """
    jobs = read_jobs(folder)
    keys = [key for key in dict.fromkeys(key for job in jobs for key in job["overrides"]) if key != "seed"]
    keys = [key for key in keys if len({value_meant(job["overrides"].get(key, "")) for job in jobs}) > 1] or keys
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for job in jobs:
        groups.setdefault(tuple(value_meant(job["overrides"].get(key, "")) for key in keys), []).append(job)
    rows = [{key: group[0]["overrides"].get(key, "") for key in keys} | _summary(group) for group in groups.values()]
    board = pd.DataFrame(rows).sort_values("val_accuracy", ascending=False, kind="stable", ignore_index=True)
    unused = [name for name in _more_metrics() if board[name].isna().all()]
    unused += [] if board["test_accuracy"].notna().any() else [str(name) for name in board.filter(like="test_accuracy")]
    return board.drop(columns=unused)


def value_meant(text: str) -> str:
    """The same text for values that mean the same, however they were typed: True and true, 1e-3 and 0.001, 'a' and a."""
    try:
        value = OverridesParser.create().parse_override(f"key={text}").value()
    except HydraException:
        return text
    return (
        f"{value:g}"
        if isinstance(value, float) and not value.is_integer()
        else json.dumps(value, default=str, sort_keys=True)
    )


def read_jobs(folder: str | Path) -> list[dict[str, Any]]:
    """The sweep's jobs in their order, however deep their folders lie (`hydra.sweep.subdir`): `job` (the folder), `name` (its
    path below `folder`), `arguments` and `overrides` (by key), the results, or why there are none (`error`; `refused`: it would
    fail again).
    """
    folder = Path(folder)
    names = [path.relative_to(folder) for path in _job_folders(folder)]
    if not names:
        raise FaceattrError(f"{folder} holds no jobs. Give the folder of a sweep, such as multirun/<date_time>.")
    return [
        _read_job(folder, name) for name in sorted(names, key=lambda name: [(len(part), part) for part in name.parts])
    ]


def _job_folders(folder: Path) -> Iterator[Path]:
    """Folders of jobs below a sweep's folder; not those of another sweep that lies in it."""
    entries = folder.iterdir() if folder.is_dir() else ()
    for inside in (path for path in entries if path.is_dir() and not path.is_symlink()):
        if (inside / ".hydra").is_dir():
            yield inside
        elif not (inside / "multirun.yaml").exists():
            yield from _job_folders(inside)


def _read_job(sweep: Path, name: Path) -> dict[str, Any]:
    folder = sweep / name
    run, val, test = (read_json(folder / name) for name in ("run.json", "val_metrics.json", "test_metrics.json"))
    arguments = [str(text) for text in OmegaConf.load(folder / ".hydra" / "overrides.yaml")]
    error = run.get("error") or "no results: killed, interrupted, or still running"
    if run.get("status") == "finished":
        error = None if "accuracy" in val else "no readable val_metrics.json"
    return {
        "job": folder,
        "name": name.as_posix(),
        "error": error,
        "refused": bool(run.get("refused")),
        "arguments": arguments,
        "overrides": {key.lstrip("+~"): value for key, _, value in (text.partition("=") for text in arguments)},
        "weights": run.get("weights") or "",
        "n": val.get("independent_labels", val.get("n")),
        "val_accuracy": val.get("accuracy"),
        **{name: val.get(name) for name in ("average_precision", *_more_metrics())},
        "test_accuracy": test.get("accuracy"),
        "test_n": test.get("independent_labels", test.get("n")),
        "trainable": run.get("parameters", {}).get("trainable"),
        "seconds": run.get("seconds"),
        **_published(run, {"val": val, "test": test}),
    }


def one_line_error(job: Mapping[str, Any]) -> str:
    """The folder of a job that has no results, and why."""
    return f"{job['job']}: {job['error'].strip().splitlines()[0]}"


def _published(run: dict[str, Any], metrics: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The first published figure of a study's preset, and ours."""
    if not run.get("published") or run["published"][0]["value"] is None:
        return {}
    entry = run["published"][0]
    low, high = wilson(entry["value"], entry["n"])
    return {
        "published_figure": f"{entry['split']} {entry['metric']}",
        "ours": metrics.get(entry["split"], {}).get(entry["metric"]),
        **{"published": entry["value"], "published_low": low, "published_high": high},
    }


def _more_metrics() -> list[str]:
    """The monitored metrics beside accuracy and average precision: a column each, where a job has them."""
    return [m.name for m in METRICS.values() if m.monitored and m.name not in ("accuracy", "average_precision")]


def _summary(jobs: list[dict[str, Any]]) -> dict[str, Any]:
    """The results of one configuration. A seed that a search drew twice is the same run, and counts once."""
    finished = list({job["overrides"].get("seed"): job for job in jobs if not job["error"]}.values())
    names = [
        "val_accuracy",
        "average_precision",
        *_more_metrics(),
        "test_accuracy",
        "trainable",
        "seconds",
        "n",
        "test_n",
    ]
    results = pd.DataFrame(finished, columns=names).astype(float)
    mean, sd = dict(zip(names, results.mean(), strict=True)), results.std()
    low, high = _wilson_of_mean(mean["val_accuracy"], mean.pop("n"))
    test = dict(zip(("low", "high"), _wilson_of_mean(mean["test_accuracy"], mean.pop("test_n")), strict=True))
    spread = {"val_accuracy_sd": sd["val_accuracy"], "val_accuracy_low": low, "val_accuracy_high": high}
    return {
        "seeds": len(finished),
        **({"val_accuracy": mean["val_accuracy"]} | spread | mean),
        "test_accuracy_sd": sd["test_accuracy"],
        **{f"test_accuracy_{side}": bound for side, bound in test.items()},
        **_mean_of_ours(finished),
        "weights": "; ".join(sorted({job["weights"] for job in finished} - {""})),
        "failed": sum(job["error"] is not None for job in jobs),
        "jobs": " ".join(job["name"] for job in jobs),
    }


def _wilson_of_mean(accuracy: float, n: float) -> tuple[float, float]:
    return wilson(accuracy, 0 if math.isnan(n) else int(n))


def _mean_of_ours(jobs: list[dict[str, Any]]) -> dict[str, Any]:
    compared = [job for job in jobs if job.get("published") is not None and job["ours"] is not None]
    if not compared:
        return {}
    names = ("published_figure", "published", "published_low", "published_high")
    ours = sum(job["ours"] for job in compared) / len(compared)
    return {name: compared[0][name] for name in names} | {"ours": ours}


def write(folder: str | Path) -> str:
    """Writes `leaderboard.csv` and `report.html` into the sweep's folder; returns the table for the terminal."""
    from faceattr.report import sweep_report  # imports matplotlib, which the jobs of a sweep do not need

    board = leaderboard(folder)
    file = Path(folder) / FILE
    write_csv(file, board)
    report = sweep_report.write(Path(folder), board, read_jobs(folder))
    return f"{render(board)}\n\nLeaderboard: {file}\nReport: {report}"


def render(board: pd.DataFrame) -> str:
    """The table for the terminal: three digits, and only the columns that differ or hold something."""
    random = board["weights"].str.contains(r"(?:^|; )random")
    low, high = (board[f"val_accuracy_{side}"].map("{:.3f}".format) for side in ("low", "high"))
    cells = board.loc[:, :"seeds"].replace(r"(\.\d{6})\d+$", r"\1", regex=True)  # 0.0031854622636075236, from a search
    cells["val acc ±sd"] = _with_sd(board, "val_accuracy")
    cells["95% interval"] = (low + "–" + high).where(board["val_accuracy"].notna(), "–")
    cells["AP"] = board["average_precision"].map("{:.3f}".format)
    if "test_accuracy" in board:
        cells["test acc ±sd"] = _with_sd(board, "test_accuracy")
    if "published" in board:
        low, high = (board[f"published_{side}"].map("{:.3f}".format) for side in ("low", "high"))
        figure = board["published_figure"].fillna("") + " " + board["published"].map("{:.3f}".format)
        cells["published"] = (figure + " (" + low + "–" + high + ")").where(board["published"].notna(), "–")
        cells["ours"] = board["ours"].map("{:.3f}".format)
    cells["trainable"] = board["trainable"].map("{:,.0f}".format)
    cells["seconds"] = board["seconds"].map("{:,.1f}".format)
    if random.any():
        cells["weights"] = random.map({True: "random", False: ""})
    if board["failed"].any():
        cells["failed"] = board["failed"]
    cells["jobs"] = board["jobs"]
    columns = [[head, *cells[head].astype(str).str.replace("nan", "–")] for head in cells]
    columns = [[text.ljust(max(map(len, column))) for text in column] for column in columns]
    lines = ["  ".join(line).rstrip() for line in zip(*columns, strict=True)]
    lines.insert(1, "─" * max(map(len, lines)))
    note = "95% interval: Wilson, for the images of one run. With a fixed data.seed more seeds do not narrow it."
    return "\n".join([*lines, "", note, *sorted({f"weights: {text}" for text in board["weights"][random]})])


def _with_sd(board: pd.DataFrame, name: str) -> pd.Series:
    mean, sd = board[name].map("{:.3f}".format), board[f"{name}_sd"].map(" ±{:.3f}".format)
    return mean + sd.where(board[f"{name}_sd"].notna(), "")


class Leaderboard(Callback):
    """Hydra's callback: at the end of a sweep, writes and prints the leaderboard and the failed jobs."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Refuses a folder with the jobs of another sweep, whose job numbers are the same."""
        folder = Path(config.hydra.sweep.dir)
        if any(_job_folders(folder)):
            from faceattr.report import unfinished_jobs

            sys.exit(f"Error: {unfinished_jobs.describe(folder)}")

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Exits with code 1 where jobs failed. Hydra swallows the exceptions of a callback, but not SystemExit."""
        folder = Path(config.hydra.sweep.dir)
        print("\n" + write(folder), flush=True)
        jobs = read_jobs(folder)
        failed = [f"  {one_line_error(job)}" for job in jobs if job["error"]]
        if failed:
            sys.exit("\n".join([f"{len(failed)} of {counted(len(jobs), 'job')} failed:", *failed]))


if __name__ == "__main__":
    from faceattr.report.unfinished_jobs import left_to_do

    try:
        sweep = sys.argv[1] if len(sys.argv) > 1 else ""
        print(write(sweep))
        if lines := left_to_do(sweep):
            print("\n".join(["", "If the sweep no longer runs:", *lines]))
    except FaceattrError as error:
        sys.exit(f"Error: {error}")
