"""Draws a `Shot` of a `Person`: parameters in, picture out, with Pillow and numpy alone.

Everything is laid out in face coordinates (origin between the eyes, x right, y down, 1 = half a head's width) and put
on a canvas of twice the size through one `Frame`, then scaled down. What is soft (skin, hair, light, shadows) is
computed on a coarse grid and scaled up, which gives soft shading at little cost; what is crisp is drawn as smooth
polygons.
"""

from collections.abc import Iterator

import numpy as np
from PIL import Image, ImageDraw

from faceattr.sources.portraits.canvas import COARSE, Frame, both, colour, curve, paste, paste_soft, soften, stroke
from faceattr.sources.portraits.people import Person, Shot, invent, pose
from faceattr.sources.portraits.shading import develop, light_hair, light_skin

SIDES = np.array([[1.0, 1.0], [-1.0, 1.0]])  # what a face's right half is multiplied by
EYE = np.array([0.43, -0.05])


def draw_to(identity: int, number: int, seed: int, width: int, height: int, file: str) -> None:
    """Draws picture `number` of an identity into a JPEG; all it needs are its arguments, so any process can do it."""
    person = invent(identity, seed)
    draw(person, pose(person, identity, number, seed), width, height).save(file, quality=92)


def draw(person: Person, shot: Shot, width: int, height: int) -> Image.Image:
    """The picture, RGB, `width` x `height`."""
    head, body = Frame(shot, 2 * width, 2 * height), Frame(shot, 2 * width, 2 * height, head=False)
    rng = np.random.default_rng(shot.texture)
    grid = head.grid
    skin, hair = soften(light_skin(person, shot, head, grid)), soften(light_hair(person, grid, rng))
    backdrop = Image.fromarray(shot.background.astype(np.uint8)).resize((32, 32), Image.Resampling.BICUBIC)
    canvas = backdrop.resize(head.size, Image.Resampling.BILINEAR)
    paste(canvas, hair, _back_hair(person, shot), head)
    _draw_body(canvas, person, shot, body, skin)
    _draw_head(canvas, person, head, skin)
    _draw_lines(canvas, person, shot, head)
    _draw_beard(canvas, person, shot, head, hair)
    _draw_mouth(canvas, person, shot, head)
    for side in SIDES:
        _draw_eye(canvas, person, shot, head, side)
    for shape in _front_hair(person, shot):
        paste(canvas, hair, shape, head)
    if shot.glasses:
        _draw_glasses(canvas, person, head)
    return develop(canvas.reduce(2), shot, rng)


def _outer_hair(person: Person, down: list) -> list:
    """The right half of the hair's outline, from the top of the head to the points `down`."""
    v = 0.18 * person.volume + 0.12 * person.curl
    top = -1.32 * person.length
    return [(0, top - v), (0.55, top + 0.08 - v), (0.95 + 0.6 * v, -0.85 - 0.3 * v), (1.02 + 0.8 * v, -0.3), *down]


def _back_hair(person: Person, shot: Shot) -> np.ndarray:
    v = 0.2 * person.volume + 0.15 * person.curl
    downs = {
        "none": [(0.8, 0.2), (0, 0.3)],
        "short": [(0.98, 0.2), (0.7, 0.6), (0, 0.7)],
        "medium": [(1.06 + v, 0.35), (1.08 + v, 0.95), (0.8, 1.25), (0, 1.2)],
        "long": [(1.1 + v, 0.4), (1.16 + v, 1.2), (1.2 + v, 2.1), (0.6, 2.4), (0, 2.4)],
    }
    if person.hair_length == "none":
        return both([(0, -1.1), (0.6, -0.9), (0.8, 0.2), (0, 0.3)])
    return both(_outer_hair(person, downs["short" if shot.tied else person.hair_length]))


