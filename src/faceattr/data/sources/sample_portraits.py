"""Draws the pictures of the sample faces with Pillow and numpy. `sample_people` says what a picture shows.

Shapes are given in face coordinates: origin between the eyes, x to the right, y down, 1 = half the width of the head.
"""

from functools import cache
from types import SimpleNamespace

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from faceattr.data.sources.sample_people import blend

SIDEWAYS, HEAD = np.array([1, -1]), np.array([1.02, 1.42])  # HEAD: half the width and height of the head
BLACK, STEEL, WHITE = np.array([[28] * 3, [115] * 3, [226] * 3])


def draw(face: SimpleNamespace, width: int, height: int) -> Image.Image:
    """The picture, RGB. It is drawn at twice its size, from back to front, and then reduced."""
    canvas = _image(face.background).resize((16, 16), Image.Resampling.BICUBIC)
    canvas = canvas.resize((2 * width, 2 * height), Image.Resampling.BILINEAR)
    body, head = Pen(canvas, face, 0), Pen(canvas, face, 1)
    x, y = head.grid()
    skin, strands = _image(_lit_skin(face, x, y)), _strands(face, x, y)
    hair = _image(face.hair * strands)
    _hair(head, face, hair, front=False)
    _skin(body, head, face, skin)
    _lines(head, face)
    _beard(head, face, _image(face.brows * strands))
    _mouth(head, face)
    for side in (1, -1):
        _eye(head, face, side)
    _hair(head, face, hair, front=True)
    return _photograph(canvas.reduce(2), face)


class Pen:
    """Draws smooth shapes, given in face coordinates, in the pose of a face (moved, tilted, zoomed).

    `turned` is 1 for shapes that turn with the head (yaw and pitch), 0 for the body.
    """

    def __init__(self, canvas: Image.Image, face: SimpleNamespace, turned: int):
        self.canvas, self.colours = canvas, ImageDraw.Draw(canvas, "RGBA")
        self.unit = 0.262 * min(canvas.size) * face.zoom
        self.origin = np.array([0.5, 0.48]) * canvas.size + self.unit * np.array([face.right, face.down])
        tilt, turn = face.tilt * (0.25 + 0.75 * turned), np.array([face.yaw, face.pitch]) * turned
        self.rotation = self.unit * np.array([[np.cos(tilt), np.sin(tilt)], [-np.sin(tilt), np.cos(tilt)]])
        self.across, self.deep = np.cos(turn)[:, None] * self.rotation, np.sin(turn) @ self.rotation

    def grid(self) -> np.ndarray:
        """Face coordinates x and y (without the turn) of every fourth column and row, enough for smooth shading."""
        placed = np.stack(np.meshgrid(*(np.arange(2, side + 2, 4) for side in self.canvas.size)), -1) - self.origin
        return (placed @ (self.rotation.T / self.unit**2)).transpose(2, 0, 1).astype(np.float32)

    def fill(self, points: list | np.ndarray, paint: np.ndarray | Image.Image, alpha: float = 1) -> None:
        """Fills the closed curve through `points` with a colour, or with an image on the `grid`."""
        placed = self._place(_spline(len(points), True)[0] @ points)
        if not isinstance(paint, Image.Image):
            self._polygon(placed, paint, alpha)
            return
        low, high = np.maximum(placed.min(0), 0), np.minimum(placed.max(0) + 1, self.canvas.size)
        left, top, right, bottom = np.concatenate([low, high]).astype(int).tolist()
        if left < right and top < bottom:
            mask = Image.new("L", (right - left, bottom - top))
            ImageDraw.Draw(mask).polygon((placed - (left, top)).ravel().tolist(), int(255 * alpha))
            part = (left / 4, top / 4, right / 4, bottom / 4)
            self.canvas.paste(paint.resize(mask.size, Image.Resampling.BILINEAR, part), (left, top), mask)

    def stroke(
        self, points: list | np.ndarray, width: float, colour: np.ndarray, alpha: float = 1, taper: float = 0.7
    ) -> None:
        """Draws the open curve through `points`, like a brush: thinner towards the ends."""
        spline, slope, thickness = _spline(len(points), False)
        path, along = spline @ points, slope @ points
        half = along[:, ::-1] * SIDEWAYS * (width / 2 * thickness**taper / np.hypot(along[:, 0], along[:, 1]))[:, None]
        self._polygon(self._place(np.concatenate([path + half, (path - half)[::-1]])), colour, alpha)

    def _polygon(self, placed: np.ndarray, colour: np.ndarray, alpha: float) -> None:
        self.colours.polygon(placed.ravel().tolist(), (*colour.astype(int).tolist(), int(255 * alpha)))

    def _place(self, points: np.ndarray) -> np.ndarray:
        """Face coordinates [N, 2] → pixels [N, 2]."""
        depth = np.sqrt(np.maximum(1 - (points / HEAD) ** 2 @ (1, 1), 0))
        return points @ self.across + depth[:, None] * self.deep + self.origin


