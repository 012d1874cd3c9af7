"""evaluate.py on other data that the run's own source reads: `data.file=other.csv`."""

import logging
from pathlib import Path

import pytest
from checkpoints import untrained
from PIL import Image

import faceattr
from faceattr import FaceattrError


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """Ten images, results.csv and other.csv, and a checkpoint whose run read results.csv."""
    place = tmp_path_factory.mktemp("other")
    (place / "images").mkdir()
    for number in range(10):
        Image.new("RGB", (32, 32), (25 * number, 80, 200)).save(place / "images" / f"{number}.png")
    rows = [f"{number},{('male', 'female')[number % 2]}" for number in range(10)]
    for name in ("results.csv", "other.csv"):
        (place / name).write_text("\n".join(["Filename,Gender", *rows]))
    untrained(place / "best.ckpt", "data=csv", f"data.root={place}", "data.fractions={train: 0.6, val: 0.2, test: 0.2}")
    return place


def evaluate(place: Path, tmp_path: Path, *overrides: str) -> dict:
    return faceattr.evaluate(
        place / "best.ckpt", "evaluate.report=figures", f"hydra.run.dir={tmp_path / 'out'}", *overrides
    )


@pytest.mark.parametrize(
    ("overrides", "n"),
    [((), 2), (("data.file=other.csv",), 10), (("data.file=other.csv", "split=val"), 2), (("data.batch_size=4",), 2)],
)
def test_evaluate_takes_all_images_of_another_table(place, tmp_path, overrides, n, caplog):
    with caplog.at_level(logging.INFO):
        assert evaluate(place, tmp_path, *overrides)["n"] == n
    assert ("data.file=other.csv: other data than the run's" in caplog.text) is (n == 10)


def test_evaluate_does_not_calibrate_on_another_table(place, tmp_path):
    with pytest.raises(FaceattrError, match=r"takes the run's own data, which data\.file=other\.csv does not give"):
        evaluate(place, tmp_path, "data.file=other.csv", "evaluate.calibrate=true")