def _front_hair(person: Person, shot: Shot) -> list[np.ndarray]:
    """What lies over the head: the cap above the hairline, and curtains at the sides of loose long hair."""
    if person.hair_length == "none":
        return []
    outer = _outer_hair(person, [(1.0, -0.05)])
    across = np.linspace(0.86, -0.86, 9)
    line = -0.86 * person.length + 0.5 * person.fringe * np.clip(abs(across - 0.5 * person.parting), 0.1, 0.9)
    line += 0.3 * abs(across) ** 3 - 0.42 * person.hairline * np.exp(-(((abs(across) - 0.45) / 0.28) ** 2))
    line -= 0.16 * person.hairline
    rim = [*[(-x, y) for x, y in outer[:0:-1]], *outer]
    whole = [*rim, (0.93, -0.25), *zip(across, line, strict=True), (-0.93, -0.25)]
    shapes = [curve(whole)]
    if person.hair_length in ("medium", "long") and not shot.tied:
        v = 0.2 * person.volume + 0.15 * person.curl
        end = 2.2 if person.hair_length == "long" else 1.05
        half = [(0.7, -0.95), (1.0 + v, -0.7), (1.08 + v, 0.3), (1.1 + v, end), (0.92, end + 0.08)]
        half += [(0.88, 0.75), (0.93, 0.1), (0.86, -0.45)]
        shapes += [curve(half), curve([(-x, y) for x, y in half])]
    return shapes


def _draw_body(canvas: Image.Image, person: Person, shot: Shot, frame: Frame, skin: Image.Image) -> None:
    neck, wide, deep = 0.56 * person.neck, 1.75 * person.shoulders, 1.95 + 0.5 * shot.neckline
    cloth = [(0, 1.95), (neck * 1.15, 1.86), (wide * 0.75, 2.12), (wide, 2.5), (wide * 1.08, 3.4), (0, 3.6)]
    pen = ImageDraw.Draw(canvas)
    pen.polygon(frame.pixels(both(cloth)), fill=colour(shot.clothes))
    throat = [(0, 0.9), (neck, 0.9), (neck, 1.5), (neck * 1.2, 1.9), (neck * 0.8, (1.9 + deep) / 2), (0, deep)]
    paste(canvas, skin, both(throat), frame)
    edge = [*[(-x, y) for x, y in throat[3:5]], *throat[5:2:-1]]
    pen.line(frame.pixels(curve(edge, closed=False)), fill=colour(shot.clothes * 0.75), width=stroke(frame, 0.05))


def _draw_head(canvas: Image.Image, person: Person, frame: Frame, skin: Image.Image) -> None:
    pen = ImageDraw.Draw(canvas)
    for side in (1, -1):
        ear = [(0.95, -0.2), (1.1, -0.22), (1.12, 0.02), (1.02, 0.3), (0.93, 0.3)]
        pen.polygon(frame.pixels(curve([(side * x, y) for x, y in ear])), fill=colour(person.skin * 0.82))
        if person.earrings:
            x, y = frame.pixels(np.array([[side * 1.03, 0.36]]))
            r = 0.06 * frame.unit
            pen.ellipse([x - r, y - r, x + r, y + r], fill=(228, 196, 110))
    long, jaw, chin = person.length, person.jaw, person.chin
    half = [(0, -1.32 * long), (0.56, -1.2 * long), (0.92, -0.76), (0.99, -0.2), (0.96 * person.cheek, 0.24)]
    half += [(0.82 * jaw + 0.03 * person.sag, 0.76 * long), (0.5 * (jaw + chin) / 2, 1.16 * long)]
    half += [(0.22 * chin, 1.31 * long), (0, 1.33 * long)]
    paste(canvas, skin, both(half), frame)


