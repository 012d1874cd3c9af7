"""The faces of many images: found once, stored, exact, and a table of them for the run."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from faceattr.data.decode import decode
from faceattr.data.faces.crop_recipe import FaceRecipe
from faceattr.data.faces.detect import Face
from faceattr.data.faces.detection_cache import COLUMNS, Detections, FaceRows, as_row, find_all
from faceattr.errors import FaceattrError

RECIPE = FaceRecipe("align")


def face(x: float, side: float = 40.0, score: float = 0.5) -> Face:
    return Face(x, 0.0, side, side, tuple((x + place, 1.0) for place in range(5)), score)


def found() -> Detections:
    """Two faces, none, unreadable, one."""
    faces = [face(0, side=50), face(60, side=20), face(30)]
    values = np.array([as_row(face) for face in faces], np.float32)
    return Detections(np.array([(100, 80), (10, 10), (0, 0), (90, 90)]), np.array([0, 0, 3]), values, {2: "truncated"})


def test_face_rows_give_back_what_they_hold():
    faces = [face(1.25), None, face(2.5, score=0.75)]
    rows = FaceRows.from_faces(faces)
    assert list(rows) == faces and len(rows) == 3
    assert list(rows[np.array([2, 1])]) == [faces[2], None]


def test_detections_by_image():
    detections = found()
    assert [len(detections.faces_of(image)) for image in range(4)] == [2, 0, 0, 1]
    assert list(detections.chosen(RECIPE)) == [face(0, side=50), None, None, face(30)]
    assert detections.counts(FaceRecipe("align", min_size=30)).tolist() == [1, 0, 0, 1]


def test_table_has_a_row_for_each_face_and_for_each_image_without():
    table = found().table(["a.jpg", "b.jpg", "c.jpg", "d.jpg"], RECIPE)
    assert list(table) == ["path", "face", "chosen", *COLUMNS]
    assert table["path"].tolist() == ["a.jpg", "a.jpg", "b.jpg", "c.jpg", "d.jpg"]
    assert table["chosen"].tolist() == [True, False, False, False, True]
    assert table["face"].fillna(-1).tolist() == [0, 1, -1, -1, 0]
    assert table["width"].tolist()[:2] == [50, 20] and pd.isna(table["width"][2])


@pytest.fixture
def photos(tmp_path, scene, monkeypatch):
    """A person, three, nobody, and a damaged file; a cache of their own."""
    monkeypatch.setenv("FACEATTR_CACHE", str(tmp_path / "cache"))
    pictures = [scene(1, 64), scene(3, 64), np.full((50, 60, 3), 90, np.uint8)]
    paths = [tmp_path / f"{number}.png" for number in range(4)]
    for path, picture in zip(paths, pictures, strict=False):
        Image.fromarray(picture).save(path)
    paths[3].write_bytes(paths[0].read_bytes()[:500])
    return [str(path) for path in paths]


def test_find_all_is_what_the_detector_finds(photos, detector, weights):
    detections = find_all(photos, RECIPE, weights=str(weights), workers=2)
    for place, path in enumerate(photos[:3]):
        image = decode(path)
        assert detections.faces_of(place) == detector.find(np.asarray(image))
        assert detections.sizes[place].tolist() == list(image.size)
    assert [len(detections.faces_of(place)) for place in range(4)] == [1, 3, 0, 0]
    assert list(detections.bad) == [3]


def test_find_all_again_needs_no_detector(photos, weights, tmp_path):
    first = find_all(photos, RECIPE, weights=str(weights), workers=1)
    another_crop = FaceRecipe("square", margin=0.3, on_none="skip")
    again = find_all(photos, another_crop, weights=str(tmp_path / "absent.onnx"), workers=1)
    assert (again.values == first.values).all() and again.bad == first.bad
    Image.fromarray(np.full((50, 60, 3), 70, np.uint8)).save(photos[0])  # the file has changed
    assert find_all(photos, RECIPE, weights=str(weights), workers=1).faces_of(0) == []


def test_find_all_again_refuses_a_file_that_is_no_detector(photos, weights, tmp_path):
    find_all(photos, RECIPE, weights=str(weights), workers=1)
    (tmp_path / "other.onnx").write_bytes(b"another model")
    with pytest.raises(FaceattrError, match=r"faces\.weights=.*other\.onnx: damaged, or another model"):
        find_all(photos, RECIPE, weights=str(tmp_path / "other.onnx"), workers=1)


def test_find_all_without_room_for_a_cache(photos, weights, monkeypatch, caplog):
    monkeypatch.setenv("FACEATTR_CACHE_GB", "0")
    assert len(find_all(photos, RECIPE, weights=str(weights), workers=1).faces_of(1)) == 3
    assert "looked for anew by every run" in caplog.text
