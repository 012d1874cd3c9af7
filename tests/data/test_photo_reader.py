"""From photos and videos to what the network takes: order, faces, reasons, and memory that pixels in flight bound."""

import itertools
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from videos import write_video

from faceattr.data import photo_reader
from faceattr.data.decode import InputSpec, read
from faceattr.data.faces.crop import crop
from faceattr.data.faces.crop_recipe import FaceRecipe
from faceattr.data.photo_reader import NO_FACE, PixelBudget, SubjectReader, create_detector

SPEC = InputSpec(12, 10, "bilinear", "unit")
ALIGN = replace(SPEC, height=32, width=32, faces=FaceRecipe("align"))


@pytest.fixture(scope="module")
def detector(shared):
    return create_detector(ALIGN.faces, str(shared("weights", "face_detection_yunet_2023mar.onnx")))


@pytest.fixture(scope="module")
def portraits(shared) -> list[Image.Image]:
    folder = shared("data", "small_csv", "images")
    return [Image.open(file).convert("RGB").resize((256, 256)) for file in sorted(folder.iterdir())[:10]]


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def test_reader_without_faces_gives_each_picture_whole_in_order(tmp_path):
    files = []
    for number in range(300):
        files.append(tmp_path / f"{number}.png")
        Image.fromarray(noise(9, 9 + number % 7, number)).save(files[-1])
    (tmp_path / "5.png").write_text("no image")
    found = list(SubjectReader([*files, noise(20, 30)], SPEC))
    assert [subject.source for subject in found] == list(range(301))
    assert found[5].pixels is None and found[5].unreadable and "not an image" in found[5].reason
    for place in (0, 1, 150, 299):
        assert (found[place].pixels == read(files[place], SPEC)).all()
    assert {subject.face for subject in found} == {None} and found[300].pixels.shape == (12, 10, 3)


def test_reader_gives_a_row_of_frames_of_a_video(tmp_path):
    file = write_video(tmp_path / "x.avi", [np.full((64, 64, 3), 20 * i, np.uint8) for i in range(10)], 5)
    found = list(SubjectReader([noise(9, 9), str(file), noise(9, 9)], SPEC, every=0.6))
    assert [(subject.source, subject.time) for subject in found] == [
        (0, None),
        (1, 0),
        (1, 0.6),
        (1, 1.2),
        (1, 1.8),
        (2, None),
    ]
    assert [int(subject.pixels.mean()) for subject in found[1:5]] == pytest.approx([0, 60, 120, 180], abs=4)


def test_reader_cuts_each_face_in_reading_order(detector, portraits):
    scene = Image.new("RGB", (3 * 256, 2 * 256))
    for number, portrait in enumerate(portraits[:6]):
        scene.paste(portrait, (number % 3 * 256, number // 3 * 256))
    found = list(SubjectReader([scene], ALIGN, detector))
    assert [subject.number for subject in found] == list(range(6))
    places = [(int(subject.face.centre[1] // 256), int(subject.face.centre[0] // 256)) for subject in found]
    assert places == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]
    for subject in found:
        assert (subject.pixels == crop(np.asarray(scene), subject.face, ALIGN.faces, (32, 32))).all()


def test_reader_of_one_face_takes_the_picked_one(detector, portraits):
    scene = Image.new("RGB", (512, 256))
    scene.paste(portraits[0].resize((128, 128)), (0, 0))
    scene.paste(portraits[1], (256, 0))
    (found,) = SubjectReader([scene], ALIGN, detector, all_faces=False)
    assert found.face.centre[0] > 256
    assert len(list(SubjectReader([scene], ALIGN, detector))) == 2


@pytest.mark.parametrize(
    "picture",
    [Image.new("RGB", (300, 200), "teal"), Image.new("L", (1, 1)), noise(30, 30), Image.new("RGB", (4000, 3))],
    ids=["plain", "pixel", "noise", "line"],
)
def test_reader_says_that_there_is_no_face(detector, picture):
    (found,) = SubjectReader([picture], ALIGN, detector)
    assert (found.number, found.face, found.pixels, found.reason, found.unreadable) == (
        None,
        None,
        None,
        NO_FACE,
        False,
    )
    whole = replace(ALIGN, faces=replace(ALIGN.faces, on_none="whole"))
    (found,) = SubjectReader([picture], whole, detector)
    assert found.pixels.shape == (32, 32, 3) and found.reason.startswith(NO_FACE)


def test_reader_finds_a_cut_face_a_small_picture_and_forty_faces(detector, portraits):
    cut = portraits[0].crop((100, 0, 256, 256))
    tiny = portraits[0].crop((60, 20, 190, 170)).resize((30, 30))
    crowd = Image.new("RGB", (8 * 128, 5 * 128))
    for number in range(40):
        crowd.paste(portraits[number % 10].resize((128, 128)), (number % 8 * 128, number // 8 * 128))
    found = list(SubjectReader([cut, tiny, crowd], ALIGN, detector))
    count = [sum(subject.face is not None for subject in found if subject.source == place) for place in range(3)]
    assert count[:2] == [1, 1] and count[2] >= 40
    assert all(subject.pixels.shape == (32, 32, 3) for subject in found)


def test_reader_decodes_no_more_pixels_at_a_time_than_its_budget(monkeypatch):
    monkeypatch.setattr(photo_reader, "PIXELS_IN_FLIGHT", 5000)
    monkeypatch.setattr(photo_reader, "default_workers", lambda: 8)
    at_work, most, begun, lock, both = [0], [0], itertools.count(), threading.Lock(), threading.Barrier(2)

    def slow(image, spec):
        with lock:
            at_work[0] += image.width * image.height
            most[0] = max(most[0], at_work[0])
            number = next(begun)
        both.wait(600) if number < 2 else time.sleep(0.002)
        with lock:
            at_work[0] -= image.width * image.height
        return np.zeros((12, 10, 3), np.uint8)

    monkeypatch.setattr(photo_reader, "fit", slow)
    pictures = [np.zeros((40, 50, 3), np.uint8)] * 20 + [np.zeros((100, 100, 3), np.uint8)] * 2
    assert len(list(SubjectReader(pictures, SPEC))) == 22
    assert 4000 <= most[0] <= 10_000, "two of 2,000 pixels, or one that is larger than all"


def test_pixel_budget_lets_one_picture_have_all_of_it():
    budget = PixelBudget(10)
    release = budget.take(1000)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(budget.take, 1)
        assert not waiting.done()
        release()
        waiting.result(timeout=600)()


def test_reader_stops_its_threads_when_it_is_left():
    reader = iter(SubjectReader([noise(9, 9)] * 500, SPEC))
    next(reader)
    reader.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("faceattr-read")]
