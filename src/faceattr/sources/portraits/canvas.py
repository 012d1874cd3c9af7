"""Face coordinates and how they get onto a canvas: the frame, smooth outlines, soft grids, masks."""

from functools import cache

import numpy as np
from PIL import Image, ImageDraw

from faceattr.sources.portraits.people import Shot

COARSE = 4  # pixels of the canvas per point of the coarse grid


class Frame:
    """Where face coordinates lie on the canvas: turn (the head as an ellipsoid), tilt, zoom, shift."""

    def __init__(self, shot: Shot, width: int, height: int, *, head: bool = True):
        self.size = (width, height)
        self.unit = 0.262 * min(width, height) * shot.zoom
        self.origin = np.array([width / 2, height * 0.48]) + self.unit * np.array(shot.shift)
        tilt = shot.tilt if head else 0.25 * shot.tilt
        self.rotation = self.unit * np.array([[np.cos(tilt), np.sin(tilt)], [-np.sin(tilt), np.cos(tilt)]])
        turn = np.array([shot.yaw, shot.pitch]) if head else np.zeros(2)
        self.cos_turn, self.sin_turn = np.cos(turn), np.sin(turn)

    def place(self, points: np.ndarray, lift: float | np.ndarray = 0.0) -> np.ndarray:
        """Where points lie on the canvas; `lift` is how far they stand out of the ellipsoid."""
        across, down = points[:, :1] / 1.02, points[:, 1:] / 1.42
        depth = np.sqrt(np.maximum(1 - across * across - down * down, 0)) + lift
        return (points * self.cos_turn + depth * self.sin_turn) @ self.rotation + self.origin

    def pixels(self, points: np.ndarray, lift: float = 0.0, scale: float = 1.0) -> list[float]:
        placed = self.place(points, lift)
        return (placed * scale if scale != 1 else placed).ravel().tolist()

    @property
    def grid(self) -> np.ndarray:
        """Face coordinates (before the turn) of the coarse grid's points, rows x columns x 2."""
        columns, rows = (-(-side // COARSE) for side in self.size)
        x, y = np.meshgrid(np.arange(columns) * COARSE + COARSE / 2, np.arange(rows) * COARSE + COARSE / 2)
        placed = np.stack([x, y], -1) - self.origin
        return (placed @ (self.rotation.T / self.unit**2)).astype(np.float32)


@cache
def _spline(count: int, closed: bool, steps: int = 6) -> np.ndarray:
    """Catmull-Rom: the matrix that turns `count` control points into points of a smooth curve through them."""
    t = np.linspace(0, 1, steps, endpoint=False)[:, None]
    weights = 0.5 * np.hstack([-t + 2 * t**2 - t**3, 2 - 5 * t**2 + 3 * t**3, t + 4 * t**2 - 3 * t**3, -(t**2) + t**3])
    rows = []
    for i in range(count if closed else count - 1):
        near = np.arange(i - 1, i + 3)
        near = near % count if closed else near.clip(0, count - 1)
        block = np.zeros((steps, count))
        for j, k in enumerate(near):
            block[:, k] += weights[:, j]
        rows.append(block)
    return np.vstack(rows) if closed else np.vstack([*rows, np.eye(count)[-1:]])


def curve(points: list, closed: bool = True) -> np.ndarray:
    return _spline(len(points), closed) @ np.array(points, float)


def both(half: list) -> np.ndarray:
    """A closed smooth outline from its right half, top to bottom, ends on the middle line."""
    return curve([*half, *[(-x, y) for x, y in half[-2:0:-1]]])


def soften(coarse: np.ndarray) -> Image.Image:
    """A coarse grid of colours as a picture, still coarse."""
    return Image.fromarray(np.clip(coarse, 0, 255).astype(np.uint8))


def colour(rgb: np.ndarray) -> tuple[int, int, int]:
    r, g, b = (int(min(max(c, 0), 255)) for c in rgb)
    return r, g, b


def paste(canvas: Image.Image, layer: Image.Image, outline: np.ndarray, frame: Frame) -> None:
    """Puts what of the coarse `layer` lies inside the outline onto the canvas; enlarges no more of it than that."""
    points = frame.place(outline)
    corners = np.clip([points.min(0), points.max(0) + 1], 0, canvas.size).astype(int)
    left, top, right, bottom = corners.ravel().tolist()
    if left < right and top < bottom:
        size = (right - left, bottom - top)
        mask = Image.new("L", size)
        ImageDraw.Draw(mask).polygon((points - corners[0]).ravel().tolist(), fill=255)
        box = (left / COARSE, top / COARSE, right / COARSE, bottom / COARSE)
        canvas.paste(layer.resize(size, Image.Resampling.BILINEAR, box), (left, top), mask)


def paste_soft(canvas: Image.Image, source: Image.Image | np.ndarray, mask: Image.Image) -> None:
    """Puts a colour, or a picture as small as the mask, onto the canvas through a mask that is smaller than it."""
    scale = round(canvas.width / mask.width)
    left, top, right, bottom = mask.getbbox() or (0, 0, 0, 0)
    box = (max(left - 1, 0), max(top - 1, 0), min(right + 1, mask.width), min(bottom + 1, mask.height))
    size = ((box[2] - box[0]) * scale, (box[3] - box[1]) * scale)
    place = (box[0] * scale, box[1] * scale, box[0] * scale + size[0], box[1] * scale + size[1])
    fill = source.resize(size, Image.Resampling.BILINEAR, box) if isinstance(source, Image.Image) else colour(source)
    canvas.paste(fill, place, mask.resize(size, Image.Resampling.BILINEAR, box))


def spots(rows: list, frame: Frame) -> np.ndarray:
    """The sum of Gaussian spots at every coarse point; upright on the canvas, so that rows and columns separate."""
    x, y, width, height, lift, strength = np.array(rows).T
    centre = frame.place(np.stack([x, y], -1), lift[:, None]) / COARSE
    columns, lines = (np.arange(-(-side // COARSE)) + 0.5 for side in frame.size)
    across = np.exp(-(((columns - centre[:, :1]) * COARSE / frame.unit / width[:, None]) ** 2))
    down = np.exp(-(((lines - centre[:, 1:]) * COARSE / frame.unit / height[:, None]) ** 2))
    return ((down * strength[:, None]).T @ across).astype(np.float32)


def stroke(frame: Frame, width: float) -> int:
    return max(1, round(width * frame.unit))
