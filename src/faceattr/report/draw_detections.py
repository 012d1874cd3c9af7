"""Pictures of what the face detector found: images with boxes, points and the outline of the crop, for the preview and reports."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from faceattr.data.decode import InputSpec, UnreadableImage, decode
from faceattr.data.faces.crop import crop_outline
from faceattr.data.faces.detect import Face
from faceattr.data.faces.table_faces import FoundFaces

SIDE = 224
"""Pixels of a picture's side; what an image leaves free of it is white."""
BOX, CROP, DARK = (255, 255, 255), (255, 190, 0), (20, 20, 20)


class FacePicture(NamedTuple):
    """A marked image, uint8 [SIDE, SIDE, 3], and what is said of it."""

    pixels: np.ndarray
    caption: str


def mark(image: Image.Image, faces: Sequence[Face], chosen: Face | None, spec: InputSpec) -> np.ndarray:
    """The image in a square, uint8 [SIDE, SIDE, 3], each face's box in white, the crop and points of the chosen one in yellow."""
    shown, scale = _resized(image), SIDE / max(image.size)
    draw = ImageDraw.Draw(shown)
    for face in faces:
        left, top, right, bottom = (
            scale * value for value in (face.x, face.y, face.x + face.width, face.y + face.height)
        )
        _outline(draw, np.array([(left, top), (right, top), (right, bottom), (left, bottom)]), BOX)
    if chosen:
        _outline(draw, scale * crop_outline(chosen, spec.faces, (spec.height, spec.width)), CROP)
        for x, y in scale * np.array(chosen.points):
            draw.ellipse([x - 2.5, y - 2.5, x + 2.5, y + 2.5], CROP, DARK)
    return _squared(shown)


def enlarge(pixels: np.ndarray) -> np.ndarray:
    """A crop, uint8 [H, W, 3], in a square of the size of a marked image."""
    return _squared(Image.fromarray(pixels))


def doubtful_faces(faces: FoundFaces, spec: InputSpec) -> dict[str, list[FacePicture]]:
    """The images without a face, with several faces, and with the lowest scores, by that; a few of each."""
    pictures: dict[str, list[FacePicture]] = {}
    for kind, images in faces.doubtful().items():
        for image in images:
            try:
                decoded = decode(faces.paths[image])
            except UnreadableImage:  # changed since the faces were found
                continue
            chosen = faces.chosen[image]
            score = f", score {chosen.score:.2f}" if chosen else ""
            marked = mark(decoded, faces.detections.faces_of(image), chosen, spec)
            pictures.setdefault(kind, []).append(FacePicture(marked, f"{faces.names[image]}{score}"))
    return pictures


def _resized(image: Image.Image) -> Image.Image:
    scale = SIDE / max(image.size)
    return image.resize((max(1, round(scale * image.width)), max(1, round(scale * image.height))))


def _squared(image: Image.Image) -> np.ndarray:
    resized, square = _resized(image), Image.new("RGB", (SIDE, SIDE), "white")
    square.paste(resized, ((SIDE - resized.width) // 2, (SIDE - resized.height) // 2))
    return np.asarray(square)


def _outline(draw: ImageDraw.ImageDraw, corners: np.ndarray, colour: tuple[int, int, int]) -> None:
    """A light line on a dark one, so that it is seen on any picture."""
    closed = [(float(x), float(y)) for x, y in (*corners, corners[0])]
    draw.line(closed, DARK, 4)
    draw.line(closed, colour, 2)
