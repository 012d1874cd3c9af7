"""Crops: pixels and points come to where the recipe says, at any size and at the image's border."""

import math

import numpy as np
import pytest
from PIL import Image

from faceattr.data.faces.crop import TEMPLATE, crop, crop_outline
from faceattr.data.faces.crop_recipe import FaceRecipe
from faceattr.data.faces.detect import Face

NOISE = np.random.default_rng(0).integers(0, 256, (120, 100, 3), dtype=np.uint8)
SQUARE, ALIGN = FaceRecipe("square"), FaceRecipe("align")


def face_at(x: float, y: float, side: float, degrees: float = 0, height: float | None = None) -> Face:
    """A face whose points are the template's in a square of `side` pixels, turned around its corner."""
    angle = math.radians(degrees)
    turn = np.array([(math.cos(angle), -math.sin(angle)), (math.sin(angle), math.cos(angle))])
    points = side * TEMPLATE @ turn.T + (x, y)
    return Face(x, y, side, side if height is None else height, tuple(map(tuple, points.tolist())), 0.9)


def dotted(face: Face) -> np.ndarray:
    """A black image of 300 x 300 pixels, white discs at the face's points."""
    y, x = np.mgrid[:300, :300] + 0.5
    image = np.zeros((300, 300, 3), np.uint8)
    for point_x, point_y in face.points:
        image[np.hypot(x - point_x, y - point_y) < 5] = 255
    return image


def dots(image: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """The centres [5, 2] of the bright pixels near the expected places."""
    y, x = np.mgrid[: image.shape[0], : image.shape[1]] + 0.5
    places = []
    for at_x, at_y in expected:
        light = image[..., 0] * (np.hypot(x - at_x, y - at_y) < 7)
        places.append([(x * light).sum() / light.sum(), (y * light).sum() / light.sum()])
    return np.array(places)


def test_crop_square_of_a_box_is_the_box():
    assert (crop(NOISE, face_at(30, 40, 50), SQUARE, (50, 50)) == NOISE[40:90, 30:80]).all()


def test_crop_square_grows_the_shorter_side_and_adds_the_margin():
    high = face_at(30, 40, 30, height=50)
    assert (crop(NOISE, high, SQUARE, (50, 50)) == NOISE[40:90, 20:70]).all()
    with_margin = crop(NOISE, face_at(30, 40, 40), FaceRecipe("square", margin=0.25), (60, 60))
    assert (with_margin == NOISE[30:90, 20:80]).all()


def test_crop_reduces_as_whole_images_are_resized():
    for interpolation in ("bilinear", "nearest", "lanczos"):
        resized = Image.fromarray(NOISE[40:120, 10:90]).resize((32, 32), Image.Resampling[interpolation.upper()])
        assert (crop(NOISE, face_at(10, 40, 80), SQUARE, (32, 32), interpolation=interpolation) == resized).all()


@pytest.mark.parametrize("degrees", [0, 25, -90, 180])
def test_crop_align_brings_the_points_to_the_template(degrees):
    face = face_at(150, 150, 110, degrees)
    aligned = crop(dotted(face), face, ALIGN, (100, 100))
    assert dots(aligned, 100 * TEMPLATE) == pytest.approx(100 * TEMPLATE, abs=0.6)


def test_crop_align_with_a_margin_shows_the_face_smaller():
    face, expected = face_at(100, 100, 110), 50 + 50 * (TEMPLATE - 0.5)
    aligned = crop(dotted(face), face, FaceRecipe("align", margin=0.5), (100, 100))
    assert dots(aligned, expected) == pytest.approx(expected, abs=0.6)


def test_crop_that_is_not_square_shows_more_along_its_longer_side():
    face = face_at(100, 100, 100)
    aligned = crop(dotted(face), face, ALIGN, (150, 100))
    expected = 100 * TEMPLATE + (0, 25)
    assert dots(aligned, expected) == pytest.approx(expected, abs=0.6)


@pytest.mark.parametrize("recipe", [SQUARE, ALIGN])
def test_crop_repeats_the_border_beyond_the_image(recipe):
    grey = np.full((60, 60, 3), 200, np.uint8)
    for x, y in ((-30, -30), (40, 40), (-30, 40)):
        assert (crop(grey, face_at(x, y, 50), recipe, (32, 32)) == 200).all()


def test_crop_of_a_face_of_thousands_of_pixels_has_no_aliasing():
    board = np.kron(np.indices((1500, 1500)).sum(0) % 2, np.ones((2, 2))).astype(np.uint8)[..., None] * np.full(
        3, 255, np.uint8
    )
    reduced = crop(board, face_at(10, 10, 2900), ALIGN, (32, 32))
    assert reduced.min() > 100 and reduced.max() < 155


def test_crop_of_a_reduced_image_is_in_place():
    """Large faces are reduced by a whole factor first."""
    y, x = np.mgrid[:2000, :2000]
    ramps = np.stack([x // 8, y // 8, x // 8], -1).astype(np.uint8)
    cropped = crop(ramps, face_at(200, 600, 1280), SQUARE, (16, 16)).astype(float)
    centres = (np.arange(16) + 0.5) * 80
    within = slice(1, -1)  # at the edges the filter has one side only
    assert cropped[8, within, 0] == pytest.approx((200 + centres[within]) / 8 - 0.5, abs=0.6)
    assert cropped[within, 8, 1] == pytest.approx((600 + centres[within]) / 8 - 0.5, abs=0.6)


def test_crop_outline_is_what_crop_shows():
    outline = crop_outline(face_at(30, 40, 50), SQUARE, (10, 10))
    assert outline == pytest.approx(np.array([(30, 40), (80, 40), (80, 90), (30, 90)]))
    turned = crop_outline(face_at(150, 150, 100, 90), ALIGN, (10, 10))
    assert turned == pytest.approx(np.array([(150, 150), (150, 250), (50, 250), (50, 150)]), abs=1e-6)
