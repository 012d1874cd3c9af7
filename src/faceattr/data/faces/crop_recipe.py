"""The recipe: how faces are chosen and cropped for a network. A checkpoint stores it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from faceattr.config.schema import Faces
from faceattr.data.faces.detect import Face
from faceattr.data.faces.detector_file import SHA256
from faceattr.errors import FaceattrError


@dataclass(frozen=True)
class FaceRecipe:
    """The keys of the group `faces` that decide what a network sees; see `schema.Faces`.

    `detector` is the SHA-256 of the detector's file; empty where no face is looked for.
    """

    mode: str = "none"
    margin: float = 0.0
    pick: str = "largest"
    on_none: str = "error"
    min_score: float = 0.6
    min_size: float = 10.0
    detector: str = ""

    @classmethod
    def from_config(cls, faces: Faces) -> "FaceRecipe":
        """From the keys of the group. With `faces=none` the other keys mean nothing: they are left at their defaults."""
        if faces.mode == "none":
            return cls()
        return cls(
            *(faces.mode, faces.margin, faces.pick, faces.on_none, faces.min_score, faces.min_size), detector=SHA256
        )

    @property
    def active(self) -> bool:
        """Whether faces are looked for at all."""
        return self.mode != "none"

    @property
    def every_face(self) -> bool:
        """Whether smaller faces are looked for, too: the largest is known without them."""
        return self.pick != "largest"

    @property
    def search(self) -> tuple[float, bool, str]:
        """What decides which faces are found. Recipes that differ in other keys share one detection."""
        return self.min_score, self.every_face, self.detector


WHOLE_IMAGE = FaceRecipe()
"""`faces=none`: no face is looked for."""


def check_one_face(recipe: FaceRecipe) -> None:
    """Raises FaceattrError for `faces.pick=all` in training and evaluation."""
    if recipe.pick == "all":
        raise FaceattrError(
            "faces.pick=all is for prediction; training and evaluation take one face of each image: largest, central or certain."
        )


def large_enough(faces: Sequence[Face], recipe: FaceRecipe) -> list[Face]:
    """The faces whose shorter side has at least `recipe.min_size` pixels."""
    return [face for face in faces if min(face.width, face.height) >= recipe.min_size]


def pick(faces: Sequence[Face], recipe: FaceRecipe, width: int, height: int) -> Face | None:
    """The one face that stands for an image of width x height pixels: the largest, the most central, or the most certain.

    None without a face of `recipe.min_size`.
    """
    usable = large_enough(faces, recipe)
    if not usable:
        return None
    if recipe.pick == "central":
        centre = np.array([width, height]) / 2
        return min(usable, key=lambda face: float(np.hypot(*(np.array(face.centre) - centre))))
    return max(usable, key=lambda face: face.score if recipe.pick == "certain" else face.width * face.height)


def reading_order(faces: Sequence[Face]) -> list[Face]:
    """Row by row from the top, each from left to right. A face shares a row where its centre lies within half a face, of the
    mean of both heights, below the mean centre of the row."""
    rows: list[list[Face]] = []
    for face in sorted(faces, key=lambda face: face.centre[1]):
        row = rows[-1] if rows else []
        if row:
            middle, height = np.mean([(other.centre[1], other.height) for other in row], axis=0)
        if row and face.centre[1] - middle < (height + face.height) / 4:
            row.append(face)
        else:
            rows.append([face])
    return [face for row in rows for face in sorted(row, key=lambda face: face.centre[0])]
