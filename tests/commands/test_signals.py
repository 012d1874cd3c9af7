"""Signals that ask a process to end: each stage of a command cleans up, says so, and exits with the signal's code."""

import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import time

import pytest
from programs import PATIENCE, TINY, quick
from signal_at import SignalAt, runs

from faceattr.commands import signals
from faceattr.commands.signals import Stopped, interrupt_main_thread, stop_on_signals
from faceattr.config.quote_for_hydra import argument
from faceattr.data.sources import sample


@pytest.fixture(autouse=True)
def no_signal_yet(monkeypatch):
    monkeypatch.setattr(signals, "_last_signal", -1e9)


@pytest.mark.parametrize(("by", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)])
def test_stop_on_signals_raises_once_with_the_code_of_a_shell(request, by, code):
    before = signal.signal(by, signal.SIG_DFL)  # `nohup` or `&` may have had it ignored
    request.addfinalizer(lambda: signal.signal(by, before))
    with pytest.raises(Stopped, match=f"Stopped by {by.name}") as stopped, stop_on_signals():
        try:
            os.kill(os.getpid(), by)
        finally:
            os.kill(os.getpid(), by)  # a second one does not interrupt the cleaning up
            cleaned = True
    assert stopped.value.code == code and cleaned and signal.getsignal(by) is signal.SIG_DFL


@pytest.mark.parametrize("platform", ["linux", "win32"])
def test_interrupt_main_thread_does_what_sigterm_does(monkeypatch, platform):
    monkeypatch.setattr(sys, "platform", platform)
    with pytest.raises(Stopped, match="Stopped by SIGTERM"), stop_on_signals():
        threading.Thread(target=interrupt_main_thread).start()
        for _ in range(600):  # on Windows it interrupts no call
            time.sleep(0.1)


def test_stop_on_signals_leaves_an_ignored_signal_ignored():
    """As `nohup` wants it."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_on_signals():
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.slow
def test_sigterm_while_packing_leaves_nothing(tmp_path):
    root = sample.write("folders", tmp_path / "faces", n=60, image_size=32)
    given = ("data=folders", f"data.root={root}", *TINY[2:], "trainer.max_epochs=1", "hydra.run.dir=run")
    packing = SignalAt(signal.SIGTERM, "cache/kept/*.part")
    ended = quick("train", *given, cwd=tmp_path, signal_at=packing, FACEATTR_CACHE=str(tmp_path / "cache"))
    assert ended.code == 143 and ended.err == "Stopped by SIGTERM\n", f"{ended}"
    assert "give the same command again" in ended.out
    assert not list(tmp_path.rglob("*.part")) and not (tmp_path / "run").exists()


def test_sigterm_while_evaluating_is_recorded_and_resumed_exactly(tmp_path):
    """The temperature is fitted anew, not on top of the one that the interrupted evaluation stored."""
    given = (*TINY, "trainer.max_epochs=1", "evaluate.calibrate=true", "model.blocks=[[4],[4]]")
    whole = quick("train", *given, "hydra.run.dir=whole", cwd=tmp_path)
    assert whole.code == 0, whole.err
    run = tmp_path / "ü=1, it's" / "run"
    where, evaluated = argument("hydra.run.dir", run), SignalAt(signal.SIGTERM, "*/run/slices_val.csv")
    ended = quick("train", *given, where, cwd=tmp_path, signal_at=evaluated)
    record = json.loads((run / "run.json").read_text())
    assert ended.code == 143 and ended.err == "Stopped by SIGTERM\n", f"{ended}"
    assert (record["status"], record["error"]) == ("interrupted", "Stopped by SIGTERM")
    assert not list(run.rglob(".*.part")) and not (run / ".lock").exists() and not (run / "report.html").exists()
    command = next(line for line in ended.out.splitlines() if line.startswith("Interrupted. To go on: "))
    as_pasted = shlex.split(command.removeprefix("Interrupted. To go on: python train.py "))
    resumed = quick("train", *as_pasted, cwd=tmp_path)
    assert resumed.code == 0, resumed.err
    assert json.loads((run / "run.json").read_text())["status"] == "finished"
    for name in ("val_metrics.json", "test_metrics.json", "predictions_test.csv"):
        assert (run / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


PARENT = """
import subprocess, sys
from faceattr.commands.signals import end_with_parent
end_with_parent()
child = subprocess.Popen([sys.executable, "-c", "from faceattr.commands.signals import end_with_parent; end_with_parent(); "
    "print('ready', flush=True); import time; time.sleep(600)"], stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
import time; time.sleep(600)
"""


def test_end_with_parent_ends_a_process_whose_parent_is_killed():
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True)
    assert parent.stdout
    child = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    until = time.monotonic() + PATIENCE
    while runs(child):
        assert time.monotonic() < until, "it outlives its parent"
        time.sleep(0.05)