@cache
def _spline(count: int, closed: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Catmull-Rom: matrices from control points to a curve through them and to its slope; and the width along it."""
    t = np.linspace(0, 1, 6)
    weights = 0.5 * np.array([-t + 2 * t**2 - t**3, 2 - 5 * t**2 + 3 * t**3, t + 4 * t**2 - 3 * t**3, t**3 - t**2])
    order = np.arange(-1, count + 2) % count if closed else np.arange(-1, count + 1).clip(0, count - 1)
    near = np.lib.stride_tricks.sliding_window_view(np.eye(count)[order], 4, axis=0)
    matrix = (near @ weights).swapaxes(1, 2).reshape(-1, count)
    return matrix, np.asarray(np.gradient(matrix, axis=0)), np.sin(np.pi * np.linspace(0.04, 0.96, len(matrix)))


def _image(colours: np.ndarray) -> Image.Image:
    return Image.fromarray(np.clip(colours, 0, 255).astype(np.uint8))


def _mirrored(half: list) -> list:
    """A closed, symmetric outline from its right half, which starts and ends on the middle line (top to bottom)."""
    return [*half, *[(-x, y) for x, y in half[-2:0:-1]]]


def _lit_skin(face: SimpleNamespace, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The colour of the skin on the grid: a lit ellipsoid, with the shadows, lights and red cheeks of a face."""
    side, above = np.clip(x / 1.1, -0.9, 0.9), np.clip(y / 1.5, -0.85, 0.7)
    shade = 0.75 + 0.4 * (side * face.light - 0.45 * above + 0.75 * np.sqrt(1 - np.minimum(side**2 + above**2, 0.96)))
    x, y = (
        x - 0.9 * face.yaw * np.sqrt(np.maximum(1 - x**2, 0)),
        y - 0.9 * face.pitch,
    )  # facial features turn with the head
    for darkness, x_centre, y_centre, width, height in (
        (0.18, 0.42, -0.14, 0.26, 0.13),  # eye sockets
        (0.04 + 0.18 * face.wrinkles, 0.42, 0.13, 0.20, 0.07),  # bags
        (-0.08, 0.56, 0.24, 0.20, 0.16),  # cheekbones
        (-0.14, 0.0, 0.2, 0.08, 0.3),  # bridge of the nose
        (0.2, 0.0, 0.54, 0.24 * face.nose, 0.08),
        (0.40, 0.0, 1.55, 2.0, 0.2),  # neck
    ):
        shade -= darkness * np.exp(-(((abs(x) - x_centre) / width) ** 2) - ((y - y_centre) / height) ** 2)
    blush = np.exp(-(((abs(x) - 0.55) / 0.28) ** 2) - ((y - 0.35) / 0.22) ** 2)
    return face.skin * shade[..., None] + blush[..., None] * np.array([10, -8, -6])


def _strands(face: SimpleNamespace, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The brightness of hair on the grid: strands from the crown or curls, and their shine."""
    angle = np.arctan2(x, np.maximum(y, -1.25) + 1.6)
    strands = np.interp(angle, np.linspace(-3.2, 3.2, 140), face.rng.normal(0, 1, 140))
    curls = face.rng.standard_normal(x.shape, np.float32)
    shine = np.exp(-(((np.hypot(x, y * 0.9) - 1.12) / 0.16) ** 2)) * (y < 0) * (1 - 0.7 * face.curl)
    shade = 1 + 0.13 * ((1 - face.curl) * strands + face.curl * curls) + 0.3 * shine - 0.16 * np.clip(y - 0.3, 0, 1)
    return shade[..., None]


def _hair(pen: Pen, face: SimpleNamespace, hair: Image.Image, front: bool) -> None:
    """The hair behind the head, or in front of it: above the hairline and, if long, at the sides."""
    if face.hair_length == "none":
        return
    v, top = 0.2 + 0.13 * face.curl, -1.32 * face.length
    end = {"short": 0.6, "medium": 1.15, "long": 2.3}[face.hair_length]
    outer = [(0, top - v), (0.55, top + 0.08 - v), (0.95 + 0.6 * v, -0.85 - 0.3 * v), (1.02 + 0.8 * v, -0.3)]
    if not front:
        wide = (0.9 if end < 1 else 1.1) + v
        pen.fill(_mirrored([*outer, (wide, 0.3), (wide, end * 0.85), (0.7, end), (0, end)]), face.hair * 0.75)
        return
    x = np.linspace(0.86, 0, 6)
    line = -0.86 * face.length + 0.5 * face.fringe * np.clip(x, 0.1, 0.9) + 0.3 * x**3
    line -= face.receding * (0.16 + 0.42 * np.exp(-(((x - 0.45) / 0.28) ** 2)))
    pen.fill(_mirrored([*outer, (1.0, -0.05), (0.93, -0.25), *zip(x, line, strict=True)]), hair)
    if end > 1:
        curtain = [(0.7, -0.95), (1.0 + v, -0.7), (1.08 + v, 0.3), (1.1 + v, end - 0.1), (0.92, end), (0.88, 0.75)]
        for side in (1, -1):
            pen.fill(np.array([*curtain, (0.93, 0.1), (0.86, -0.45)]) * (side, 1), hair)


def _skin(body: Pen, head: Pen, face: SimpleNamespace, skin: Image.Image) -> None:
    neck, wide, long, jaw = 0.5 * face.build, 1.75 * face.build, face.length, face.jaw
    cloth = [(0, 1.95), (neck * 1.15, 1.86), (wide * 0.75, 2.12), (wide, 2.5), (wide * 1.08, 3.4), (0, 3.6)]
    body.fill(_mirrored(cloth), face.clothes)
    body.fill(_mirrored([(0, 0.9), (neck, 0.9), (neck, 1.5), (neck * 1.2, 1.9), (neck * 0.8, 2.05), (0, 2.2)]), skin)
    for side in (1, -1):
        head.fill(np.array([(0.95, -0.2), (1.1, -0.22), (1.12, 0.02), (0.97, 0.32)]) * (side, 1), face.skin * 0.82)
    skull = [(0, -1.32 * long), (0.56, -1.2 * long), (0.92, -0.76), (0.99, -0.2), (0.96, 0.24)]
    chin = [(0.82 * jaw, 0.76 * long), (0.5 * jaw, 1.16 * long), (0.22 * jaw, 1.31 * long), (0, 1.33 * long)]
    head.fill(_mirrored([*skull, *chin]), skin)


def _lines(pen: Pen, face: SimpleNamespace) -> None:
    """Wrinkles, folds and the nose."""
    old, wing, dark = face.wrinkles, 0.2 * face.nose, face.skin * (0.5, 0.42, 0.4)
    for y in (-0.56, -0.68, -0.8) if old > 0.07 else ():
        pen.stroke([(-0.5, y + 0.02), (-0.2, y - 0.02), (0.2, y - 0.02), (0.5, y + 0.02)], 0.045, dark, 0.9 * old)
    for side in (1, -1):
        for width, strength, points in (
            (0.055, 0.9 * old + 0.2 * max(face.smile, 0) + 0.05, [(0.24, 0.44), (0.38, 0.6), (0.44, 0.84)]),
            (0.04, 0.9 * old, [(0.72, -0.08), (0.86, -0.16)]),  # crow's feet
            (0.045, 0.9 * old, [(0.26, 0.12), (0.42, 0.19), (0.6, 0.12)]),  # bags
            (0.04, 0.45, [(wing, 0.33), (wing * 1.25, 0.42), (wing, 0.5)]),
            (0.07, 0.9, [(wing * 0.85, 0.5), (wing * 0.35, 0.49)]),  # nostrils
        ):
            if strength > 0.05:
                pen.stroke(np.array(points) * (side, 1), width, dark, strength)


def _beard(pen: Pen, face: SimpleNamespace, hair: Image.Image) -> None:
    if face.beard != "none":
        outer = np.array([(0, 1.42), (0.2, 1.4), (0.55 * face.jaw, 1.22), (0.9 * face.jaw, 0.7), (0.97, 0.0)])
        half = [*(outer * (1, face.length)).tolist(), (0.86, 0.1), (0.62, 0.52), (0.35, 0.6), (0, 0.52)]
        pen.fill(_mirrored(half), hair, 0.95 if face.beard == "full" else 0.35)


def _mouth(pen: Pen, face: SimpleNamespace) -> None:
    wide, y, lips = 0.37 + 0.05 * face.smile, 0.74 * face.length + 0.03 * face.smile, face.lip_colour
    up, low, corner = 0.075 * face.lips, 0.12 * face.lips, y - 0.1 * face.smile
    upper = [(0, y - 0.75 * up), (0.04, y - 0.95 * up), (wide * 0.4, y - up), (wide, corner)]
    pen.fill(_mirrored([*upper, (wide * 0.5, y + 0.85 * low), (0, y + low)]), lips)
    pen.stroke([(-wide, corner), (-0.15, y + 0.01), (0, y + 0.02), (0.15, y + 0.01), (wide, corner)], 0.04, lips * 0.5)


def _eye(pen: Pen, face: SimpleNamespace, side: int) -> None:
    wide, tall = 0.185 * face.eye, 0.085 * face.eye * (1 - 0.25 * max(face.smile, 0) - 0.15 * face.wrinkles)

    def at(*points: tuple[float, float]) -> np.ndarray:
        return np.add(points, (0.43, -0.05)) * (side, 1)

    lid = [(-wide, 0.03), (-wide * 0.45, -tall * 0.85), (wide * 0.2, -tall), (wide, -0.01)]
    pen.fill(at(*lid, (wide * 0.35, tall * 0.75), (-wide * 0.4, tall * 0.75)), WHITE * 0.95)
    for r, x, tint in ((0.09, 0.0, face.iris), (0.045, 0.0, BLACK), (0.02, -0.03, WHITE * 1.1)):
        pen.fill(at((x, -min(r, tall)), (x + r, 0), (x, min(r, 0.8 * tall)), (x - r, 0)), tint)
    tip = (wide * (1.05 + 0.25 * face.lash), -0.06 * face.lash)
    pen.stroke(at(*lid, tip), 0.03 + 0.045 * face.lash, blend([face.skin * 0.35, BLACK], face.lash))
    pen.stroke(at((-wide * 0.9, -tall * 0.9), (0, -tall * 1.9), (wide, -tall * 0.9)), 0.03, face.skin * 0.68)
    y = -0.3 * face.brow_height
    pen.stroke(at((-0.27, y + 0.05), (0, y - 0.03), (0.17, y - 0.03), (0.34, y + 0.09)), 0.1 * face.brow, face.brows)
    if face.glasses != "none":
        colour, width = (BLACK, 0.06) if face.glasses == "bold" else (STEEL, 0.035)
        lens = [(-0.3, -0.11), (0, -0.19), (0.31, -0.12), (0.29, 0.17), (0, 0.27), (-0.26, 0.17), (-0.3, -0.11)]
        for line in (lens, [(0.31, -0.07), (0.57, -0.07)], [(-0.29, -0.03), (-0.43, -0.07)]):
            pen.stroke(at(*line), width, colour, taper=0)


def _photograph(picture: Image.Image, face: SimpleNamespace) -> Image.Image:
    """The effects of the camera: blur, exposure, colour of the light, noise."""
    if face.blur > 0.3:
        picture = picture.filter(ImageFilter.GaussianBlur(face.blur * picture.width / 128))
    tint = np.outer([1 + face.warmth, 1, 1 - face.warmth], face.exposure * np.arange(256))
    pixels = np.asarray(picture.point(tint.clip(0, 255).astype(int).ravel().tolist()))
    grain = face.rng.integers(-128, 128, pixels.shape, np.int8)  # uniform; its standard deviation is 74
    return _image(pixels + grain * np.float32(face.noise / 74))
