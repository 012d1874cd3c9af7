"""Faces whose place is known: made up for the geometry, drawn or real for the detector."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from faceattr.data.faces.detect import Detector, Face
from faceattr.data.sources.sample_people import imagine
from faceattr.data.sources.sample_portraits import draw


def made_up(x: float = 10, y: float = 20, width: float = 40, height: float = 50, score: float = 0.9) -> Face:
    """Its points lie as in an upright face."""
    shares = ((0.3, 0.4), (0.7, 0.4), (0.5, 0.6), (0.35, 0.8), (0.65, 0.8))
    return Face(x, y, width, height, tuple((x + a * width, y + b * height) for a, b in shares), score)


@pytest.fixture(scope="session")
def weights(shared) -> Path:
    """The detector's file."""
    return shared("weights", "face_detection_yunet_2023mar.onnx")


@pytest.fixture(scope="session")
def detector(weights) -> Detector:
    return Detector(weights, 0.6)


@pytest.fixture(scope="session")
def scene() -> Callable[[int, int], np.ndarray]:
    """`scene(n, side)`: a drawn picture of n people, uint8, their portraits of `side` pixels in rows of eight on grey."""

    def compose(n: int, side: int) -> np.ndarray:
        rows, step = -(-n // 8), 2 * side
        picture = np.full((step * rows, step * 8, 3), 128, np.uint8)
        for place in range(n):
            top, left = step * (place // 8) + side // 2, step * (place % 8) + side // 2
            portrait = draw(imagine(place, 0, 0), side, side)
            picture[top : top + side, left : left + side] = np.asarray(portrait)
        return picture

    return compose
