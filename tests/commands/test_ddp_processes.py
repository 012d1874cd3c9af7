"""Two processes on the CPU: however one of them ends, the other ends too, says why once, and the run can go on."""

import json
import shlex
import signal

import pytest
from programs import FIGURES, quick

TWO = ("trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "trainer.precision=32", FIGURES)
GIVEN = (
    *("data.n=60", "data.image_size=32", "model.image_size=[32,32]", "model.blocks=[[4],[4]]", *TWO),
    *("finetune.train_from=[[0,head],[5,block2],[9,block1]]", "trainer.max_epochs=24", "trainer.patience=null"),
)


@pytest.mark.slow
def test_ddp_run_ends_as_a_whole_and_goes_on_exactly(tmp_path):
    """One run, stopped four times."""
    whole = quick("train", *GIVEN, "hydra.run.dir=whole", cwd=tmp_path)
    assert whole.code == 0, whole.err
    run = tmp_path / "run"
    arguments = [*GIVEN, f"hydra.run.dir={run}"]
    lost = "Error: Process 1 of this DDP run was ended by SIGKILL (so a system ends what takes too much memory).\n"
    for epochs, by, to, code, status, message in [
        (2, signal.SIGKILL, "worker", 1, "failed", lost),
        (7, signal.SIGTERM, "command", 143, "interrupted", "Stopped by SIGTERM\n"),
        (11, signal.SIGINT, "all", 130, "interrupted", "Stopped by SIGINT\n"),
        (14, signal.SIGKILL, "command", -9, "running", "Error: The first process of this DDP run was killed.\n"),
    ]:
        rows = run / "metrics.csv"
        reached = lambda: rows.exists() and rows.read_text().count("\n") > epochs  # noqa: B023, E731
        ended = quick("train", *arguments, cwd=tmp_path, signals=(by, reached), to=to)
        assert ended.code == code, f"{ended}"
        assert ended.err.startswith(message) and ended.err.count("\n") == (1 if "Stopped" in message else 2), ended.err
        assert json.loads((run / "run.json").read_text())["status"] == status
        command = next(
            line for line in (ended.out + ended.err).splitlines() if "To go on: " in line and ended.out.count(line) < 2
        )
        arguments = shlex.split(command.partition("To go on: python train.py ")[2])
    ended = quick("train", *arguments, cwd=tmp_path)
    assert ended.code == 0, ended.err
    assert json.loads((run / "run.json").read_text())["status"] == "finished"
    for name in ("test_metrics.json", "predictions_val.csv"):
        assert (run / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
