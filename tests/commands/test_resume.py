"""Going on with a run that has nothing left to do, or lacks what it needs."""

import json
import logging
from pathlib import Path

import pandas as pd
import pytest
from composing import compose_config
from programs import FIGURES, TINY, inside

import faceattr
from faceattr.commands.build_from_config import plain
from faceattr.commands.resume import check_resume
from faceattr.errors import FaceattrError
from faceattr.models.task import Task

SMALL = (*TINY, FIGURES, "model.blocks=[[4],[4]]")


@pytest.fixture(scope="module")
def stopped_early(tmp_path_factory) -> Path:
    """A finished run of 2 of 9 epochs: with such a learning rate nothing improves after the first."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    more = ("trainer.max_epochs=9", "trainer.patience=1", "optim.lr=10", "evaluate.calibrate=true")
    faceattr.train(*SMALL, *more, f"hydra.run.dir={folder}")
    assert len(pd.read_csv(folder / "metrics.csv")) < 9
    return folder


def content(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_train_of_a_finished_run_changes_nothing_and_says_so(stopped_early):
    before, last = content(stopped_early), stopped_early / "checkpoints" / "last.ckpt"
    run = faceattr.train(f"ckpt={last}")
    assert run.metrics["test"] == json.loads((stopped_early / "test_metrics.json").read_text())
    assert run.checkpoint.name == "best.ckpt"
    ended = inside("train", f"ckpt={last}", cwd=stopped_early.parent)
    assert ended.code == 0 and "This run is finished; nothing is changed" in ended.out, f"{ended}"
    assert content(stopped_early) == before


def test_train_from_an_older_checkpoint_overwrites_no_epoch(stopped_early, tmp_path):
    before, best = content(stopped_early), stopped_early / "checkpoints" / "best.ckpt"
    with pytest.raises(
        FaceattrError, match=r"from after 1 epoch; last\.ckpt beside it has 2, .*\n.*last\.ckpt\n.*run\.dir"
    ):
        faceattr.train(f"ckpt={best}", "trainer.max_epochs=3")
    log = stopped_early / "train.log"
    assert content(stopped_early) | {log: b""} == before | {log: b""}
    run = faceattr.train(f"ckpt={best}", "trainer.max_epochs=2", f"hydra.run.dir={tmp_path / 'run'}")
    assert pd.read_csv(run.folder / "metrics.csv")["epoch"].tolist() == [0, 1]


def test_train_of_a_run_that_was_evaluated_only_in_part_repeats_the_evaluation(stopped_early, caplog):
    """No epoch more, although the patience would allow one; the temperature is not fitted on top of the stored one."""
    record = stopped_early / "run.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"status": "running"}))
    before = {path: data for path, data in content(stopped_early).items() if path.suffix in (".csv", ".json")}
    with caplog.at_level(logging.INFO):
        faceattr.train(f"ckpt={stopped_early / 'checkpoints' / 'last.ckpt'}")
    assert "Nothing is trained: val_loss has not improved for 1 epoch (trainer.patience=1)" in caplog.text
    after = content(stopped_early)
    assert json.loads(after[record])["status"] == "finished"
    assert [path.name for path in before if path != record and after[path] != before[path]] == []


def test_train_goes_on_without_the_file_that_a_run_started_from(stopped_early, tmp_path):
    weights = tmp_path / "weights.ckpt"
    weights.write_bytes((stopped_early / "checkpoints" / "best.ckpt").read_bytes())
    given = (*SMALL, f"model.weights={weights}", "trainer.max_epochs=1", f"hydra.run.dir={tmp_path / 'run'}")
    last = faceattr.train(*given).folder / "checkpoints" / "last.ckpt"
    weights.unlink()
    assert len(pd.read_csv(faceattr.train(f"ckpt={last}", "trainer.max_epochs=2").folder / "metrics.csv")) == 2


def test_train_goes_on_only_with_the_best_checkpoint_beside_the_last(stopped_early, tmp_path):
    alone = tmp_path / "last.ckpt"
    alone.write_bytes((stopped_early / "checkpoints" / "last.ckpt").read_bytes())
    with pytest.raises(FaceattrError, match=r"best\.ckpt: there is no such file[\s\S]*trainer\.checkpoint=last"):
        faceattr.train(f"ckpt={alone}", "trainer.max_epochs=10", f"hydra.run.dir={tmp_path / 'run'}")
    assert not (tmp_path / "run").exists()
    (tmp_path / "best.ckpt").write_bytes(b"half")
    with pytest.raises(FaceattrError, match=r"best\.ckpt: truncated[\s\S]*trainer\.checkpoint=last"):
        faceattr.train(f"ckpt={alone}", "trainer.max_epochs=10", f"hydra.run.dir={tmp_path / 'run'}")


@pytest.mark.parametrize(
    ("given", "changes"),
    [
        (["data.batch_size=7", "data.root=/elsewhere", "finetune.cache=off"], []),
        (["optim.lr=0.5"], ["optim.lr (was 0.001, now 0.5)"]),
        (["model.head.hidden=[8]", "seed=3"], ["model.head.hidden (was [], now [8])", "seed (was 0, now 3)"]),
        (["loss=ce", "faces.margin=0.3"], ["loss (was auto, now ce)", "faces.margin (was 0.0, now 0.3)"]),
        (["trainer.monitor=val_accuracy"], ["trainer.monitor (was val_loss, now val_accuracy)"]),
        (["data.on_leak=drop"], ["data.on_leak (was warn, now drop)"]),
        (["data.n=9"], ["data.n (was 2000, now 9)", "fingerprint (was 0, now 1)"]),
    ],
)
def test_check_resume_names_each_key_with_both_values(given, changes):
    stored = {"config": plain(compose_config()), "classes": ["woman", "man"], "fingerprint": "0"}
    task = Task.from_config(["woman", "man"], loss="auto", ordinal=False)
    message = "no error"
    try:
        check_resume(compose_config(*given), stored, task, "1" if "data.n=9" in given else "0")
    except FaceattrError as error:
        message = str(error).partition("began: ")[2].partition(".\n")[0]
    assert message == (", ".join(changes) or "no error")


def test_train_that_cannot_write_a_result_has_failed_and_keeps_the_results_so_far(tmp_path):
    """A folder in the place of a file stands for a full disk."""
    (tmp_path / "run" / "test_metrics.json").mkdir(parents=True)
    with pytest.raises(FaceattrError, match=r"test_metrics\.json.*: Is a directory"):
        faceattr.train(*SMALL, "trainer.max_epochs=1", f"hydra.run.dir={tmp_path / 'run'}")
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["status"] == "failed" and "Is a directory" in record["error"]
    assert json.loads((tmp_path / "run" / "val_metrics.json").read_text())["n"] > 0
    assert not list((tmp_path / "run").rglob(".*.part"))
