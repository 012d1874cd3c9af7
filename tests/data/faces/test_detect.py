"""The detector on drawn scenes and real portraits: sizes, borders, grey, turned and many."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import ExifTags, Image

from faceattr.data.decode import decode
from faceattr.data.faces.detect import Detector, Face
from faceattr.errors import FaceattrError


@pytest.fixture(scope="module")
def portrait(shared) -> np.ndarray:
    return np.asarray(decode(shared("data", "small_csv") / "images" / "001.jpg"))


def box(face: Face) -> tuple[float, ...]:
    return face.x, face.y, face.width, face.height


def test_find_gives_box_and_points_in_pixels_of_the_image(detector, portrait):
    (face,) = detector.find(portrait)
    assert face.score > 0.8 and 60 < face.width < 130 and 90 < face.height < 170
    left_eye, right_eye, nose, left_mouth, right_mouth = face.points
    assert left_eye[0] < nose[0] < right_eye[0] and left_mouth[0] < right_mouth[0]
    assert max(left_eye[1], right_eye[1]) < nose[1] < min(left_mouth[1], right_mouth[1])
    for x, y in face.points:
        assert face.x < x < face.x + face.width and face.y < y < face.y + face.height


@pytest.mark.parametrize("size", [(1024, 1024), (30, 30), (4000, 4000), (250, 300)])
def test_find_scales_with_the_image(detector, portrait, size):
    (face,) = detector.find(portrait)
    resized = np.asarray(Image.fromarray(portrait).resize(size))
    (other,) = detector.find(resized)
    scale = np.array(size * 2) / 256
    assert np.array(box(other)) / scale == pytest.approx(box(face), abs=256 * 0.06)


def test_find_in_grey(detector, portrait):
    grey = np.asarray(Image.fromarray(portrait).convert("L").convert("RGB"))
    assert len(detector.find(grey)) == 1


def test_find_in_an_image_that_exif_turns(detector, portrait, tmp_path):
    turned, exif = Image.fromarray(portrait).transpose(Image.Transpose.ROTATE_90), Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    turned.save(tmp_path / "turned.png", exif=exif)
    assert detector.find(np.asarray(decode(tmp_path / "turned.png"))) == detector.find(portrait)


def test_find_a_face_that_fills_the_frame_and_one_cut_by_the_border(detector, portrait):
    (face,) = detector.find(portrait)
    left, top, right, bottom = (round(value) for value in (face.x, face.y, face.x + face.width, face.y + face.height))
    assert len(detector.find(portrait[top:bottom, left:right])) == 1
    (cut,) = detector.find(portrait[:, : round(face.x + 0.7 * face.width)])
    assert box(cut)[:2] == pytest.approx(box(face)[:2], abs=15)


def test_find_every_face_of_forty(detector, scene):
    picture = scene(40, 64)
    faces = detector.find(picture, every=True)
    assert len(faces) == 40
    assert [face.width * face.height for face in faces] == sorted((f.width * f.height for f in faces), reverse=True)
    quick = detector.find(picture)
    assert set(quick) <= set(faces)  # both ways agree on the faces that they find


def test_find_small_faces_in_a_large_picture(detector, scene):
    """About 10 pixels wide, in 2,048."""
    picture = np.full((1200, 2048, 3), 128, np.uint8)
    picture[500:540, 900:1220] = scene(8, 20)
    assert len(detector.find(picture)) > 0


@pytest.mark.parametrize("shape", [(1, 1), (3, 900), (900, 3), (64, 64)])
def test_find_nothing_in_images_without_a_face(detector, shape):
    assert detector.find(np.full((*shape, 3), 90, np.uint8), every=True) == []


def test_find_in_threads_is_the_same(detector, scene):
    pictures = [scene(3, side) for side in (48, 56, 64, 72)]
    alone = [detector.find(picture) for picture in pictures]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(detector.find, pictures * 2)) == alone * 2


def test_positions_are_exact_in_float32(detector, portrait):
    (face,) = detector.find(portrait)
    values = np.array([*box(face), *np.ravel(face.points), face.score])
    assert (values.astype(np.float32) == values).all()


def test_find_with_a_file_that_is_no_detector(tmp_path):
    (tmp_path / "damaged.onnx").write_bytes(b"not a model")
    with pytest.raises(FaceattrError, match="is no face detector that OpenCV"):
        Detector(tmp_path / "damaged.onnx", 0.6).find(np.zeros((32, 32, 3), np.uint8))
