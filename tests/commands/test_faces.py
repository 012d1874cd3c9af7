"""faces=align from training to evaluation: the checkpoint knows how faces are cropped, the command line may say otherwise."""

import json
from contextlib import nullcontext

import numpy as np
import pandas as pd
import pytest
from composing import compose_config
from PIL import Image
from programs import FIGURES, S0_MAP, TINY, inside

from faceattr.commands.build_from_config import plain
from faceattr.commands.resume import check_resume
from faceattr.data.sources import sample
from faceattr.errors import FaceattrError
from faceattr.models.task import Task

KEYS = tuple(key for key in TINY if not key.startswith("data."))


@pytest.fixture(scope="module")
def weights(shared):
    return shared("weights", "face_detection_yunet_2023mar.onnx")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """60 drawn faces, of which one is painted over."""
    folder = sample.write("csv", tmp_path_factory.mktemp("faces") / "data", n=60, image_size=48)
    file = sorted((folder / "images").iterdir())[7]
    Image.fromarray(np.full((48, 48, 3), 90, np.uint8)).save(file)
    return folder


@pytest.fixture(scope="module")
def run(root, weights):
    """A run on the faces that were found."""
    given = (
        "data=csv",
        S0_MAP,
        f"data.root={root}",
        "faces=align",
        "faces.on_none=skip",
        f"faces.weights={weights}",
        *KEYS,
    )
    ended = inside(
        "train", *given, "trainer.max_epochs=1", "evaluate.report=full", "hydra.run.dir=run", cwd=root.parent
    )
    assert ended.code == 0, ended.err
    assert "Faces (align): 60 images, 1 without a face (left out, faces.on_none=skip)" in ended.out
    return root.parent / "run"


def test_train_records_what_was_cropped(run):
    about = json.loads((run / "run.json").read_text())
    assert about["faces"]["without_a_face"] == 1 and sum(about["images"].values()) == 59
    faces, table = pd.read_csv(run / "faces.csv"), pd.read_csv(run / "table.csv")
    assert set(faces.loc[faces["chosen"], "path"]) == set(table["path"])
    assert faces["face"].isna().sum() == 1
    page = (run / "report.html").read_text()
    assert "Faces: what was cropped" in page and "1 without a face" in page and "No face" in page


@pytest.mark.parametrize("given", [(), ("faces=none",)], ids=["as in training", "faces=none"])
def test_evaluate_crops_as_in_training_unless_the_command_line_says_otherwise(run, given):
    ended = inside(
        "evaluate", "ckpt=run/checkpoints/best.ckpt", *given, FIGURES, f"hydra.run.dir=out{len(given)}", cwd=run.parent
    )
    assert ended.code == 0, ended.err
    out = run.parent / f"out{len(given)}"
    own, other = (pd.read_csv(folder / "predictions_test.csv") for folder in (run, out))
    assert own.equals(other) is not bool(given)
    assert ("not as in training: faces=none (align in training)" in ended.out) is bool(given)
    assert (out / "faces.csv").exists() is not bool(given)


def test_compare_models_of_different_crops_on_the_same_images(run, root):
    given = ("data=csv", S0_MAP, f"data.root={root}", *KEYS, "trainer.max_epochs=1", "hydra.run.dir=whole")
    assert inside("train", *given, cwd=run.parent).code == 0
    compared = (
        "ckpt=whole/checkpoints/best.ckpt",
        "compare=run/checkpoints/best.ckpt",
        FIGURES,
        "split=all",
        "hydra.run.dir=pair",
    )
    ended = inside("evaluate", *compared, cwd=run.parent)
    assert ended.code == 0, ended.err
    assert "Left out 1 image: the model in compare" in ended.out
    predictions = [pd.read_csv(run.parent / "pair" / folder / "predictions_all.csv") for folder in (".", "compared")]
    assert [len(of) for of in predictions] == [59, 59] and predictions[0]["path"].equals(predictions[1]["path"])


def test_preview_shows_faces_beside_their_crops(root, weights, tmp_path):
    given = (
        "data=csv",
        S0_MAP,
        f"data.root={root}",
        "faces=square",
        "faces.on_none=skip",
        f"faces.weights={weights}",
        *KEYS,
    )
    ended = inside("preview", *given, "hydra.run.dir=seen", cwd=tmp_path)
    assert ended.code == 0, ended.err
    assert (tmp_path / "seen" / "faces.png").exists() and (tmp_path / "seen" / "samples.png").exists()


def test_train_with_images_without_a_face_stops_and_says_what_to_do(root, weights, tmp_path):
    given = (
        "data=csv",
        S0_MAP,
        f"data.root={root}",
        "faces=align",
        f"faces.weights={weights}",
        *KEYS,
        "hydra.run.dir=run",
    )
    ended = inside("train", *given, cwd=tmp_path)
    assert ended.code == 1 and "1 of 60 images has no face" in ended.err and "faces.on_none=skip" in ended.err
    assert not (tmp_path / "run" / "checkpoints").exists()


@pytest.mark.parametrize(
    ("given", "changed"), [((), False), (("faces.weights=elsewhere.onnx",), False), (("faces.margin=0.1",), True)]
)
def test_check_resume_refuses_other_crops(given, changed):
    begun = plain(compose_config("faces=align"))
    stored = {"config": begun, "classes": ["woman", "man"], "fingerprint": "0"}
    task = Task.from_config(["woman", "man"], loss="auto", ordinal=False)
    with (
        pytest.raises(FaceattrError, match=r"not the same run\. Changed since it began: faces")
        if changed
        else nullcontext()
    ):
        check_resume(compose_config("faces=align", *given), stored, task, "0")


def test_check_resume_of_a_run_before_there_were_recipes():
    begun = plain(compose_config())
    del begun["faces"]
    stored = {"config": begun, "classes": ["woman", "man"], "fingerprint": "0"}
    task = Task.from_config(["woman", "man"], loss="auto", ordinal=False)
    check_resume(compose_config(), stored, task, "0")
    with pytest.raises(FaceattrError, match=r"not the same run\. Changed since it began: faces"):
        check_resume(compose_config("faces=align"), stored, task, "0")
