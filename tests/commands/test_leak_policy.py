"""What a run and an evaluation do about leaks: a training image lies, encoded anew, among the validation images."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from programs import FIGURES, TINY, inside

from faceattr.data.sources import sample

COPIED, COPY = "Train/Male/copied.jpg", "Validation/Male/copy.jpg"


@pytest.fixture(scope="module")
def faces(tmp_path_factory) -> Path:
    """The sample's faces in class folders, one of them twice."""
    root = sample.write("folders", tmp_path_factory.mktemp("leak") / "faces", n=90, image_size=48)
    first = sorted((root / "Train" / "Male").iterdir())[0]
    shutil.move(first, root / COPIED)
    Image.open(root / COPIED).resize((64, 64)).save(root / COPY, quality=60)
    return root


def train(faces: Path, folder: Path, *keys: str):
    where = ("data=folders", f"data.root={faces}", "trainer.max_epochs=1", f"hydra.run.dir={folder}")
    return inside("train", *TINY[3:], "model.image_size=[48,48]", *where, *keys, cwd=folder.parent)


@pytest.fixture(scope="module")
def run(faces, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("leak_run") / "run"
    ended = train(faces, folder, "evaluate.leakage=true", "evaluate.report=full")
    assert ended.code == 0, ended.err
    return folder


def in_train(folder: Path) -> pd.DataFrame:
    cuts = pd.read_csv(folder / "slices_val.csv")
    return cuts[cuts["column"] == "in_train"].set_index("value")


def test_a_run_says_in_one_line_what_leaks_and_stores_it(run):
    lines = [line for line in (run / "train.log").read_text().splitlines() if "Leakage: " in line]
    assert "1 pair of copies across splits (1 train–val)" in lines[0]
    leakage = json.loads((run / "run.json").read_text())["leakage"]
    assert (leakage["pairs_across"], leakage["left_out"]) == (1, 0)
    assert COPIED in pd.read_csv(run / "table.csv")["path"].tolist()


def test_on_request_images_with_a_copy_in_train_are_set_against_the_clean_ones(run, tmp_path):
    found = in_train(run)
    n = json.loads((run / "val_metrics.json").read_text())["n"]
    assert found["n"].to_dict() == {"clean": n - 1, "copy in train": 1}
    assert "Leakage, accuracy: clean " in (run / "train.log").read_text()
    assert "Leakage — how much do copies in the training images help" in (run / "report.html").read_text(
        encoding="utf-8"
    )
    keys = ("split=val", "evaluate.leakage=true", "evaluate.slices=[]", FIGURES, f"hydra.run.dir={tmp_path / 'again'}")
    ended = inside("evaluate", f"ckpt={run / 'checkpoints' / 'best.ckpt'}", *keys, cwd=tmp_path)
    assert ended.code == 0, ended.err
    again = in_train(tmp_path / "again")
    assert again["n"].to_dict() == found["n"].to_dict()
    assert again["accuracy"].to_dict() == found["accuracy"].to_dict()
    assert set(pd.read_csv(tmp_path / "again" / "slices_val.csv")["column"]) == {"in_train"}


def test_data_on_leak_drop_leaves_out_the_training_image(faces, tmp_path):
    ended = train(faces, tmp_path / "run", "data.on_leak=drop")
    assert ended.code == 0, ended.err
    paths = pd.read_csv(tmp_path / "run" / "table.csv")["path"].tolist()
    assert COPIED not in paths and COPY in paths
    about = json.loads((tmp_path / "run" / "run.json").read_text())
    assert about["leakage"]["left_out"] == 1
    assert about["images"]["train"] == sum(path.startswith("Train") for path in paths)
    assert len(np.load(tmp_path / "run" / "checkpoints" / "training_hashes.npy")) == about["images"]["train"]
    assert (tmp_path / "run" / "train.log").read_text().count("Hashes and copies of ") == 1, "compared twice"


def test_what_was_dropped_stays_out_of_evaluations_and_resumes(faces, tmp_path):
    assert train(faces, tmp_path / "run", "data.on_leak=drop", "evaluate.leakage=true").code == 0
    last, best = (tmp_path / "run" / "checkpoints" / f"{name}.ckpt" for name in ("last", "best"))
    given = (f"ckpt={best}", "split=train", "evaluate.leakage=true", FIGURES, f"hydra.run.dir={tmp_path / 'again'}")
    assert inside("evaluate", *given, cwd=tmp_path).code == 0
    assert COPIED not in pd.read_csv(tmp_path / "again" / "predictions_train.csv")["path"].tolist()
    refused = inside("train", f"ckpt={last}", "data.on_leak=warn", "trainer.max_epochs=2", cwd=tmp_path)
    assert refused.code == 1 and "not the same run. Changed since it began: data.on_leak" in refused.err
    (tmp_path / "run" / "slices_val.csv").unlink()
    resumed = inside("train", f"ckpt={last}", "trainer.max_epochs=2", cwd=tmp_path)
    assert resumed.code == 0, resumed.err
    assert set(in_train(tmp_path / "run").index) <= {"clean"}, "evaluate.leakage was forgotten"
    assert json.loads((tmp_path / "run" / "run.json").read_text())["leakage"]["left_out"] == 1


def test_data_on_leak_error_stops_before_anything_is_written(faces, tmp_path):
    ended = train(faces, tmp_path / "run", "data.on_leak=error")
    assert (
        ended.code == 1 and "1 train–val" in ended.err and "data.on_leak=drop leaves out 1 training image " in ended.err
    )
    assert "Traceback" not in ended.err and not (tmp_path / "run").exists()


def test_evaluating_other_data_counts_copies_of_training_images(faces, run, tmp_path):
    """The run's own images are not needed: their hashes lie beside its checkpoints."""
    other = tmp_path / "other"
    shutil.copytree(faces / "Validation", other / "Val", ignore=shutil.ignore_patterns(Path(COPY).name))
    for number, file in enumerate(sorted((faces / "Train" / "Female").iterdir())[:4]):
        Image.open(file).convert("L").save(other / "Val" / "Female" / f"copy_{number}.jpg", quality=70)
    best = tmp_path / "model" / "best.ckpt"
    best.parent.mkdir()
    shutil.copy(run / "checkpoints" / "best.ckpt", best)
    keys = (f"ckpt={best}", "data=folders", f"data.root={other}", "split=val", "evaluate.slices=[]", FIGURES)
    alone = inside("evaluate", *keys, "evaluate.leakage=true", cwd=tmp_path)
    assert alone.code == 1 and "training_hashes.npy does not exist" in alone.err, alone.err
    shutil.copy(run / "checkpoints" / "training_hashes.npy", best.parent)
    ended = inside("evaluate", *keys, "evaluate.leakage=true", "hydra.run.dir=out", cwd=tmp_path)
    assert ended.code == 0 and "4 of " in ended.out + ended.err, ended.err
    assert pd.read_csv(tmp_path / "out" / "slices_val.csv").set_index("value")["n"]["copy in train"] == 4
    (best.parent / "training_hashes.npy").write_bytes(b"no array")
    ended = inside("evaluate", *keys, cwd=tmp_path)
    assert ended.code == 1 and "training_hashes.npy cannot be read" in ended.err and "Traceback" not in ended.err
