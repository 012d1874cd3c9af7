"""One face for each image of a table, for training and evaluation; `faces.on_none` decides about images without one."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from faceattr.data.faces.crop_recipe import FaceRecipe, check_one_face
from faceattr.data.faces.detection_cache import Detections, FaceRows, find_all
from faceattr.errors import FaceattrError
from faceattr.message_text import counted, counted_of, listed

log = logging.getLogger(__name__)

DOUBTFUL = 6
"""The most images that a report shows of each kind: without a face, with several, with the lowest scores."""


@dataclass(frozen=True)
class FoundFaces:
    """The faces of N images. `names` are their paths as the table has them, `paths` the files.

    `chosen` is the face that stands for each image.
    """

    names: Sequence[str]
    paths: Sequence[str]
    recipe: FaceRecipe
    detections: Detections
    chosen: FaceRows

    @cached_property
    def without(self) -> np.ndarray:
        """Positions of the readable images without a face."""
        missing = np.flatnonzero(np.isnan(self.chosen.values[:, 0]))
        return np.setdiff1d(missing, list(self.detections.bad))

    @cached_property
    def several(self) -> np.ndarray:
        """Positions of the images with more than one face."""
        return np.flatnonzero(self.detections.counts(self.recipe) > 1)

    @property
    def usable(self) -> np.ndarray:
        """Positions of the images that are trained on or evaluated: with `faces.on_none=skip` those with a face, else all."""
        return np.setdiff1d(np.arange(len(self.names)), self.without if self.recipe.on_none == "skip" else [])

    @property
    def counts(self) -> dict[str, int | str]:
        """For run.json and the report."""
        return {
            "mode": self.recipe.mode,
            "images": len(self.names),
            "without_a_face": len(self.without),
            "on_none": self.recipe.on_none,
            "with_several_faces": len(self.several),
        }

    def describe(self) -> str:
        """The counts in a sentence."""
        n, without = len(self.names), len(self.without)
        treatment = {"skip": "left out", "whole": "taken whole", "error": "an error"}[self.recipe.on_none]
        none = (
            f"{without:,} without a face ({treatment}, faces.on_none={self.recipe.on_none})"
            if without
            else "none without"
        )
        several = f", {len(self.several):,} with several, of which faces.pick={self.recipe.pick} takes one"
        return f"Faces ({self.recipe.mode}): {counted(n, 'image')}, {none}{several if len(self.several) else ''}"

    def table(self) -> pd.DataFrame:
        """faces.csv; see `Detections.table`."""
        return self.detections.table(self.names, self.recipe)

    def doubtful(self) -> dict[str, list[int]]:
        """Kind of doubt → positions of the images to look at, at most `DOUBTFUL` of each kind."""
        kinds = {"no face": self.without, "several faces": self.several}
        scores = self.chosen.values[:, -1]
        single = np.setdiff1d(np.flatnonzero(~np.isnan(scores)), self.several)
        kinds["lowest scores"] = single[np.argsort(scores[single], kind="stable")]
        return {kind: positions[:DOUBTFUL].tolist() for kind, positions in kinds.items() if len(positions)}


def find_faces(
    paths: list[str], names: list[str], recipe: FaceRecipe, *, weights: str | None, workers: int | None
) -> tuple[FoundFaces, dict[int, str]]:
    """The faces of a table's images; and for each unreadable image its position → the reason. Logs the counts.

    Raises FaceattrError: images without a face, with `faces.on_none=error`, or no image with one; `faces.pick=all`.
    """
    check_one_face(recipe)
    detections = find_all(paths, recipe, weights=weights, workers=workers)
    faces = FoundFaces(names, paths, recipe, detections, detections.chosen(recipe))
    if names and len(faces.without) == len(names):
        raise FaceattrError(
            f"None of {counted(len(names), 'image')} has a face. Images that are crops already: faces=none"
        )
    if len(faces.without) and recipe.on_none == "error":
        count = counted_of(len(faces.without), len(names), "image", "have")
        raise FaceattrError(
            f"{count} no face: {listed((names[image] for image in faces.without), 5)}\n"
            "Remove them, leave them out with faces.on_none=skip, or take them whole with faces.on_none=whole"
        )
    log.log(logging.WARNING if len(faces.without) else logging.INFO, "%s", faces.describe())
    return faces, dict(detections.bad)
