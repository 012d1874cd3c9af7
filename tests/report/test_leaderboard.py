"""The leaderboard: from job folders, and at the end of real Hydra sweeps of a program that does not train."""

import json
import math
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from omegaconf import OmegaConf
from programs import PATIENCE
from sweeps import job

from faceattr.errors import FaceattrError
from faceattr.metrics.intervals import wilson
from faceattr.report import leaderboard as source
from faceattr.report.leaderboard import Leaderboard, leaderboard, read_jobs, render, write

CONF = Path(__file__).resolve().parents[2] / "conf"


@pytest.fixture
def sweep(tmp_path) -> Path:
    folder = tmp_path / "multirun" / "2026-01-02_03-04-05-000006"
    job(folder, 0, ["model=cnn", "finetune=full", "seed=0"], 0.90)
    job(folder, 1, ["model=cnn", "finetune=full", "seed=1"], 0.92)
    job(folder, 2, ["model=vgg16", "finetune=full", "seed=0"], 0.95)
    job(folder, 3, ["model=vgg16", "finetune=full", "seed=1"], status="failed", error="Out of memory\nat stage block5")
    job(folder, 10, ["model=alexnet", "finetune=full", "seed=0"])
    return folder


def test_leaderboard_has_a_row_per_configuration_best_first(sweep):
    board = leaderboard(sweep)
    assert list(board["model"]) == ["vgg16", "cnn", "alexnet"]
    assert list(board["seeds"]) == [1, 2, 0]
    assert list(board["failed"]) == [1, 0, 1]
    assert list(board["jobs"]) == ["2 3", "0 1", "10"]
    assert not {"seed", "finetune", "n", "test_n"} & set(board), "only what varies is a column"
    assert board["val_accuracy"].isna().tolist() == [False, False, True]


def test_leaderboard_gives_mean_sd_and_the_interval_of_one_run(sweep):
    row = leaderboard(sweep).set_index("model").loc["cnn"]
    assert row["val_accuracy"] == pytest.approx(0.91)
    assert row["val_accuracy_sd"] == pytest.approx(math.sqrt(2) * 0.01)
    assert (row["val_accuracy_low"], row["val_accuracy_high"]) == pytest.approx(wilson(0.91, 400))
    assert row["average_precision"] == pytest.approx(0.92)
    assert row["matthews_corrcoef"] == pytest.approx(0.82) and "quadratic_kappa" not in row
    assert row["seconds"] == pytest.approx(100.5)
    assert (row["trainable"], row["weights"]) == (10, "imagenet")


def test_leaderboard_has_test_accuracy_where_jobs_have_it(sweep):
    assert "test_accuracy" not in leaderboard(sweep)
    for number, accuracy in ((0, 0.88), (1, 0.90)):
        (sweep / str(number) / "test_metrics.json").write_text(json.dumps({"accuracy": accuracy, "n": 100}))
    board = leaderboard(sweep).set_index("model")
    assert board.loc["cnn", "test_accuracy"] == pytest.approx(0.89)
    assert math.isnan(board.loc["vgg16", "test_accuracy"])
    assert "0.890 ±0.014" in render(leaderboard(sweep))


def test_read_jobs_sorts_by_number(tmp_path):
    for number in (10, 2, 0):
        job(tmp_path, number, ["model=cnn"], 0.9)
    assert [read["job"].name for read in read_jobs(tmp_path)] == ["0", "2", "10"]


def test_read_jobs_finds_nested_folders_but_not_another_sweeps(tmp_path):
    for name in ("model-cnn/seed-10", "model-cnn/seed-2", "model-vgg16/seed-2"):
        job(tmp_path, name, [name.replace("-", "=").partition("/")[0], "seed=2"], 0.9)
    job(tmp_path / "later", 0, ["model=cnn"], 0.5)
    (tmp_path / "later" / "multirun.yaml").touch()
    assert [read["name"] for read in read_jobs(tmp_path)] == [
        "model-cnn/seed-2",
        "model-cnn/seed-10",
        "model-vgg16/seed-2",
    ]
    write(tmp_path)
    assert 'href="model-cnn/seed-10/"' in (tmp_path / "report.html").read_text()


def test_leaderboard_of_one_configuration_shows_its_keys(tmp_path):
    job(tmp_path, 0, ["model=cnn", "+note=x", "seed=3"], 0.9)
    board = leaderboard(tmp_path)
    assert board.loc[0, ["model", "note", "seeds"]].tolist() == ["cnn", "x", 1]
    job(tmp_path / "bare", 0, [], 0.8)
    assert leaderboard(tmp_path / "bare").loc[0, "val_accuracy"] == pytest.approx(0.8)
    assert "0.800" in render(leaderboard(tmp_path / "bare"))


