"""How to go on with a sweep that was killed: a command for each job that did not finish, or was never started."""

import shlex
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from programs import inside
from sweeps import job

from faceattr.report.leaderboard import Leaderboard
from faceattr.report.unfinished_jobs import describe, left_to_do, unfinished


@pytest.fixture
def sweep(tmp_path) -> Path:
    """Of six jobs, one finished, two did not, three were never started."""
    folder = tmp_path / "a sweep"
    job(folder, 0, ["model=cnn", "seed=0", "data.root='/a b'"], 0.90)
    job(folder, 1, ["model=cnn", "seed=1", "data.root='/a b'"], status="failed", error="Out of memory")
    job(folder, 2, ["model=vgg16", "seed=0", "data.root='/a b'"])
    (folder / "2" / "checkpoints").mkdir()
    (folder / "2" / "checkpoints" / "last.ckpt").touch()
    sweeper = "hydra._internal.core_plugins.basic_sweeper.BasicSweeper"
    grid = ["model=cnn,vgg16,alexnet", "seed=0,1", "data.root='/a b'"]
    OmegaConf.save({"hydra": {"sweeper": {"_target_": sweeper}, "overrides": {"task": grid}}}, folder / "multirun.yaml")
    return folder


def test_unfinished_gives_a_command_for_each_job_that_did_not_finish(sweep):
    commands = [shlex.split(text) for text in unfinished(sweep)]
    root = "data.root='/a b'"
    assert [text[text.index("train") + 1 :] for text in commands] == [
        ["model=cnn", "seed=1", root, f"hydra.run.dir='{sweep}/1'"],
        [f"ckpt='{sweep}/2/checkpoints/last.ckpt'"],
        *(
            [f"model={m}", f"seed={s}", root, f"hydra.run.dir='{sweep}/{n}'"]
            for m, s, n in (("vgg16", 1, 3), ("alexnet", 0, 4))
        ),
        ["model=alexnet", "seed=1", root, f"hydra.run.dir='{sweep}/5'"],
    ]


def test_unfinished_of_a_search_knows_the_started_jobs_only(sweep):
    OmegaConf.save({"hydra": {"sweeper": {"_target_": "hydra_plugins.x.OptunaSweeper"}}}, sweep / "multirun.yaml")
    assert len(unfinished(sweep)) == 2


def test_a_sweep_in_the_folder_of_another_is_told_how_to_go_on(sweep):
    config = OmegaConf.create({"hydra": {"sweep": {"dir": str(sweep)}}})
    with pytest.raises(SystemExit, match=r"holds the jobs of an earlier sweep\.\nTo go on") as error:
        Leaderboard().on_multirun_start(config)
    assert all(command in str(error.value) for command in unfinished(sweep))


def test_describe_of_a_finished_sweep_asks_for_another_folder(tmp_path):
    job(tmp_path, 0, ["seed=0"], 0.9)
    assert describe(tmp_path).endswith("all of them finished. Give another hydra.sweep.dir, or move it away.")


def test_left_to_do_says_why_a_job_has_no_command_that_was_refused(tmp_path):
    job(tmp_path, 0, ["trainer.patience=1"], 0.9)
    job(
        tmp_path,
        1,
        ["trainer.patience=0"],
        status="failed",
        refused=True,
        error="trainer.patience=0: must be 1.\nOr more",
    )
    assert unfinished(tmp_path) == []
    (heading, line) = left_to_do(tmp_path)
    assert "would fail again" in heading and line == f"{tmp_path / '1'}: trainer.patience=0: must be 1."
    assert line in describe(tmp_path) and "all of them finished" not in describe(tmp_path)
    job(tmp_path, 2, ["trainer.patience=2"], status="failed", error="Out of memory")
    assert [len(unfinished(tmp_path)), len(left_to_do(tmp_path))] == [1, 4]


def test_a_job_with_a_wrong_value_is_refused_and_has_no_command(tmp_path):
    ended = inside("train", "-m", "trainer.patience=0", "hydra.sweep.dir=sweep", cwd=tmp_path)
    assert ended.code == 1 and "1 of 1 job failed" in ended.err, ended
    assert (
        unfinished(tmp_path / "sweep") == []
        and "trainer.patience=0: must be from 1" in left_to_do(tmp_path / "sweep")[1]
    )
