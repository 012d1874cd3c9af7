"""The evaluation of a split: computed without a folder, then written from what is in memory."""

from dataclasses import replace

import pandas as pd
import pytest
import torch
from checkpoints import untrained
from composing import compose_config
from pictures import places
from programs import S0_MAP

from faceattr.commands.build_from_config import (
    create_classifier,
    create_data,
    evaluation_settings,
    read_table,
    trainer_settings,
)
from faceattr.commands.evaluate_split import _calibration, draw_split, evaluate_split, write_split
from faceattr.config.schema import EvaluateOptions
from faceattr.data.decode import InputSpec, read
from faceattr.data.sources import sample
from faceattr.models.task import Task
from faceattr.training import checkpoint_format

SPEC = InputSpec(32, 32, "bilinear", "unit")


def test_draw_split_shows_packed_pixels_and_a_failed_gallery_does_not_lose_the_evaluation(tmp_path):
    root = sample.write("csv", tmp_path / "data", n=30, image_size=32)
    tiny = ["model.image_size=[32,32]", "trainer=cpu", "trainer.precision=32"]
    cfg = compose_config("data=csv", S0_MAP, f"data.root={root}", "data.pack=ram", *tiny)
    table = read_table(cfg)
    task = Task.from_config(table.attrs["classes"], ordinal=False, loss="auto")
    model = create_classifier(cfg, task)
    data = create_data(cfg, table)
    gone, there = table["path"][table["split"] == "test"].iloc[:2]
    packed = [read(root / path, SPEC) for path in (gone, there)]
    (root / gone).unlink()
    result = evaluate_split(model, data, "test", trainer_settings(cfg), evaluation_settings(cfg))
    assert list(tmp_path.glob("*test*")) == []
    write_split(result, tmp_path)
    assert not list(tmp_path.glob("*.png"))
    draw_split(result, data, tmp_path, title="run")
    assert (tmp_path / "test_metrics.json").exists()
    assert len(pd.read_csv(tmp_path / "predictions_test.csv")) == result.metrics["n"]
    assert [len(places(tmp_path / "gallery_test.png", pixels)) for pixels in packed] == [1, 1]
    (tmp_path / "gallery_val.png").mkdir()  # now it cannot be written at all
    result = evaluate_split(model, data, "val", trainer_settings(cfg), evaluation_settings(cfg))
    write_split(result, tmp_path)
    with pytest.raises(IsADirectoryError):
        draw_split(result, data, tmp_path, title="run")
    assert (tmp_path / "val_metrics.json").exists() and (tmp_path / "predictions_val.csv").exists()


def test_a_column_with_infinite_numbers_and_a_failing_chart_cost_nothing_else(tmp_path, caplog):
    """A chart that fails is one warning; a table with odd further columns is evaluated."""
    root = sample.write("csv", tmp_path / "data", n=40, image_size=32)
    cfg = compose_config(
        "data=csv", S0_MAP, f"data.root={root}", "data.pack=ram", "model.image_size=[32,32]", "trainer=cpu"
    )
    table = read_table(cfg).assign(score=[float("-inf"), *range(39)])
    task = Task.from_config(table.attrs["classes"], ordinal=False, loss="auto")
    data = create_data(cfg, table)
    result = evaluate_split(
        create_classifier(cfg, task), data, "train", trainer_settings(cfg), evaluation_settings(cfg)
    )
    assert {"true_class", "score"} <= set(result.slices["column"])
    broken = replace(result, predictions=result.predictions.drop(columns="predicted"))
    write_split(broken, tmp_path)
    draw_split(broken, data, tmp_path, title="run")
    assert [r.getMessage() for r in caplog.records if r.levelname == "WARNING"] == [
        "gallery_train.png is missing: KeyError: 'predicted'"
    ]
    assert (tmp_path / "confusion_train.png").exists()


def test_calibration_says_that_no_threshold_reaches_what_was_requested(tmp_path, caplog):
    model, _ = checkpoint_format.load(untrained(tmp_path / "best.ckpt"))
    scores, truth = torch.tensor([[0.1, 0.9], [0.2, 0.8], [0.9, 0.1]]), torch.tensor([0, 1, 0])
    metrics = _calibration(model, scores, truth, EvaluateOptions(precision=0.9), "test")
    assert "Test: no threshold reaches evaluate.precision=0.9" in caplog.text and "threshold" not in metrics
    metrics = _calibration(model, scores, truth, EvaluateOptions(precision=0.5), "test")
    assert metrics["threshold"] == pytest.approx(0.8)