def test_leaderboard_counts_a_repeated_seed_once(tmp_path):
    for number, seed in enumerate([0, 0, 1]):
        job(tmp_path, number, ["augment=none", f"seed={seed}"], 0.9 + seed / 100)
    row = leaderboard(tmp_path).loc[0]
    assert row["seeds"] == 2 and row["val_accuracy_sd"] == pytest.approx(math.sqrt(2) * 0.005)


def test_leaderboard_shows_published_figures(tmp_path):
    entry = {"metric": "accuracy", "split": "val", "value": 0.68, "n": 2396, "source": "text"}
    for number, (preset, accuracy) in enumerate([("s4a", 0.60), ("s4a", 0.62), ("s4b", 0.50)]):
        published = [entry if preset == "s4a" else entry | {"value": None}]
        job(tmp_path, number, [f"experiment={preset}", f"seed={number}"], accuracy, published=published)
    board = leaderboard(tmp_path)
    assert board["published"].tolist()[0] == 0.68 and board["published"].isna().tolist() == [False, True]
    assert board["ours"].tolist()[0] == pytest.approx(0.61)
    assert (board["published_low"][0], board["published_high"][0]) == wilson(0.68, 2396)
    text = render(board)
    assert "val accuracy 0.680 (0.661–0.698)" in text and "0.610" in text


@pytest.mark.parametrize("status", ["running", "interrupted"])
def test_leaderboard_counts_unfinished_jobs_as_failed(tmp_path, status):
    job(tmp_path, 0, ["model=cnn"], 0.9)
    job(tmp_path, 1, ["model=vgg16"], status=status, error=None)
    assert leaderboard(tmp_path)["failed"].tolist() == [0, 1]


def test_leaderboard_counts_unreadable_results_as_failed(tmp_path):
    job(tmp_path, 0, ["model=cnn"], 0.9)
    (job(tmp_path, 1, ["model=vgg16"], 0.95) / "val_metrics.json").write_text('{"accuracy": 0.')
    (job(tmp_path, 2, ["model=cnn7"], 0.95) / "run.json").write_text("")
    assert leaderboard(tmp_path)[["model", "failed"]].values.tolist() == [["cnn", 0], ["vgg16", 1], ["cnn7", 1]]


def test_leaderboard_reads_its_own_sweep_only(tmp_path):
    job(tmp_path / "a", 0, ["model=cnn", "seed=0"], 0.9)
    job(tmp_path / "b", 0, ["model=cnn", "seed=0"], 0.7)
    for name in ("a", "b"):
        (tmp_path / name / "multirun.yaml").touch()
    assert leaderboard(tmp_path / "a")["val_accuracy"].tolist() == pytest.approx([0.9])
    with pytest.raises(FaceattrError, match="no jobs"):
        leaderboard(tmp_path)


def test_write_leaves_the_table_and_the_report(sweep):
    said = write(sweep)
    assert f"Leaderboard: {sweep / 'leaderboard.csv'}" in said and said.endswith(f"Report: {sweep / 'report.html'}")
    board = leaderboard(sweep)
    read = pd.read_csv(sweep / "leaderboard.csv").fillna({"weights": ""})
    pd.testing.assert_frame_equal(read, board, check_dtype=False)
    assert {path.name for path in sweep.iterdir() if path.is_file()} == {"leaderboard.csv", "report.html"}


def test_render_is_aligned_short_and_names_random_weights(tmp_path):
    job(tmp_path, 0, ["model=vgg16", "optim.lr=0.0031854622636075236", "seed=0"], 0.9)
    job(tmp_path, 1, ["model=vgg16", "optim.lr=0.0031854622636075236", "seed=1"], 0.91)
    job(tmp_path, 2, ["model=cnn", "optim.lr=0.1", "seed=0"], 0.8, weights="random (no network)")
    head, rule, first, second, *notes = render(leaderboard(tmp_path)).splitlines()
    assert head.split()[:3] == ["model", "optim.lr", "seeds"] and len(rule) <= 120
    assert "0.003185" in first and "0.905 ±0.007" in first and "random" not in first
    assert second.startswith("cnn") and "random" in second
    assert first.index("0.003185") == second.index("0.1") == head.index("optim.lr")
    assert "failed" not in head
    assert "weights: random (no network)" in notes


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=env, capture_output=True, text=True, timeout=PATIENCE
    )


def test_module_as_a_command_makes_the_table_again(sweep, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["leaderboard", str(sweep)])
    runpy.run_path(source.__file__, run_name="__main__")
    assert "vgg16" in (out := capsys.readouterr().out) and f"{sweep.name}/leaderboard.csv" in out
    assert (sweep / "leaderboard.csv").is_file()
    monkeypatch.setattr(sys, "argv", ["leaderboard", "nowhere"])
    with pytest.raises(SystemExit, match=r"^Error: nowhere holds no jobs\.[^\n]*$"):
        runpy.run_path(source.__file__, run_name="__main__")


