"""A folder holds one run or export: it is claimed, and nothing else is written into it."""

import multiprocessing
import shutil
from pathlib import Path
from typing import Any

import pytest
from hydra.conf import HydraConf, JobConf, RunDir, SweepDir
from hydra.types import RunMode
from omegaconf import OmegaConf
from programs import PATIENCE

from faceattr.commands.hydra_app import own_hydra_state
from faceattr.commands.run_folder import LOCK, RunFolder, checkpoint_of, claim, content, released, remove_empty_sweep
from faceattr.errors import FaceattrError


def try_to_claim(folder: Path, start: Any, answers: Any) -> None:
    start.wait()
    with released():
        try:
            claim(folder)
            answers.put("claimed")
            start.wait()  # until the others have tried
        except FaceattrError as error:
            answers.put(str(error))
            start.wait()


def test_claim_gives_a_folder_to_one_of_several_processes(tmp_path):
    context = multiprocessing.get_context("forkserver")
    start, answers = context.Barrier(3), context.Queue()
    processes = [context.Process(target=try_to_claim, args=(tmp_path / "run", start, answers)) for _ in range(3)]
    for process in processes:
        process.start()
    messages = sorted(answers.get(timeout=PATIENCE) for _ in processes)
    for process in processes:
        process.join()
    assert (
        "another process runs in this folder" in messages[0]
        and "another process" in messages[1]
        and messages[2] == "claimed"
    )


def test_claim_ends_with_its_block_and_can_be_made_again(tmp_path):
    for _ in range(2):
        with released():
            claim(tmp_path)
            assert (tmp_path / LOCK).exists()
            with pytest.raises(FaceattrError, match="another process"):
                claim(tmp_path)
        assert not list(tmp_path.iterdir())


def test_claim_removes_what_a_killed_process_left_half_written(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    parts = [tmp_path / ".report.html.part", tmp_path / "checkpoints" / ".last.ckpt.part"]
    for file in (*parts, tmp_path / "mine.part"):
        file.write_bytes(b"half")
    with released():
        claim(tmp_path)
    assert not any(part.exists() for part in parts) and (tmp_path / "mine.part").exists()


def test_remove_empty_sweep_leaves_what_holds_jobs_and_passes_over_what_is_gone(tmp_path):
    with released():
        for name in ("refused", "sweep", "gone"):
            claim(tmp_path / name)
            (tmp_path / name / "multirun.yaml").touch()
        (tmp_path / "sweep" / "0").mkdir()
        shutil.rmtree(tmp_path / "gone")
        remove_empty_sweep()
    assert [path.name for path in tmp_path.iterdir()] == ["sweep"]


def test_checkpoint_of_a_folder_without_a_checkpoint_is_none(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / ".last.ckpt.part").write_bytes(b"half")
    assert checkpoint_of(tmp_path) is None
    for name in ("best", "last"):
        (tmp_path / "checkpoints" / f"{name}.ckpt").touch()
        assert checkpoint_of(tmp_path) == tmp_path / "checkpoints" / f"{name}.ckpt"


def test_a_job_of_a_sweep_locks_its_folder_while_it_runs(tmp_path):
    config = OmegaConf.create({"hydra": {"mode": RunMode.MULTIRUN, "runtime": {"output_dir": str(tmp_path / "0")}}})
    with released():
        RunFolder().on_job_start(config)
        with pytest.raises(FaceattrError, match="another process runs in this folder"):
            claim(tmp_path / "0")
        RunFolder().on_job_end(config)
        assert not list((tmp_path / "0").iterdir())
        claim(tmp_path / "0")


HELD = {
    "a run": ("checkpoints/last.ckpt", "run.json", "val_metrics.json"),
    "an exported model": ("config.json", "model.onnx"),
    "a sweep": ("multirun.yaml", "0/checkpoints/last.ckpt"),
    "an evaluation": ("test_metrics.json",),
}


def fill(folder: Path, files: tuple[str, ...]) -> Path:
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).touch()
    return folder


def started(command: str, folder: Path, ckpt: object = None, key: str = "run") -> str:
    """The message of a command that is refused, `""` where it may write into `folder`."""
    config_name = command if command in ("evaluate", "predict", "export") else "train"
    job = JobConf(name=command, config_name=config_name)
    hydra = HydraConf(run=RunDir(str(folder)), sweep=SweepDir(str(folder)), job=job)
    config = OmegaConf.create({"hydra": hydra, "ckpt": ckpt and str(ckpt)})
    with own_hydra_state(), released():
        try:
            (RunFolder().on_run_start if key == "run" else RunFolder().on_multirun_start)(config)
        except SystemExit as stop:
            return str(stop.code)
    return ""


@pytest.mark.parametrize("held", HELD)
@pytest.mark.parametrize("command", ["train", "evaluate", "predict", "export", "preview", "leaks"])
def test_a_folder_that_holds_something_else_is_refused_and_named(tmp_path, command, held):
    folder = fill(tmp_path / "x", HELD[held])
    assert content(folder) == held
    ckpt = None if command in ("train", "preview", "leaks") else "other/checkpoints/best.ckpt"
    message = started(command, folder, ckpt)
    assert (message == "") == (held == "an evaluation" and command != "train")
    assert not message or (str(folder) in message and f"already holds {held}" in message)
    if command == "train":
        assert held in started("train", folder, "other/checkpoints/last.ckpt"), "a run that is resumed elsewhere"
    swept = started(command, folder, ckpt, "sweep")
    assert (f"hydra.sweep.dir={folder}" in swept) == (not (command == "train" and held == "a sweep")), "see Leaderboard"
    assert not (folder / LOCK).exists()


@pytest.mark.parametrize("files", [(), ("run.json",), ("config.json",), ("run.json", "val_metrics.json"), ("a.jpg",)])
def test_a_folder_without_a_result_of_ours_may_be_written_into(tmp_path, files):
    folder = fill(tmp_path, files)
    assert content(folder) is None and started("train", folder) == started("evaluate", folder, "best.ckpt") == ""


def test_a_run_goes_on_in_its_own_folder(tmp_path):
    folder = fill(tmp_path, HELD["a run"])
    assert started("train", folder, folder / "checkpoints" / "last.ckpt") == ""
    for ckpt in (None, "/other/checkpoints/last.ckpt"):
        assert f"train ckpt={folder}/checkpoints/last.ckpt" in started("train", folder, ckpt)
