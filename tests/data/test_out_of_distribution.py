"""Do images look like the training images? Drawn ones: those that do pass, changed ones are named."""

import cv2
import numpy as np
import pytest

from faceattr.data.out_of_distribution import (
    LENGTH,
    InputCheck,
    UsualInputs,
    _least_unusual,
    image_statistics,
    statistics_of_all,
)
from faceattr.data.photo_reader import Subject
from faceattr.errors import FaceattrError


def pictures(n: int, seed: int) -> np.ndarray:
    """uint8 [n, 48, 48, 3]: a light oval on a darker ground, with random place, colours and grain."""
    rng, images = np.random.default_rng(seed), []
    for _ in range(n):
        image = np.full((48, 48, 3), rng.integers(40, 90, 3), np.uint8)
        centre, axes = (rng.integers(20, 28, 2) for _ in range(2))
        skin = [int(value) for value in rng.integers(130, 190) + np.array([40, 0, -40]) + rng.normal(0, 6, 3)]
        cv2.ellipse(image, centre.tolist(), (axes * [0.6, 0.8]).astype(int).tolist(), 0, 0, 360, skin, -1)
        for x in (-6, 6):
            cv2.circle(image, (int(centre[0]) + x, int(centre[1]) - 5), 2, (30, 30, 30), -1)
        images.append(np.clip(image + rng.normal(0, 5, image.shape), 0, 255).astype(np.uint8))
    return np.stack(images)


@pytest.fixture(scope="module")
def usual() -> UsualInputs:
    usual = UsualInputs.fit(statistics_of_all([pictures(400, 0)]), statistics_of_all([pictures(400, 1)]))
    assert usual is not None
    return usual


def test_difference_of_similar_images_is_empty(usual):
    described = statistics_of_all([pictures(600, 2)])
    alarms = {n: np.mean([bool(usual.difference(described[i : i + n])) for i in range(0, 600 - n, n)]) for n in (1, 16)}
    assert alarms[1] <= 0.02 and alarms[16] == 0  # of 600 draws; 1 in 100 is meant
    assert usual.difference(described[:0]) == ""


CHANGES = {
    "darker": lambda images: images // 4,
    "grey or pale": lambda images: np.repeat(images.mean(3, keepdims=True).astype(np.uint8), 3, 3),
    "red and blue swapped": lambda images: images[..., ::-1].copy(),
    "blurred or enlarged": lambda images: np.stack([cv2.GaussianBlur(image, (0, 0), 3) for image in images]),
    "other crops": lambda images: np.stack(
        [cv2.resize(np.pad(i, ((30, 60), (60, 30), (0, 0)), "edge"), (48, 48)) for i in images]
    ),
    "turned by a quarter": lambda images: np.rot90(images, axes=(1, 2)).copy(),
}


@pytest.mark.parametrize("reason", CHANGES)
def test_difference_names_the_likely_reason(usual, reason):
    text = usual.difference(statistics_of_all([CHANGES[reason](pictures(40, 3))]))
    assert (
        text.startswith("These images look unlike the training images. Likely: ") and "of 40 images are unusual" in text
    )
    assert reason in text and text.endswith("Is this what the model was trained on?")


ALONE = {
    "upside down": lambda image: image[::-1],
    "turned by a quarter": np.rot90,
    "negative": lambda image: 255 - image,
    "red and blue swapped": lambda image: image[..., ::-1],
}


@pytest.mark.parametrize("reason", ALONE)
def test_difference_finds_a_single_image_that_would_be_usual_otherwise(usual, reason):
    described = statistics_of_all([[np.ascontiguousarray(ALONE[reason](image)) for image in pictures(100, 6)]])
    texts = [usual.difference(row[None]) for row in described]
    assert sum(f"Likely: {reason}" in text for text in texts) > 80


def test_statistics_of_an_older_checkpoint_are_read(usual):
    stored = {key: value for key, value in usual.stored().items() if key != "most_gained"}
    older = UsualInputs.from_stored(stored, "ckpt=x")
    assert older is not None and older.difference(statistics_of_all([pictures(20, 4) // 4])).startswith("These images")
    assert (
        not older.difference(statistics_of_all([pictures(1, 6)]))
        and UsualInputs.from_stored(older.stored(), "x") is not None
    )


def test_fit_of_few_images_is_none():
    described = statistics_of_all([pictures(40, 0)])
    assert UsualInputs.fit(described, described[:29]) is None
    assert UsualInputs.fit(described[:1], described) is None


def test_stored_statistics_are_read_back(usual):
    stored, described = usual.stored(), statistics_of_all([pictures(20, 4) // 4])
    again = UsualInputs.from_stored(stored, "ckpt=x")
    assert again is not None and again.difference(described) == usual.difference(described) != ""
    assert UsualInputs.from_stored(None, "ckpt=x") is None


@pytest.mark.parametrize(
    "damage",
    [
        {"mean": [0.0]},
        {"scale": [-1.0] * LENGTH},
        {"centre": float("nan")},
        {"precision": "x"},
        {"spread": None},
        {"mean": [[]] * 3},
        {"most_gained": [1.0]},
    ],
)
def test_from_stored_refuses_damaged_statistics(usual, damage):
    with pytest.raises(FaceattrError, match=r"ckpt=x: its statistics of the training images are damaged\.$"):
        UsualInputs.from_stored(usual.stored() | damage, "ckpt=x")


def test_input_check_passes_subjects_on(usual):
    subjects = [Subject(0, pixels=pictures(1, 5)[0] // 5), Subject(1, reason="no face found")]
    check = InputCheck(usual)
    assert list(check.passing(subjects)) == subjects and "1 of 1 image is unusual" in check.difference
    silent = InputCheck(None)
    assert list(silent.passing(subjects)) == subjects and silent.difference == ""


def test_input_check_without_any_pixels_is_empty(usual):
    """A picture without a face: what `serve.py` looks at first."""
    check = InputCheck(usual)
    assert len(list(check.passing([Subject(0, reason="no face found")]))) == 1
    assert check.unusual == [] and check.difference == ""


def test_least_unusual_keeps_false_alarms_below_one_in_a_hundred():
    assert [_least_unusual(n) for n in (1, 10, 100, 2000)] == [1, 2, 5, 32]
    assert image_statistics(np.zeros((8, 8, 3), np.uint8)).shape == (LENGTH,)
