"""Two processes on the CPU: a sweep of DDP runs is what the same runs are one by one."""

import json
from pathlib import Path

import pandas as pd
import pytest
from programs import TINY, quick, shell

DDP = ("trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "trainer.precision=32", "trainer.max_epochs=1")


GIVEN = (*(override for override in TINY if not override.startswith("trainer")), *DDP)


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> Path:
    """The run that is the second job of the sweeps."""
    folder = tmp_path_factory.mktemp("ddp") / "alone"
    ended = quick("train", *GIVEN, "seed=1", f"hydra.run.dir={folder}", cwd=folder.parent)
    assert ended.code == 0, ended.err
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(("launcher", "run"), [("basic", quick), ("joblib", shell)])  # joblib leaves workers in a fork
def test_sweep_of_ddp_runs_trains_each_job_with_two_processes(tmp_path, alone, launcher, run):
    if launcher == "joblib":
        pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    sweep = ("-m", "seed=0,1", f"hydra/launcher={launcher}", "hydra.sweep.dir=sweep")
    ended = run("train", *sweep, *GIVEN, cwd=tmp_path)
    assert ended.code == 0, ended.err
    board = pd.read_csv(tmp_path / "sweep" / "leaderboard.csv")
    assert board["seeds"].tolist() == [2] and board["failed"].tolist() == [0]
    for name in ("test_metrics.json", "predictions_val.csv"):
        assert (tmp_path / "sweep" / "1" / name).read_bytes() == (alone / name).read_bytes()
    about = json.loads((tmp_path / "sweep" / "1" / "run.json").read_text())
    assert about["status"] == "finished" and "2" in about["device"]
    assert {path.name for path in tmp_path.iterdir()} == {"sweep"}