def _draw_lines(canvas: Image.Image, person: Person, shot: Shot, frame: Frame) -> None:
    """Wrinkles, folds and the nose: soft lines, drawn at half the size."""
    mask = Image.new("L", (canvas.width // 2, canvas.height // 2))
    pen = ImageDraw.Draw(mask)
    lines = [line for line in _lines(person, shot) if line[1] > 0.03]
    curves = [curve(points, closed=False) for points, _, _ in lines]
    placed = frame.pixels(np.vstack(curves), scale=0.5)  # all at once: faster than one by one
    end = 0
    for path, (_, strength, width) in zip(curves, lines, strict=True):
        start, end = end, end + path.size
        pen.line(placed[start:end], fill=int(255 * min(strength, 1)), width=stroke(frame, width / 2))
    paste_soft(canvas, person.skin * [0.5, 0.42, 0.4], mask)


def _lines(person: Person, shot: Shot) -> Iterator[tuple[list, float, float]]:
    """Each line's points, strength (0 … 1) and width."""
    old, nose = person.wrinkles, 0.2 * person.nose
    for row in range(3):
        y = -0.58 - 0.13 * row
        yield [(-0.5, y + 0.02), (-0.2, y - 0.02), (0.2, y - 0.02), (0.5, y + 0.02)], 0.75 * old - 0.1 * row, 0.032
    for side in (-1, 1):
        fold = 0.7 * old + 0.2 * max(shot.smile, 0) + 0.05
        yield [(side * 0.24, 0.44), (side * 0.38, 0.6), (side * 0.44, 0.84)], fold, 0.04
        for lift in (-0.08, 0.0, 0.08):
            yield [(side * 0.72, -0.05 + lift * 0.5), (side * 0.85, -0.05 + lift * 1.6)], 0.75 * old - 0.05, 0.03
        yield [(side * 0.26, 0.12), (side * 0.42, 0.19), (side * 0.6, 0.12)], 0.7 * person.bags, 0.035
        yield [(side * 0.08, -0.3), (side * 0.07, -0.2)], 0.6 * old, 0.03
        yield [(side * nose, 0.33), (side * nose * 1.25, 0.42), (side * nose, 0.5)], 0.4, 0.03
        yield [(side * nose * 0.75, 0.5), (side * nose * 0.4, 0.49)], 0.85, 0.055


def _draw_beard(canvas: Image.Image, person: Person, shot: Shot, frame: Frame, hair: Image.Image) -> None:
    if person.beard == "none":
        return
    mask = Image.new("L", (canvas.width // COARSE, canvas.height // COARSE))
    pen = ImageDraw.Draw(mask)

    def fill(points: np.ndarray, strength: int) -> None:
        pen.polygon(frame.pixels(points, scale=1 / COARSE), fill=strength)

    long, jaw = person.length, person.jaw
    if person.beard in ("full", "stubble"):
        outer = [(0.97, 0.0), (0.9 * jaw, 0.7), (0.55 * jaw, 1.22 * long), (0.2, 1.4 * long), (0, 1.42 * long)]
        inner = [(0, 0.52), (0.35, 0.6), (0.62, 0.52), (0.86, 0.1)]
        ring = [*outer, *[(-x, y) for x, y in outer[-2::-1]], *[(-x, y) for x, y in inner[::-1]], *inner[1:]]
        fill(curve(ring), 235 if person.beard == "full" else 90)
    if person.beard in ("moustache", "goatee"):
        fill(both([(0, 0.54), (0.25, 0.57), (0.4, 0.72), (0.2, 0.66), (0, 0.65)]), 235)
    if person.beard == "goatee":
        fill(both([(0, 0.9), (0.25, 0.92), (0.32, 1.2), (0.14, 1.42 * long), (0, 1.45 * long)]), 235)
    dark = Image.blend(hair, Image.new("RGB", hair.size, colour(person.brow_colour)), 0.75)
    paste_soft(canvas, dark, mask)


def _draw_mouth(canvas: Image.Image, person: Person, shot: Shot, frame: Frame) -> None:
    pen = ImageDraw.Draw(canvas)
    wide, y = 0.37 * person.mouth * (1 + 0.15 * shot.smile), 0.74 * person.length
    up, low, gap = 0.075 * person.lips, 0.12 * person.lips, 0.1 * shot.open
    corner = y - 0.07 * shot.smile
    middle = y + 0.03 * shot.smile
    upper = [(-wide, corner), (-wide * 0.4, middle - up), (-0.04, middle - up * 0.95), (0, middle - up * 0.75)]
    upper = [*upper, (0.04, middle - up * 0.95), (wide * 0.4, middle - up), (wide, corner)]
    lower = [(wide * 0.5, middle + gap + low * 0.85), (0, middle + gap + low), (-wide * 0.5, middle + gap + low * 0.85)]
    pen.polygon(frame.pixels(curve([*upper, *lower]), 0.05), fill=colour(person.lip_colour))
    half = [(wide * 0.4, middle + 0.01), (wide, corner)]
    seam = [*[(-x, y) for x, y in half[::-1]], (0, middle + 0.02), *half]
    if gap > 0.012:
        inside = [*seam[1:-1], (wide * 0.4, middle + gap * 0.8), (0, middle + gap), (-wide * 0.4, middle + gap * 0.8)]
        teeth = np.array([232, 226, 214]) if shot.smile > 0.15 else person.lip_colour * 0.35
        pen.polygon(frame.pixels(curve(inside), 0.05), fill=colour(teeth))
    pen.line(frame.pixels(curve(seam, closed=False), 0.05), colour(person.lip_colour * 0.5), stroke(frame, 0.028))
    shine = [(-wide * 0.25, middle + gap + low * 0.55), (wide * 0.25, middle + gap + low * 0.55)]
    pen.line(frame.pixels(np.array(shine), 0.05), colour(person.lip_colour * 1.18 + 8), stroke(frame, 0.03))


def _draw_eye(canvas: Image.Image, person: Person, shot: Shot, frame: Frame, side: np.ndarray) -> None:
    pen = ImageDraw.Draw(canvas)
    wide, tall = 0.185 * person.eye, 0.085 * person.eye * (1 - 0.25 * max(shot.smile, 0) - 0.15 * person.sag)

    def at(points: list, closed: bool = True) -> list[float]:
        return frame.pixels((curve(points, closed) + EYE) * side)

    lid = [(-wide, 0.03), (-wide * 0.45, -tall * 0.85), (wide * 0.2, -tall), (wide, -0.01)]
    white = [*lid, (wide * 0.35, tall * 0.75), (-wide * 0.4, tall * 0.75)]
    pen.polygon(at(white), fill=colour(np.array([236, 232, 228]) * (0.9 - 0.08 * person.tone)))
    x, y = frame.pixels((EYE * side + np.array([0.07 * shot.gaze, 0]))[None])
    for radius, tint in ((0.088, person.iris), (0.045, person.iris * 0.2)):
        r = radius * frame.unit
        high, low = min(r, tall * frame.unit), min(r, 0.85 * tall * frame.unit)
        pen.ellipse([x - r, y - high, x + r, y + low], colour(tint))
    r = 0.022 * frame.unit
    pen.ellipse([x - 2 * r, y - 2 * r, x, y], (250, 250, 250))
    lash = person.skin * 0.35 * (1 - person.lash) + np.array([24, 16, 14]) * person.lash
    tip = [*lid, (wide * (1.05 + 0.25 * person.lash), -0.06 * person.lash)]
    pen.line(at(tip, closed=False), fill=colour(lash), width=stroke(frame, 0.022 + 0.035 * person.lash))
    crease = [(-wide * 0.9, -tall * 0.9), (0, -tall * 1.9), (wide * 1.05, -tall * 0.9)]
    pen.line(at(crease, closed=False), fill=colour(person.skin * 0.68), width=stroke(frame, 0.02))
    high, thick, arch = -0.27 * person.brow_height, 0.055 * person.brow, 0.06 * person.brow_arch
    brow = [(-0.27, high - 0.01), (0.0, high - arch * 0.8 - thick * 0.5), (0.17, high - arch), (0.33, high + 0.05)]
    brow += [(0.15, high - arch + thick * 1.1), (-0.25, high + thick * 1.4)]
    pen.polygon(at(brow), fill=colour(person.brow_colour))


def _draw_glasses(canvas: Image.Image, person: Person, frame: Frame) -> None:
    pen = ImageDraw.Draw(canvas)
    bold = person.glasses == "bold"
    tint, width = ((34, 28, 28), stroke(frame, 0.06)) if bold else ((120, 112, 104), stroke(frame, 0.03))
    lens = [(0.13, -0.16), (0.4, -0.24), (0.74, -0.17), (0.72, 0.12), (0.42, 0.22), (0.17, 0.12)]
    for side in (1, -1):
        rim = frame.pixels(curve([(side * x, y) for x, y in lens]), 0.1)
        pen.line([*rim, *rim[:4]], tint, width)
        pen.line(frame.pixels(np.array([(side * 0.74, -0.12), (side * 1.0, -0.12)])), tint, width)
    pen.line(frame.pixels(curve([(-0.14, -0.08), (0, -0.12), (0.14, -0.08)], closed=False), 0.2), tint, width)
