"""Where an image lies in a picture made of images, to the pixel."""

from pathlib import Path

import numpy as np
from PIL import Image


def places(picture: Path, pixels: np.ndarray) -> list[tuple[int, int]]:
    """(row, column) of the upper left corner of each exact copy of `pixels`, enlarged as the grid enlarges small tiles."""
    zoom = max(1, 128 // max(pixels.shape))
    tile = pixels.repeat(zoom, 0).repeat(zoom, 1)
    height, width = tile.shape[:2]
    with Image.open(picture) as image:
        drawn = np.asarray(image.convert("RGB"))
    corners = drawn[: drawn.shape[0] - height + 1, : drawn.shape[1] - width + 1]
    fits = np.argwhere((corners == tile[0, 0]).all(-1))
    fits = fits[(drawn[fits[:, 0] + height - 1, fits[:, 1] + width - 1] == tile[-1, -1]).all(-1)]
    return [(y, x) for y, x in fits.tolist() if (drawn[y : y + height, x : x + width] == tile).all()]
