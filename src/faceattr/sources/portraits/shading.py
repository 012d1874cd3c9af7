"""What is soft in a portrait: light on skin and hair, computed on the coarse grid, and the camera's share of it."""

import numpy as np
from PIL import Image, ImageFilter

from faceattr.sources.portraits.canvas import Frame, spots
from faceattr.sources.portraits.people import Person, Shot

FLUSH = [(-0.55, 0.32, 0.28, 0.22, 0.0, 1.0), (0.55, 0.32, 0.28, 0.22, 0.0, 1.0), (0.0, 0.35, 0.2, 0.2, 0.1, 0.5)]


def light_skin(person: Person, shot: Shot, frame: Frame, grid: np.ndarray) -> np.ndarray:
    """The skin's colour at every coarse point: a lit ellipsoid with the soft shadows and flush of a face."""
    x, y = grid[..., 0], grid[..., 1]
    side, above = np.clip(x / 1.1, -0.9, 0.9), np.clip(y / 1.5, -0.85, 0.7)
    front = np.sqrt(np.clip(1 - side**2 - above**2, 0.04, 1))
    lit = side * shot.light[0] + above * shot.light[1] + 0.75 * front
    below_chin = np.clip((y - 1.15 * person.length) * 5, 0, 1) * np.clip(2.2 - y, 0, 1)
    shade = 1 + shot.contrast * (lit - 0.62) - 0.24 * below_chin + spots(_soft_shadows(person, shot), frame)
    flush = spots(FLUSH, frame)
    return person.skin * shade[..., None] + flush[..., None] * np.array([10.0, -8.0, -6.0], np.float32)


def _soft_shadows(person: Person, shot: Shot) -> list:
    """Rows of x, y, width, height, lift, strength: darker (negative) and lighter spots of a face."""
    under, sag, lit = -0.16 * (0.25 + 0.75 * person.bags), -0.26 * person.sag, 0.12 * np.sign(shot.light[0])
    paired = [
        (0.42, -0.14, 0.26, 0.13, 0.0, -0.18),  # eye sockets
        (0.42, 0.13, 0.2, 0.07, 0.0, under),
        (0.56, 0.22, 0.2, 0.16, 0.0, 0.07),  # cheekbones
        (0.62, 0.85, 0.13, 0.2, 0.0, sag),
    ]
    return [
        *paired,
        *[(-x, *rest) for x, *rest in paired],
        (0, 0.5, 0.22 * person.nose, 0.07, 0.15, -0.2),
        (-0.17, 0.2, 0.09, 0.3, 0.0, -lit),
        (0.17, 0.2, 0.09, 0.3, 0.0, lit),
        (0, 0.3, 0.1 * person.nose, 0.16, 0.2, 0.16),
        (0, 0.02, 0.06, 0.3, 0.1, 0.08),
        (0, 1.0, 0.22, 0.06, 0.0, -0.12),
    ]


def light_hair(person: Person, grid: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The hair's colour at every coarse point: strands that run from the crown, or curls."""
    x, y = grid[..., 0], grid[..., 1]
    around = np.arctan2(x, np.maximum(y, -1.25) + 1.6 + 0.0 * x) * (1 + 0.1 * person.parting)
    strands = np.interp(around, np.linspace(-3.2, 3.2, 140), rng.normal(0, 1, 140))
    curls = rng.normal(0, 1, x.shape)
    shine = np.exp(-(((np.hypot(x, y * 0.9) - 1.12) / 0.16) ** 2)) * (y < 0)
    shade = 0.95 + 0.13 * ((1 - person.curl) * strands + person.curl * curls) + 0.3 * shine * (1 - 0.7 * person.curl)
    shade -= 0.16 * np.clip(y - 0.3, 0, 1)
    return person.hair * shade[..., None] + 10 * shade[..., None]


def develop(picture: Image.Image, shot: Shot, rng: np.random.Generator) -> Image.Image:
    """Blur, light from one side, exposure, colour of the light, sensor noise."""
    if shot.blur > 0.15:
        picture = picture.filter(ImageFilter.GaussianBlur(shot.blur * picture.width / 128))
    across = 1 + 0.2 * shot.contrast * shot.light[0] * np.linspace(-1, 1, picture.width)
    down = shot.exposure * (1 + 0.15 * shot.contrast * shot.light[1] * np.linspace(-1, 1, picture.height))
    tint = np.array([1 + shot.warmth, 1, 1 - shot.warmth])
    light = np.outer(down, np.outer(across, tint)).astype(np.float32)
    pixels = np.asarray(picture).reshape(light.shape).astype(np.float32)
    pixels *= light
    grain = rng.integers(-128, 128, light.shape, np.int8).astype(np.float32)
    pixels += grain * np.float32(shot.noise / 74)  # 74: the grain's own deviation
    developed = np.clip(pixels, 0, 255, out=pixels).astype(np.uint8)
    return Image.fromarray(developed.reshape(picture.height, picture.width, 3))
