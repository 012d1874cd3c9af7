"""Pictures with the boxes of faces and the answers about them, readable on any background."""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont

from faceattr.data.faces.detect import Face
from faceattr.report.fonts import DEJAVU, drawable

LIGHT, DARK = (255, 255, 255), (20, 20, 20)
UNREADABLE = 11
"""Pixels; letters are at least so high."""


class Note(NamedTuple):
    """What is written at a face; without one, in the picture's corner."""

    face: Face | None
    text: str


def annotate(image: Image.Image, notes: Sequence[Note]) -> Image.Image:
    """A copy of an RGB picture with a box and a text for each note.

    Boxes are a light line on a dark one, texts light letters on a dark field, so that they can be read on any picture. The
    text stands above its box, or below or inside it where there is no room.
    """
    drawn = image.copy()
    draw = ImageDraw.Draw(drawn)
    line = max(1, round(min(image.size) / 500))
    for note in notes:
        if note.face:
            corners = _corners(note.face)
            draw.rectangle(
                [corners[0] - line, corners[1] - line, corners[2] + line, corners[3] + line], None, DARK, 3 * line
            )
    for note in notes:
        if note.face:
            draw.rectangle(_corners(note.face), None, LIGHT, line)
    for note in notes:
        _write(draw, image.size, note, line)
    return drawn


def _corners(face: Face) -> tuple[float, float, float, float]:
    return face.x, face.y, face.x + face.width, face.y + face.height


def _write(draw: ImageDraw.ImageDraw, size: tuple[int, int], note: Note, line: int) -> None:
    width, height = size
    corners = _corners(note.face) if note.face else (0, 0, width, 0)
    letters = min(max(UNREADABLE, round((corners[2] - corners[0]) / 8)), max(UNREADABLE, round(min(size) / 20)))
    text, fallbacks = drawable(note.text)
    font, gap = _font(fallbacks[0] if fallbacks else DEJAVU, letters), max(2, letters // 5)
    left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
    wide, high = right - left + 2 * gap, bottom - top + 2 * gap
    x = min(max(0, corners[0] - line), max(0, width - wide))
    above, below = corners[1] - 2 * line - high, corners[3] + 2 * line
    y = above if above >= 0 else below if below + high <= height else max(0, corners[1] + 2 * line)
    draw.rectangle([x, y, x + wide, y + high], DARK)
    draw.text((x + gap - left, y + gap - top), text, LIGHT, font)


@lru_cache
def _font(file: Path, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(file), size)
