"""The faces of many images: found once on all cores, stored between runs, and one chosen for each image."""

import hashlib
import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from faceattr.data import disk_cache
from faceattr.data.array_file import RowArray
from faceattr.data.decode import UnreadableImage, decode
from faceattr.data.faces.crop_recipe import FaceRecipe, large_enough, pick
from faceattr.data.faces.detect import POINTS, Detector, Face
from faceattr.data.faces.detector_file import detector_file
from faceattr.data.parallel import processes_pay, run_tasks
from faceattr.data.pixel_cache import file_identities
from faceattr.message_text import counted
from faceattr.progress import tracked

log = logging.getLogger(__name__)

FORMAT = 1  # of the stored detections: increase it with every change after which other faces are found
COLUMNS = ["x", "y", "width", "height", *(f"{name}_{axis}" for name in POINTS for axis in "xy"), "score"]
"""A face as a row of numbers."""
BLOCK = 32
"""Images of a task."""
ImageFaces = tuple[tuple[int, int], list[Face], str]
"""Of an image: (width, height), its faces, and why it is unreadable ("" if it is not)."""


class FaceRows(Sequence[Face | None]):
    """A face, or none, for each image, in an array, float32 [N, 15]: 60 bytes per image, where a list would take a kilobyte."""

    def __init__(self, values: np.ndarray) -> None:
        self.values = values

    @classmethod
    def from_faces(cls, faces: Sequence[Face | None]) -> "FaceRows":
        """From a list of faces."""
        no_face = [np.nan] * len(COLUMNS)
        values = [no_face if face is None else as_row(face) for face in faces]
        return cls(np.array(values, np.float32).reshape(-1, len(COLUMNS)))

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, row: Any) -> Any:
        """The face at a position; for an array of positions, those rows."""
        if not isinstance(row, int | np.integer):
            return FaceRows(self.values[row])
        return None if np.isnan(self.values[row, 0]) else from_row(self.values[row].tolist())


@dataclass(frozen=True)
class Detections:
    """The faces of N images.

    sizes: (width, height) of each upright image, int [N, 2]; 0 where it is unreadable.
    owner: position of the image that each face is in, int [F], ascending. values: the faces, float32 [F, 15]; see `COLUMNS`.
    bad: position of an image → why it is unreadable.
    """

    sizes: np.ndarray
    owner: np.ndarray
    values: np.ndarray
    bad: dict[int, str]

    def faces_of(self, image: int) -> list[Face]:
        """The faces of an image, the largest first."""
        first, last = np.searchsorted(self.owner, [image, image + 1])
        return [from_row(row) for row in self.values[first:last].tolist()]

    def chosen(self, recipe: FaceRecipe) -> FaceRows:
        """The face of each image that the recipe picks."""
        return FaceRows.from_faces(
            [pick(self.faces_of(image), recipe, *size) for image, size in enumerate(self.sizes.tolist())]
        )

    def counts(self, recipe: FaceRecipe) -> np.ndarray:
        """Number of faces of the recipe's least size in each image, int [N]."""
        return np.array([len(large_enough(self.faces_of(image), recipe)) for image in range(len(self.sizes))], int)

    def table(self, names: Sequence[str], recipe: FaceRecipe) -> pd.DataFrame:
        """faces.csv: a row for each face, and one without values for each image without a face.

        Columns: path, face (0 for the largest; empty without one), chosen (whether the recipe picks it), `COLUMNS`.
        """
        rows: list[list[Any]] = []
        for image, name in enumerate(names):
            faces = self.faces_of(image)
            picked = pick(faces, recipe, *self.sizes[image].tolist())
            rows += [[name, number, face is picked, *as_row(face)] for number, face in enumerate(faces)]
            rows += [] if faces else [[name, None, False, *[None] * len(COLUMNS)]]
        table = pd.DataFrame(rows, columns=["path", "face", "chosen", *COLUMNS])
        return table.astype({"face": "Int64", **dict.fromkeys(COLUMNS, float)}).round(dict.fromkeys(COLUMNS, 3))


def find_all(paths: list[str], recipe: FaceRecipe, *, weights: str | None, workers: int | None) -> Detections:
    """The faces of all `paths`, looked for as `recipe.search` says, on all cores; stored for later runs on the same files.

    `weights` is `faces.weights`; it is not needed if the faces are stored already (a checkpoint may name a file of another
    machine), but if it is here it must be the detector. `workers`: as for `read_many`.
    """
    if weights and Path(weights).expanduser().exists():
        detector_file(weights)

    def compute(rows: RowArray | np.ndarray) -> dict[str, Any]:
        detector = Detector(detector_file(weights), recipe.min_score)
        owner: list[int] = []
        values: list[list[float]] = []
        bad: dict[int, str] = {}
        for image, (size, faces, reason) in enumerate(_find_each(paths, detector, recipe, workers)):
            rows[image] = np.array(size)
            owner += [image] * len(faces)
            values += map(as_row, faces)
            bad |= {image: reason} if reason else {}
        return {"owner": owner, "values": values, "bad": bad}

    key = hashlib.sha256(json.dumps([FORMAT, recipe.search]).encode())
    key.update(file_identities(paths))
    name, title = f"faces-{key.hexdigest()[:24]}", f"Faces of {counted(len(paths), 'image')}"
    shape = (len(paths), 2)
    try:
        stored, detected = disk_cache.get_or_create(name, shape, np.int32, compute, title=title)
        sizes = stored[np.arange(len(paths))]
    except disk_cache.NoRoom as error:
        log.warning("%s They are looked for anew by every run", error)
        sizes = np.zeros(shape, np.int32)
        detected = compute(sizes)
    values = np.array(detected["values"], np.float32).reshape(-1, len(COLUMNS))
    bad = {int(image): reason for image, reason in detected["bad"].items()}
    return Detections(sizes, np.array(detected["owner"], int), values, bad)


def _find_each(paths: list[str], detector: Detector, recipe: FaceRecipe, workers: int | None) -> Iterator[ImageFaces]:
    blocks = [paths[start : start + BLOCK] for start in range(0, len(paths), BLOCK)]
    tasks = (partial(_find_block, block, detector, recipe.every_face) for block in blocks)
    results = run_tasks(tasks, workers=workers, processes=processes_pay(len(paths), workers))
    yield from tracked(chain.from_iterable(results), "Finding faces", len(paths))


def _find_block(paths: list[str], detector: Detector, every: bool) -> list[ImageFaces]:
    return [_find(path, detector, every) for path in paths]


def _find(path: str, detector: Detector, every: bool) -> ImageFaces:
    try:
        image = decode(path)
    except UnreadableImage as error:
        return (0, 0), [], str(error)
    return image.size, detector.find(np.asarray(image), every=every), ""


def as_row(face: Face) -> list[float]:
    """A face as `COLUMNS`."""
    return [face.x, face.y, face.width, face.height, *(value for point in face.points for value in point), face.score]


def from_row(row: Sequence[float]) -> Face:
    """The inverse of `as_row`."""
    points = tuple((row[i], row[i + 1]) for i in range(4, 14, 2))
    return Face(row[0], row[1], row[2], row[3], points, row[14])
