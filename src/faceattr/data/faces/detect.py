"""Finds faces in an image with YuNet, the detector of OpenCV's `FaceDetectorYN` (Wu, Peng and Yu 2023)."""

import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from faceattr.errors import FaceattrError

SCALES = (320, 640, 160)
"""Length of the image's longer side, in pixels, at which faces are looked for until one is found."""
FURTHER_SCALES = (640, 1280, 2560)
"""Then larger ones for smaller faces, up to twice the image's own size. All of them if every face is asked for or none was
found before, else the first."""
BORDERS = (0.0, 0.25, 0.5)
"""Width of the border that is added where nothing is found, as a share of the image's sides: the detector misses faces
that fill the image."""
SAME_FACE = 0.3
"""Two boxes show one face where their intersection is at least this share of their union."""
SUBPIXELS = 256
"""Positions are rounded to 1/256 of a pixel: float32 and text then hold them exactly."""
POINTS = ("left_eye", "right_eye", "nose", "left_mouth", "right_mouth")
"""Names of `Face.points` in CSV files; left and right as the picture shows them."""
MIN_SIDE = 16
"""Pixels. A scaled image has at least this many on each side."""
_creation_lock = threading.Lock()


@dataclass(frozen=True)
class Face:
    """A detected face, in pixels of the upright image. It may reach over the image's borders.

    `x`, `y` is the top left corner of its box. `points` are both eyes, the tip of the nose and both corners of the mouth, in
    each pair first the one that lies left in an upright face. `score` is from 0 to 1.
    """

    x: float
    y: float
    width: float
    height: float
    points: tuple[tuple[float, float], ...]
    score: float

    @property
    def centre(self) -> tuple[float, float]:
        """Of the box."""
        return self.x + self.width / 2, self.y + self.height / 2


class Detector:
    """Finds faces with at least `min_score`. Threads may share one: each search takes an idle OpenCV detector, and makes one only
    where none is idle. Making one takes half as long as searching a small picture."""

    def __init__(self, file: Path, min_score: float) -> None:
        self.file, self.min_score = file, min_score
        self._idle: deque[cv2.FaceDetectorYN] = deque()

    def __reduce__(self) -> tuple[type, tuple[Path, float]]:
        return Detector, (self.file, self.min_score)

    def find(self, image: np.ndarray, *, every: bool = False) -> list[Face]:
        """The faces of an image, uint8 [height, width, 3] (RGB, upright), the largest first.

        every: also look for smaller faces, after the first ones are found. The first ones are the same either way.
        """
        height, width = image.shape[:2]
        if max(image.shape) > FURTHER_SCALES[-1]:  # once, not for each scale
            image = _scaled(image, FURTHER_SCALES[-1])
        faces = self._first_found(image, (width, height))
        for scale in FURTHER_SCALES if every or not faces else FURTHER_SCALES[:1]:
            more = self._at_scale(image, scale, 0.0, (width, height)) if scale <= 2 * max(image.shape) else []
            faces += [face for face in more if all(_overlap(face, other) < SAME_FACE for other in faces)]
        return sorted(faces, key=lambda face: -face.width * face.height)

    def _first_found(self, image: np.ndarray, size: tuple[int, int]) -> list[Face]:
        """The faces at the first border and scale that show any."""
        for border in BORDERS:
            for scale in SCALES:
                if faces := self._at_scale(image, scale, border, size):
                    return faces
        return []

    def _at_scale(self, image: np.ndarray, scale: int, border: float, size: tuple[int, int]) -> list[Face]:
        """The faces of the image, its longer side scaled to `scale` pixels, with a border that repeats its outermost pixels.

        size: (width, height) of the original image, in whose pixels faces are given.
        """
        scaled = _scaled(image, scale)
        factors = np.array(size) / (
            scaled.shape[1],
            scaled.shape[0],
        )  # pixels of the original for one of the scaled image
        left, top = round(border * scaled.shape[1]), round(border * scaled.shape[0])
        if border:
            scaled = cv2.copyMakeBorder(scaled, top, top, left, left, cv2.BORDER_REPLICATE)
        return [face for row in self._rows(scaled) if (face := _face(row, (left, top), factors, size))]

    def _rows(self, image: np.ndarray) -> Iterator[np.ndarray]:
        """The detector's rows: x, y, width, height, five points, score."""
        try:
            detector = self._idle.pop()
        except IndexError:
            detector = self._create()
        try:
            detector.setInputSize((image.shape[1], image.shape[0]))
            rows = detector.detect(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1]
        finally:
            self._idle.append(detector)
        yield from [] if rows is None else rows

    def _create(self) -> cv2.FaceDetectorYN:
        """With OpenCV's warnings off: its loader gives one for each detector, which means nothing here. The log level is that of
        the whole process, so one thread at a time."""
        with _creation_lock:
            level = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)
            try:
                return cv2.FaceDetectorYN.create(str(self.file), "", (MIN_SIDE, MIN_SIDE), self.min_score)
            except cv2.error as error:
                raise FaceattrError(
                    f"{self.file} is no face detector that OpenCV {cv2.__version__} can read."
                ) from error
            finally:
                cv2.utils.logging.setLogLevel(level)


def _scaled(image: np.ndarray, longer: int) -> np.ndarray:
    """The image, resized so that its longer side has `longer` pixels."""
    height, width = image.shape[:2]
    factor = longer / max(height, width)
    size = max(MIN_SIDE, round(factor * width)), max(MIN_SIDE, round(factor * height))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR)


def _face(row: np.ndarray, border: tuple[int, int], factors: np.ndarray, image_size: tuple[int, int]) -> Face | None:
    """A detector's row in pixels of the original image; None where its centre lies in the border, or a value is not finite."""
    values = row.astype(float)
    corner, side = (values[:2] - border) * factors, values[2:4] * factors
    centre = corner + side / 2
    if not np.isfinite(values).all() or (side <= 0).any() or (centre < 0).any() or (centre > image_size).any():
        return None
    points = (values[4:14].reshape(5, 2) - border) * factors
    rounded = (np.round(np.concatenate([corner, side, points.ravel()]) * SUBPIXELS) / SUBPIXELS).tolist()
    x, y, box_width, box_height = rounded[:4]
    return Face(x, y, box_width, box_height, tuple(zip(rounded[4::2], rounded[5::2], strict=True)), float(values[14]))


def _overlap(face: Face, other: Face) -> float:
    """Intersection over union of two boxes."""
    across = min(face.x + face.width, other.x + other.width) - max(face.x, other.x)
    down = min(face.y + face.height, other.y + other.height) - max(face.y, other.y)
    shared = max(0.0, across) * max(0.0, down)
    return shared / (face.width * face.height + other.width * other.height - shared)
