"""Pictures made of images: a grid of tiles, the gallery of an evaluation, and images with what the model looks at.

Tiles come into the picture pixel for pixel, never resampled by the drawing: what is seen is what was given.
"""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import matplotlib
import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.transforms import IdentityTransform
from PIL import Image

from faceattr.data.decode import InputSpec, UnreadableImage, read
from faceattr.errors import FaceattrError
from faceattr.models import gradcam
from faceattr.report.charts import INK, MUTED, STYLE

log = logging.getLogger(__name__)

DRAWN = 24
"""So many images of a split are in its gallery."""
TILE = 128
"""Pixels: small tiles are enlarged towards it; in a gallery, larger ones are reduced to it (to stay below a megabyte)."""
EXPLAINED = 12
"""So many images, at most, of each group are explained."""
SIDE = 160
"""Pixels of the longer side of an image with its overlay: larger inputs are reduced to it, small ones enlarged towards it."""
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

    `predictions` has path, true, predicted and `probability_<class>`; or path, and `true_<name>` (1, 0, not known) and
    `probability_<name>` of each attribute. `files` says where each image lies. One that can no longer be read is a grey
    tile: what was predicted of it stands.
    """
    n = len(predictions)
    tiles = []
    for position in _draw(np.arange(n), DRAWN):
        of = predictions.iloc[position]
        caption, missed = _told(of) if "true" in of else _told_attributes(of)
        pixels = _read(files[position], spec, f"{Path(path).name}: {of['path']}")
        image = Image.new("RGB", (spec.width, spec.height), "#bbbbbb") if pixels is None else Image.fromarray(pixels)
        image.thumbnail((TILE, TILE))
        tiles.append(Tile(np.asarray(image), caption, framed=missed))
    which = f"a random draw of {DRAWN} of {n:,}" if n > DRAWN else f"all {n}"
    wrong = sum(tile.framed for tile in tiles)
    what = "Predicted class and its probability" if "true" in predictions else "Known attributes told right"
    note = f"{what}: {len(tiles) - wrong} right (✓), {wrong} wrong (✗, framed)"
    grid([tiles[start : start + 6] for start in range(0, len(tiles), 6)], path, title=f"{title}, {which}", note=note)


def _draw(positions: np.ndarray, count: int) -> np.ndarray:
    return np.sort(np.random.default_rng(0).choice(positions, min(count, len(positions)), replace=False))


def _read(file: str, spec: InputSpec, name: str) -> np.ndarray | None:
    try:
        return read(file, spec)
    except UnreadableImage as error:
        log.warning("%s cannot be read: %s", name, error)
        return None


def _told(of: pd.Series) -> tuple[str, bool]:
    missed = of["predicted"] != of["true"]
    caption = f"{'✗' if missed else '✓'} {of['predicted']} {of['probability_' + of['predicted']]:.1%}"
    return (f"{caption}\ntrue: {of['true']}" if missed else caption), missed


def _told_attributes(of: pd.Series) -> tuple[str, bool]:
    """How many are right, and the two that are wrong with most certainty."""
    names = [str(name)[5:] for name in of.index if str(name).startswith("true_") and pd.notna(of[name])]
    wrong = [name for name in names if (of[f"probability_{name}"] > 0.5) != (of[f"true_{name}"] > 0.5)]
    wrong.sort(key=lambda name: -abs(of[f"probability_{name}"] - 0.5))
    right = f"{'✗' if wrong else '✓'} {len(names) - len(wrong)} of {len(names)} right"
    return "\n".join([right, *(f"wrong: {name}" for name in wrong[:2])]), bool(wrong)


class Chosen(NamedTuple):
    """An image by its position, and what it is to be explained for: a class or an attribute by its column."""

    position: int
    column: int


def chosen(scores: np.ndarray, truth: np.ndarray) -> dict[str, list[Chosen]]:
    """The images to explain, at most `EXPLAINED` in each group, of probabilities [N, K] and the truth (`targets.Task`).

    `fixed sample` is a random draw, of the same images for every model on the same split; `wrong and certain` has errors,
    the most certain first; `least certain` is right or wrong. An image is explained for the class predicted; of known
    attributes, for the worst error, the least certain one and, in the sample, the most certain one. There images are ranked
    within each attribute: else the groups would show the one attribute that is hardest.
    """
    if truth.ndim == 2:
        answered, certainty = np.isfinite(truth), np.maximum(scores, 1 - scores)
        missed = answered & ((scores > 0.5) != (truth > 0.5))
    else:
        predicted = scores.argmax(1)[:, None]
        answered, certainty = np.arange(scores.shape[1]) == predicted, scores
        missed = answered & (predicted != truth[:, None])
    ranks = {  # by what an image is in a group, and for which column
        "fixed sample": np.where(answered, certainty, -np.inf),
        "wrong and certain": np.where(missed, certainty, -np.inf),
        "least certain": np.where(answered, -certainty, -np.inf),
    }
    found = {}
    for name, rank in ranks.items():
        if truth.ndim == 2:
            order = rank.argsort(0)[::-1].argsort(
                0
            )  # the place within the attribute; at equal ones the more certain is first
            rank = np.where(np.isfinite(rank), rank / 2 - order, -np.inf)
        of_group = np.flatnonzero(np.isfinite(rank).any(1))
        best_first = of_group[np.argsort(-rank[of_group].max(1, initial=-np.inf), kind="stable")]
        rows = _draw(of_group, EXPLAINED) if name == "fixed sample" else best_first[:EXPLAINED]
        found[name] = [Chosen(int(row), int(rank[row].argmax())) for row in rows]
    return found


class Explained(NamedTuple):
    """An image as the network sees it, uint8 [h, w, 3] enlarged or reduced to `SIDE`, and with its heatmap (None for a network
    without maps); what is true, what was predicted with which probability, and the class or attribute that the map speaks for.

    Where an attribute is not there, `true` and `predicted` say "not <name>"; the map is of what speaks for it all the same.
    """

    path: str
    pixels: np.ndarray
    overlay: np.ndarray | None
    true: str
    predicted: str
    probability: float
    right: bool
    explained: str


def tiles(
    names: Sequence[str],
    scores: np.ndarray,
    truth: np.ndarray,
    paths: Sequence[str],
    files: Sequence[str],
    spec: InputSpec,
    explain: Callable[[torch.Tensor, torch.Tensor], np.ndarray],
) -> dict[str, list[Explained]]:
    """The groups of `chosen`, explained by Grad-CAM. `paths` names the images, `files` says where each lies; one that can no
    longer be read is left out. `names` are the classes; `explain` gives heatmaps [N, H, W] for uint8 images [N, 3, H, W] and a
    class of each [N]."""
    groups = chosen(scores, truth)
    wanted = sorted({choice for group in groups.values() for choice in group})
    pixels = {c: image for c in wanted if (image := _read(files[c.position], spec, paths[c.position])) is not None}
    heat: dict[Chosen, np.ndarray | None] = dict.fromkeys(pixels)
    try:
        if pixels:
            images = torch.from_numpy(np.stack(list(pixels.values()))).permute(0, 3, 1, 2)
            found = explain(images, torch.tensor([choice.column for choice in pixels]))
            heat.update(zip(pixels, found, strict=True))
    except FaceattrError as error:
        log.warning("%s", error)

    def explained(choice: Chosen) -> Explained:
        shown, warm = _sized(pixels[choice]), heat[choice]
        over = None if warm is None else gradcam.overlay(shown, cv2.resize(warm, shown.shape[1::-1]))
        answers = _answers(names, scores[choice.position], truth[choice.position], choice.column)
        return Explained(paths[choice.position], shown, over, *answers, names[choice.column])

    return {name: [explained(choice) for choice in group if choice in pixels] for name, group in groups.items()}


def _sized(pixels: np.ndarray) -> np.ndarray:
    zoom = max(1, SIDE // max(pixels.shape))
    image = Image.fromarray(pixels.repeat(zoom, 0).repeat(zoom, 1))
    image.thumbnail((SIDE, SIDE))
    return np.asarray(image)


def _answers(names: Sequence[str], scores: np.ndarray, truth: Any, column: int) -> tuple[str, str, float, bool]:
    """What is true, what was predicted with which probability, and whether it is right."""
    predicted, probability, true = names[column], float(scores[column]), names[column if np.ndim(truth) else truth]
    if np.ndim(truth):
        true = true if truth[column] > 0.5 else f"not {true}"
        predicted, probability = (
            (predicted, probability) if probability > 0.5 else (f"not {predicted}", 1 - probability)
        )
    return true, predicted, probability, true == predicted
