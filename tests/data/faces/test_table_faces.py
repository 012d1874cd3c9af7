"""One face for each image of a table, and what becomes of the images without one."""

import logging

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from faceattr.config import schema
from faceattr.data import leaks, table
from faceattr.data.datamodule import FaceData
from faceattr.data.decode import InputSpec, decode
from faceattr.data.faces.crop import crop
from faceattr.data.faces.crop_recipe import FaceRecipe
from faceattr.data.faces.table_faces import find_faces
from faceattr.data.sources.sample_people import imagine
from faceattr.data.sources.sample_portraits import draw
from faceattr.errors import FaceattrError

EMPTY = {"train/man/2.png", "val/woman/0.png"}


@pytest.fixture(scope="module")
def root(tmp_path_factory, scene):
    """Drawn photos in class folders of two splits, three each; two show nobody, one two people."""
    folder = tmp_path_factory.mktemp("photos")
    for split in ("train", "val"):
        for label in ("man", "woman"):
            for number in range(3):
                file = folder / split / label / f"{number}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                people = scene(2 if number == 1 and label == "man" else 1, 48 + 4 * number)
                nobody = np.full((60, 60, 3), 90 + number, np.uint8)
                empty = file.relative_to(folder).as_posix() in EMPTY
                Image.fromarray(nobody if empty else people).save(file)
    return folder


def prepared(root) -> pd.DataFrame:
    files = [file.relative_to(root).as_posix() for file in sorted(root.rglob("*.png"))]
    parts = [file.split("/") for file in files]
    rows = pd.DataFrame({"path": files, "label": [part[1] for part in parts], "split": [part[0] for part in parts]})
    rows.attrs.update(classes=["woman", "man"], ordinal=False)
    return table.prepare(rows, root)


def data(root, weights, *, pack: str = "ram", size: tuple[int, int] = (24, 20), **recipe: object) -> FaceData:
    spec = InputSpec(*size, "bilinear", "unit", FaceRecipe(**{"mode": "align", "on_none": "skip"} | recipe))
    settings = schema.Data(root=str(root), batch_size=4, workers=0, pack=pack)
    return FaceData(prepared(root), settings, spec, 0, str(weights))


def pixels(faces: FaceData) -> dict[str, np.ndarray]:
    found = faces.pixels(range(len(faces.table)))
    return {faces.table["path"][row]: image for row, image in found.items()}


@pytest.mark.parametrize("pack", ["ram", "off", "disk"])
def test_face_data_holds_the_crops(root, weights, detector, pack):
    faces = data(root, weights, pack=pack)
    assert set(faces.table["path"]) == {*prepared(root)["path"]} - EMPTY
    for path, image in pixels(faces).items():
        photo = np.asarray(decode(root / path))
        expected = crop(photo, detector.find(photo)[0], faces.spec.faces, (24, 20))
        assert (image == expected).all(), path


@pytest.mark.parametrize("pack", ["ram", "off"])
def test_face_data_stays_in_step_after_rows_are_left_out(root, weights, pack):
    faces = data(root, weights, pack=pack)
    before = pixels(faces)
    faces.leave_out(np.array([0, 3]))
    after = pixels(faces)
    assert len(after) == len(before) - 2
    assert all((image == before[path]).all() for path, image in after.items())
    batches = {
        faces.table["path"][row]: image
        for batch in faces.split_dataloader("val")
        for row, image in zip(batch.rows.tolist(), batch.inputs.permute(0, 2, 3, 1).numpy(), strict=True)
    }
    assert all((image == before[path]).all() for path, image in batches.items())


def test_on_none_whole_takes_the_image_whole(root, weights):
    faces = data(root, weights, on_none="whole")
    assert len(faces.table) == 12
    for path in EMPTY:
        assert len(np.unique(pixels(faces)[path])) == 1


def test_on_none_error_lists_the_images(root, weights):
    with pytest.raises(
        FaceattrError, match=r"2 of 12 images have no face: train/man/2\.png, val/woman/0\.png"
    ) as refused:
        data(root, weights, on_none="error")
    assert "faces.on_none=skip" in str(refused.value)


def test_no_image_with_a_face_is_an_error(root, weights):
    with pytest.raises(
        FaceattrError, match=r"None of 12 images has a face\. Images that are crops already: faces=none"
    ):
        data(root, weights, min_size=1000)


def test_pick_all_is_refused_before_anything_is_looked_for(root):
    with pytest.raises(FaceattrError, match=r"faces\.pick=all is for prediction"):
        data(root, "absent.onnx", pick="all")


def test_find_faces_counts_and_says_what_it_found(root, weights, caplog):
    names = prepared(root)["path"].tolist()
    with caplog.at_level(logging.WARNING):
        found, bad = find_faces(
            [str(root / name) for name in names],
            names,
            FaceRecipe("align", on_none="skip"),
            weights=str(weights),
            workers=1,
        )
    assert bad == {}
    assert found.counts == {
        "mode": "align", "images": 12, "without_a_face": 2, "on_none": "skip", "with_several_faces": 2,
    }  # fmt: skip
    assert "12 images, 2 without a face (left out, faces.on_none=skip), 2 with several" in caplog.text
    doubtful = found.doubtful()
    assert [names[image] for image in doubtful["no face"]] == sorted(EMPTY)
    assert [names[image] for image in doubtful["several faces"]] == ["train/man/1.png", "val/man/1.png"]
    scores = [found.chosen[image].score for image in doubtful["lowest scores"]]
    assert scores == sorted(scores) and len(scores) == 6


def test_leaks_are_looked_for_in_the_crops(tmp_path, weights):
    """One person at two places of two pictures, which are no copies of each other."""
    for split, label, number, shift in (("train", "man", 0, 0), ("train", "woman", 1, 0), ("val", "woman", 0, 130)):
        file = tmp_path / split / label / "photo.png"
        file.parent.mkdir(parents=True)
        picture = np.random.default_rng(number + shift).integers(0, 90, (200, 260, 3), dtype=np.uint8)
        picture[20:116, 20 + shift : 116 + shift] = np.asarray(draw(imagine(number, 0, 0), 96, 96))
        Image.fromarray(picture).save(file)
    crops, whole = (
        data(tmp_path, weights, size=(64, 64)),
        FaceData(
            prepared(tmp_path),
            schema.Data(root=str(tmp_path), workers=0, pack="ram"),
            InputSpec(64, 64, "bilinear", "unit"),
        ),
    )
    assert leaks.find(crops).pairs[["path", "other"]].values.tolist() == [
        ["train/man/photo.png", "val/woman/photo.png"]
    ]
    assert len(leaks.find(whole).pairs) == 0
