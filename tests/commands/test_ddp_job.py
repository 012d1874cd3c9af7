"""Two processes on the CPU: a sweep of DDP runs is what the same runs are one by one."""

import json

import pandas as pd
import pytest
from programs import TINY, quick

DDP = ("trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "trainer.precision=32", "trainer.max_epochs=1")


@pytest.mark.slow
def test_sweep_of_ddp_runs_trains_each_job_with_two_processes(tmp_path):
    given = [override for override in TINY if not override.startswith("trainer")]
    ended = quick("train", "-m", *given, *DDP, "seed=0,1", "hydra.sweep.dir=sweep", cwd=tmp_path)
    assert ended.code == 0, ended.err
    board = pd.read_csv(tmp_path / "sweep" / "leaderboard.csv")
    assert board["seeds"].tolist() == [2] and board["failed"].tolist() == [0]
    alone = quick("train", *given, *DDP, "seed=1", "hydra.run.dir=alone", cwd=tmp_path)
    assert alone.code == 0, alone.err
    for name in ("test_metrics.json", "predictions_val.csv"):
        assert (tmp_path / "sweep" / "1" / name).read_bytes() == (tmp_path / "alone" / name).read_bytes()
    about = json.loads((tmp_path / "sweep" / "1" / "run.json").read_text())
    assert about["status"] == "finished" and "2" in about["device"]
    assert {path.name for path in tmp_path.iterdir()} == {"sweep", "alone"}
