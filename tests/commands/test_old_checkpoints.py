"""Checkpoints of format 1 still evaluate, predict and resume, with the figures of the code that made them.

`data_files/old_checkpoints/make.sh` made them, and these figures.
"""

import json
from pathlib import Path

import pandas as pd
import pytest
from programs import FIGURES, ROOT, inside

from faceattr.data.sources import sample

NAMES = ("cnn", "vgg16", "multilabel")
CPU = ("trainer.accelerator=cpu", "trainer.precision=32")
CLOSE = 1e-6
"""How far a probability may be off with another build of torch."""


@pytest.fixture(params=NAMES)
def old(request: pytest.FixtureRequest) -> Path:
    return ROOT / "tests" / "data_files" / "old_checkpoints" / request.param


def run(command: str, *arguments: object, cwd: Path) -> None:
    ended = inside(command, *arguments, cwd=cwd)
    assert ended.code == 0, ended.err


def test_evaluate_an_old_checkpoint(old, tmp_path, cache):
    given = (
        f"ckpt={old / 'best.ckpt'}",
        "split=val",
        f"data.root={cache / 'sample'}",
        "hydra.run.dir=evaluated",
        FIGURES,
    )
    run("evaluate", *given, *CPU, cwd=tmp_path)
    predicted, expected = (pd.read_csv(f / "predictions_val.csv") for f in (tmp_path / "evaluated", old))
    pd.testing.assert_frame_equal(predicted[expected.columns], expected, atol=CLOSE)
    metrics, before = (json.loads((f / "val_metrics.json").read_text()) for f in (tmp_path / "evaluated", old))
    assert {key: metrics[key] for key in before} == pytest.approx(before, abs=1e-5, nan_ok=True)


def test_predict_with_an_old_checkpoint(old, tmp_path, cache):
    sample.load(str(cache / "sample"), n=60, image_size=32)
    (images,) = (cache / "sample").glob("*_n60_size32_seed0")
    run("predict", f"ckpt={old / 'best.ckpt'}", f"input={images}", "hydra.run.dir=predicted", *CPU, cwd=tmp_path)
    predicted = pd.read_csv(tmp_path / "predicted" / "predictions.csv")
    predicted["path"] = predicted["path"].map(lambda path: Path(path).name)
    pd.testing.assert_frame_equal(predicted, pd.read_csv(old / "predictions.csv"), atol=CLOSE)


def test_resume_an_old_checkpoint(old, tmp_path, cache):
    """The next epoch is the one that the old code would have trained."""
    given = (f"ckpt={old / 'last.ckpt'}", "trainer.max_epochs=3", f"data.root={cache / 'sample'}")
    run("train", *given, "hydra.run.dir=resumed", *CPU, FIGURES, cwd=tmp_path)
    expected = pd.read_csv(old / "resumed.csv")
    resumed = pd.read_csv(tmp_path / "resumed" / "metrics.csv")[expected.columns]
    pd.testing.assert_frame_equal(resumed, expected, atol=1e-5)
