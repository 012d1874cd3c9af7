"""Two processes on the CPU: however one of them ends, the other ends too, says why once, and the run can go on."""

import json
import os
import shlex
import signal
import time
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
from programs import FIGURES, PATIENCE, quick
from signal_at import SignalAt, children, runs

from faceattr.commands.ddp_processes import _message
from faceattr.training.run_json import RunRecord

TWO = ("trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "trainer.precision=32", FIGURES)
GIVEN = (
    *("data.n=60", "data.image_size=32", "model.image_size=[32,32]", "model.blocks=[[4],[4]]", *TWO),
    *("finetune.train_from=[[0,head],[5,block2],[9,block1]]", "trainer.max_epochs=24", "trainer.patience=null"),
)


LOST = "Error: Process 1 of this DDP run was ended by SIGKILL (so a system ends what takes too much memory).\n"
LEFT = "Error: The first process of this DDP run was killed.\n"
ROWS = "run/metrics.csv"


@pytest.mark.parametrize(
    ("code", "how"),
    [
        (-signal.SIGKILL, "was ended by SIGKILL (so a system ends what takes too much memory)."),
        (128 + signal.SIGKILL, "was ended by SIGKILL (so a system ends what takes too much memory)."),
        (128 + signal.SIGTERM, "was ended by SIGTERM."),
        (-signal.SIGSEGV, "was ended by SIGSEGV."),
        (1, "ended with exit code 1; if it said why, that is above."),
        (250, "ended with exit code 250; if it said why, that is above."),
    ],
)
def test_message_says_how_a_process_ended(tmp_path, code, how):
    advice = "Nothing was trained yet: give the same command again."
    assert _message(2, code, RunRecord(tmp_path)) == f"Process 2 of this DDP run {how}\n{advice}"


@pytest.mark.slow
def test_ddp_run_ends_as_a_whole_and_goes_on_exactly(tmp_path):
    """One run, stopped five times: the first time before its second process has joined."""
    whole = quick("train", *GIVEN, "hydra.run.dir=whole", cwd=tmp_path)
    assert whole.code == 0, whole.err
    run = tmp_path / "run"
    arguments = [*GIVEN, f"hydra.run.dir={run}"]
    for signal_at, code, status, message in [
        (None, 1, "failed", LOST),
        (SignalAt(signal.SIGKILL, ROWS, 2, to="children"), 1, "failed", LOST),
        (SignalAt(signal.SIGTERM, ROWS, 7), 143, "interrupted", "Stopped by SIGTERM\n"),
        (SignalAt(signal.SIGINT, ROWS, 11, to="all"), 130, "interrupted", "Stopped by SIGINT\n"),
        (SignalAt(signal.SIGKILL, ROWS, 14), -9, "running", LEFT),
    ]:
        meanwhile = partial(wait_for_all, kill_worker=signal_at is None)
        ended = quick("train", *arguments, cwd=tmp_path, signal_at=signal_at, meanwhile=meanwhile)
        assert ended.code == code, f"{ended}"
        first, *advice = ended.err.splitlines(keepends=True)
        assert first == message and len(advice) == ("Error" in message), ended.err
        assert json.loads((run / "run.json").read_text())["status"] == status
        resume = ("".join(advice) or ended.out).rpartition("To go on: python train.py ")[2]
        arguments = shlex.split(resume.splitlines()[0]) if "ckpt" in resume else arguments
    ended = quick("train", *arguments, cwd=tmp_path)
    assert ended.code == 0, ended.err
    assert json.loads((run / "run.json").read_text())["status"] == "finished"
    for name in ("test_metrics.json", "predictions_val.csv"):
        assert (run / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


def wait_for_all(process: BaseProcess, kill_worker: bool) -> None:
    """Until the command and the process that it starts have ended; `kill_worker`: at once, while it imports."""
    assert process.pid is not None
    until, workers = time.monotonic() + PATIENCE, list[int]()
    while not workers:
        assert process.is_alive(), "it ended before it started another process"
        workers = [child for child in children(process.pid) if "train_ddp_process_1" in command_of(child)]
    if kill_worker:
        os.kill(workers[0], signal.SIGKILL)
    while process.is_alive() or any(map(runs, workers)):
        assert time.monotonic() < until, "a process of the run does not end"
        time.sleep(0.05)


def command_of(process: int) -> str:
    try:
        return Path(f"/proc/{process}/cmdline").read_text()
    except OSError:
        return ""
