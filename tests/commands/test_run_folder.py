"""A folder holds one run: it is claimed, and what is left of a run that never wrote a checkpoint is no run."""

import multiprocessing
from pathlib import Path
from typing import Any

import pytest
from hydra.types import RunMode
from omegaconf import OmegaConf
from programs import PATIENCE

from faceattr.commands.run_folder import LOCK, RunFolder, checkpoint_of, claim, released
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
