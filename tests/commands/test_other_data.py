"""evaluate.py on other data that the run's own source reads: `data.file=other.csv`."""

import logging
import re
import shutil
from pathlib import Path

import pandas as pd
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


def test_evaluate_takes_a_table_or_folder_of_one_class_only(place, tmp_path):
    (place / "women.csv").write_text("Filename,Gender\n1,female\n3,female\n5,female")
    metrics = evaluate(place, tmp_path, "data.file=women.csv")
    assert metrics["n"] == metrics["n_female"] == 3 and metrics["recall_male"] is None


def test_evaluate_takes_all_images_of_another_root(place, tmp_path, caplog):
    other = tmp_path / "other"
    shutil.copytree(place / "images", other / "images")
    (other / "results.csv").write_text("Filename,Gender\n1,female\n2,male\n3,female\n4,male")
    with caplog.at_level(logging.INFO):
        assert evaluate(place, tmp_path, f"data.root={other}")["n"] == 4
    assert f"data.root={other}: other data than the run's" in caplog.text


@pytest.mark.slow
def test_the_title_names_the_data_that_were_evaluated(place, tmp_path):
    titles = set()
    for number, given in enumerate(((), ("split=val",), ("data.file=other.csv",), ("data.max_images=8",))):
        folder = tmp_path / str(number)
        faceattr.evaluate(place / "best.ckpt", "evaluate.report=full", f"hydra.run.dir={folder}", *given)
        titles.add(re.search("<title>(.*)</title>", (folder / "report.html").read_text(encoding="utf-8"))[1])
    name = place.name
    assert titles == {
        f"test evaluated on its own data, csv {name}: test images · faceattr",
        f"test evaluated on its own data, csv {name}: validation images · faceattr",
        f"test evaluated on csv {name} (data.file=other.csv): images · faceattr",
        f"test evaluated on its own data, csv {name} (data.max_images=8): test images · faceattr",
    }


def test_evaluate_does_not_calibrate_on_another_table(place, tmp_path):
    with pytest.raises(FaceattrError, match=r"takes the run's own data, which data\.file=other\.csv does not give"):
        evaluate(place, tmp_path, "data.file=other.csv", "evaluate.calibrate=true")
    with pytest.raises(FaceattrError, match=r"takes the validation images of the run's own data: leave out data=…"):
        evaluate(place, tmp_path, "data=csv", f"data.root={place}", "evaluate.calibrate=true")


def test_evaluate_lists_the_images_and_labels_that_it_left_out(place, tmp_path):
    (place / "images" / "broken.png").write_text("no image")
    (place / "bad.csv").write_text("Filename,Gender\n1,female\nbroken,male\n2,\n3,female")
    given = ("data.file=bad.csv", "data.on_bad_image=skip", "data.on_bad_label=skip")
    assert evaluate(place, tmp_path, *given)["n"] == 2
    assert pd.read_csv(tmp_path / "out" / "bad_images.csv")["path"].tolist() == ["images/broken.png"]
    assert pd.read_csv(tmp_path / "out" / "bad_labels.csv")["path"].tolist() == ["images/2.png"]
