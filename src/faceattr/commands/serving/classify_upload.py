"""From uploaded images to JSON: faces and probabilities of each, by the code that predict.py runs."""

import io
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import pandas as pd
from PIL import Image

from faceattr.commands.serving.http_errors import Problem, without_addresses
from faceattr.commands.serving.uploads import unreadable, upright_size
from faceattr.data.faces.crop_recipe import FaceRecipe
from faceattr.data.faces.detect import POINTS
from faceattr.data.photo_reader import NO_FACE
from faceattr.errors import FaceattrError
from faceattr.training.predictor import Predictor

Prediction = dict[str, Any]
"""`faces`: a dictionary for each; `image`: its size. docs/serving.md lists the keys."""


@dataclass(frozen=True)
class PhotoClassifier:
    """The model, and how it is used here: `faces` is the recipe, `abstain` as for `predict`."""

    model: Predictor
    faces: FaceRecipe
    abstain: float | None
    max_pixels: int
    max_faces: int

    def classify(self, images: list[bytes]) -> list[Prediction | Problem]:
        """A result for each image, or what is wrong with it."""
        results: list[Prediction | Problem] = []
        readable: dict[int, tuple[int, int]] = {}
        for place, image in enumerate(images):
            try:
                readable[place] = upright_size(image, self.max_pixels)
                results.append({})
            except Problem as problem:
                results.append(problem)
        if not readable:
            return results
        table = self.model.predict(
            [images[place] for place in readable],
            faces=self.faces,
            max_faces=self.max_faces,
            abstain=self.abstain,
            unusual=True,
        )
        columns = [str(name) for name in table]
        rows = [dict(zip(columns, values, strict=True)) for values in table.itertuples(index=False)]
        for number, (place, size) in enumerate(readable.items()):
            results[place] = self._result([row for row in rows if row["path"] == number], size)
        return results

    def explain(self, image: bytes, label: str | None, face: int | None) -> bytes:
        """A PNG of the face, or of the whole image, with its Grad-CAM. Raises Problem."""
        if not self.model.metadata["explains"]:
            raise Problem(HTTPStatus.NOT_IMPLEMENTED, "This model has no gradients: serve a checkpoint for Grad-CAM.")
        upright_size(image, self.max_pixels)
        try:
            pixels = self.model.explain(image, label, face=face, faces=self.faces)
        except FaceattrError as error:
            raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, without_addresses(str(error))) from error
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, "PNG")
        return stream.getvalue()

    def _result(self, rows: list[dict[str, Any]], size: tuple[int, int]) -> Prediction | Problem:
        """The result of one image from its rows of `predict`."""
        width, height = size
        faceless = len(rows) == 1 and _none(rows[0].get("face")) and _none(rows[0]["predicted"])
        if faceless and rows[0]["reason"] != NO_FACE:
            return unreadable(str(rows[0]["reason"]))
        faces = [] if faceless else [self._face(row, size) for row in rows]
        return {"faces": faces, "image": {"width": width, "height": height}}

    def _face(self, row: dict[str, Any], size: tuple[int, int]) -> dict[str, Any]:
        """A row of `predict` as JSON; a whole image has the box of the image, without points and score."""
        probabilities = {name: row[f"probability_{name}"] for name in self.model.metadata["classes"]}
        has_scores = not any(map(_none, probabilities.values()))
        has_box = not _none(row.get("x"))
        box = [row[name] for name in BOX] if has_box else [0.0, 0.0, *map(float, size)]
        return {
            "box": dict(zip(BOX, box, strict=True)),
            "points": {name: [row[f"{name}_x"], row[f"{name}_y"]] for name in POINTS} if has_box else None,
            "score": row["score"] if has_box else None,
            "predicted": self._predicted(row, probabilities) if has_scores else None,
            "probabilities": {name: round(float(p), 6) for name, p in probabilities.items()} if has_scores else None,
            "unusual": None if _none(row["unusual"]) else bool(row["unusual"]),
            "reason": None if _none(row["reason"]) else row["reason"],
        }

    def _predicted(self, row: dict[str, Any], probabilities: dict[str, float]) -> str | list[str]:
        """A class or `uncertain`; of attributes, the list of those above 0.5."""
        if self.model.metadata["multilabel"]:
            return [name for name, probability in probabilities.items() if probability > 0.5]
        return str(row["predicted"])


BOX = ("x", "y", "width", "height")


def _none(value: Any) -> bool:
    return value is None or bool(pd.isna(value))