APP = """
import argparse, json, math
from pathlib import Path
import hydra
from hydra.core.hydra_config import HydraConfig

argparse._ActionsContainer._check_help = lambda self, action: None  # Hydra 1.3 fails it from Python 3.14 on: hydra_app.py

@hydra.main(version_base="1.3", config_path=None, config_name="app")
def main(cfg):
    out = Path(HydraConfig.get().runtime.output_dir)
    run = {"status": "finished", "error": None, "overrides": list(HydraConfig.get().overrides.task), "seed": cfg.seed}
    if cfg.model == "bad":
        run |= {"status": "failed", "error": "model: no such stage\\nStages: block1, head"}
    (out / "run.json").write_text(json.dumps(run))
    if cfg.model == "bad":
        return -math.inf
    accuracy = {"a": 0.9, "b": 0.8}[cfg.model] - abs(math.log10(cfg.optim.lr) + 3) / 100
    (out / "val_metrics.json").write_text(json.dumps({"accuracy": accuracy, "n": 100}))
    return accuracy

main()
"""

CONFIG = """
defaults: [augment: none, {optional hparams_search: null}, _self_]
model: a
seed: 0
optim: {lr: 0.001}
hydra:
  sweep: {dir: "multirun/${now:%Y-%m-%d_%H-%M-%S-%f}", subdir: "${hydra.job.num}"}
  callbacks: {leaderboard: {_target_: faceattr.report.leaderboard.Leaderboard}}
"""


@pytest.fixture
def app(tmp_path) -> Path:
    """A Hydra program with our callback and our search settings, whose training takes no time."""
    (tmp_path / "app.py").write_text(APP)
    (tmp_path / "conf" / "augment").mkdir(parents=True)
    (tmp_path / "conf" / "app.yaml").write_text(CONFIG)
    for name in ("none", "light"):
        (tmp_path / "conf" / "augment" / f"{name}.yaml").write_text(f"name: {name}\n")
    (tmp_path / "conf" / "hparams_search").symlink_to(CONF / "hparams_search")
    return tmp_path


def test_callback_keeps_finished_jobs_and_exits_with_1(app):
    ended = run(app, "app.py", "-cd", "conf", "-m", "model=a,bad,b", "seed=0,1", "hydra.sweep.dir=out")
    assert ended.returncode == 1, ended.stderr
    assert "2 of 6 jobs failed:" in ended.stderr and "out/2: model: no such stage" in ended.stderr
    assert "Stages: block1" not in ended.stderr, "the first line of the error is enough here"
    board = pd.read_csv(app / "out" / "leaderboard.csv")
    assert board[["model", "seeds", "failed"]].values.tolist() == [["a", 2, 0], ["b", 2, 0], ["bad", 0, 2]]
    assert "0.900 ±0.000" in ended.stdout and "out/leaderboard.csv" in ended.stdout
    assert not list(app.rglob("*=*"))

    with pytest.raises(SystemExit, match="jobs of an earlier sweep"):
        Leaderboard().on_multirun_start(OmegaConf.create({"hydra": {"sweep": {"dir": str(app / "out")}}}))


@pytest.mark.slow
def test_callback_of_a_parallel_search_keeps_finished_trials(app):
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    search = ["hparams_search=optuna", "hydra.sweeper.n_trials=4", "model=choice(a,bad)", "hydra.sweep.dir=out"]
    parallel = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "hydra.sweeper.n_jobs=2"]
    ended = run(app, "app.py", "-cd", "conf", *search, *parallel)
    board = pd.read_csv(app / "out" / "leaderboard.csv")
    assert board["jobs"].nunique() == 4 and set(board["model"]) == {"a", "bad"}, "n_trials or the seed is not honoured"
    assert ended.returncode == 1 and f"{board['failed'].sum()} of 4 jobs failed" in ended.stderr
    assert board["optim.lr"].between(1e-4, 1e-2).all()
    best = f"Best value: {board.loc[0, 'val_accuracy']}"
    assert best[:18] in ended.stdout and not list((app / "out").glob(".leaderboard*"))


def test_leaderboard_takes_values_that_mean_the_same_for_one(tmp_path):
    for number, (flag, rate, name) in enumerate(
        [("True", "1e-3", "a"), ("true", "0.001", "'a'"), ("false", "0.001", "a")]
    ):
        job(
            tmp_path,
            number,
            [f"model.head.batch_norm={flag}", f"optim.lr={rate}", f"name={name}", f"seed={number}"],
            0.9,
        )
    board = leaderboard(tmp_path)
    assert board["jobs"].tolist() == ["0 1", "2"] and board["model.head.batch_norm"].tolist() == ["True", "false"]
    assert "optim.lr" not in board and "name" not in board
