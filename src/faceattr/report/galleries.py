"""Pictures made of images: a grid of tiles, and the gallery of an evaluation.

Tiles come into the picture pixel for pixel, never resampled by the drawing: what is seen is what was given.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.transforms import IdentityTransform
from PIL import Image

from faceattr.images import InputSpec, UnreadableImage, read
from faceattr.report.plots import INK, MUTED, STYLE

log = logging.getLogger(__name__)

DRAWN = 24
"""So many images of a split are in its gallery."""
TILE = 128
"""Pixels: small tiles are enlarged towards it; in a gallery, larger ones are reduced to it (to stay below a megabyte)."""
DPI, GAP, LINE, LETTER = 150, 20, 21, 10
"""The rest in pixels: between tiles, and what a line and a letter of a caption take."""


class Tile(NamedTuple):
    """uint8 [H, W, 3], the lines below it, and whether a thick frame sets it apart."""

    pixels: np.ndarray
    caption: str = ""
    framed: bool = False


@matplotlib.rc_context(STYLE | {"figure.constrained_layout.use": False})
def grid(rows: Sequence[Sequence[Tile]], path: str | Path, *, title: str, note: str, names: Sequence[str] = ()) -> None:
    """Draws rows of tiles, all of one size, with the `names` of the rows at their left and `note` below the title.

    Small tiles are enlarged by a whole factor: each of their pixels is a square.
    """
    captions = [tile.caption.split("\n") for row in rows for tile in row if tile.caption]
    zoom = max(1, TILE // max(rows[0][0].pixels.shape))
    tile_height, tile_width = (zoom * side for side in rows[0][0].pixels.shape[:2])
    left = GAP + LETTER * max(map(len, names), default=0) + (GAP if names else 0)
    across = GAP + max([tile_width, *(LETTER * len(line) for lines in captions for line in lines)])
    down = GAP + tile_height + LINE * max(map(len, captions), default=0)
    width = max(left + across * max(map(len, rows)), 15 * len(title), 11 * len(note)) + GAP
    height = 5 * LINE + down * len(rows)
    figure = Figure(figsize=(width / DPI, height / DPI))

    def text(x: float, y: float, content: str, size: float, colour: str = INK, **more: Any) -> None:
        style: Any = {"va": "top", "fontsize": size, "color": colour, "transform": IdentityTransform()} | more
        figure.text(x, height - y, content, **style)

    text(GAP, GAP, title, 11, fontweight="bold")
    text(GAP, GAP + 2 * LINE, note, 9, MUTED)
    for i, row in enumerate(rows):
        y = 5 * LINE + i * down
        if names:
            text(GAP, y + tile_height / 2, names[i], 8, va="center")
        for j, tile in enumerate(row):
            x = left + j * across
            figure.figimage(tile.pixels.repeat(zoom, 0).repeat(zoom, 1), x, height - y - tile_height)
            text(x, y + tile_height + 8, tile.caption, 8)
            if tile.framed:
                corner, sides = (x - 6, height - y - tile_height - 6), (tile_width + 12, tile_height + 12)
                behind: Any = {"transform": IdentityTransform(), "color": INK, "linewidth": 0, "zorder": -1}
                figure.add_artist(Rectangle(corner, *sides, **behind))
    figure.savefig(path, dpi=DPI)


def gallery(predictions: pd.DataFrame, files: Sequence[str], spec: InputSpec, path: str | Path, *, title: str) -> None:
    """Draws a random draw of the predictions (the same one at each call), as they come: nothing is picked out.

    `predictions` has path, true, predicted and `probability_<class>`; `files` says where each image lies. One that can
    no longer be read is a grey tile: what was predicted of it stands.
    """
    n = len(predictions)
    drawn = np.sort(np.random.default_rng(0).choice(n, min(DRAWN, n), replace=False))
    tiles = []
    for position in drawn:
        of = predictions.iloc[position]
        missed = of["predicted"] != of["true"]
        caption = f"{'✗' if missed else '✓'} {of['predicted']} {of['probability_' + of['predicted']]:.1%}"
        try:
            image = Image.fromarray(read(files[position], spec))
        except UnreadableImage as error:
            log.warning("%s: %s cannot be read: %s", Path(path).name, of["path"], error)
            image = Image.new("RGB", (spec.width, spec.height), "#bbbbbb")
        image.thumbnail((TILE, TILE))
        tiles.append(Tile(np.asarray(image), f"{caption}\ntrue: {of['true']}" if missed else caption, framed=missed))
    which = f"a random draw of {DRAWN} of {n:,}" if n > DRAWN else f"all {n}"
    wrong = sum(tile.framed for tile in tiles)
    note = f"Predicted class and its probability: {len(tiles) - wrong} right (✓), {wrong} wrong (✗, framed)"
    grid([tiles[start : start + 6] for start in range(0, len(tiles), 6)], path, title=f"{title}, {which}", note=note)
