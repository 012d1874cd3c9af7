"""Grids of images: the gallery of an evaluation, and images with their Grad-CAM maps.

Tiles are placed pixel for pixel and never resampled, so that they show what the network gets.
"""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
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

from faceattr.data.decode import InputSpec
from faceattr.errors import FaceattrError
from faceattr.models import gradcam
from faceattr.report.charts import DPI, INK, MUTED, STYLE, save

log = logging.getLogger(__name__)

DRAWN = 24
"""Images in the gallery of a split."""
TILE = 128
"""Pixels. Small tiles are enlarged towards it. In a gallery, larger ones are reduced to it, to stay below a megabyte."""
EXPLAINED = 12
"""Most images with a Grad-CAM map in each group."""
SIDE = 160
"""Pixels of the longer side of an image with its map. Larger inputs are reduced to it, small ones enlarged towards it."""
GAP, LINE, LETTER = 20, 21, 10
"""Pixels between tiles, of a line and of a letter of a caption."""


Pixels = Callable[[Iterable[int]], Mapping[int, np.ndarray]]
"""uint8 [H, W, 3] of images by their positions; one that can no longer be read is left out."""


class Tile(NamedTuple):
    """An image, uint8 [H, W, 3], the lines below it, and whether it has a thick frame."""

    pixels: np.ndarray
    caption: str = ""
    framed: bool = False


@matplotlib.rc_context(STYLE)
def grid(rows: Sequence[Sequence[Tile]], path: str | Path, *, title: str, note: str, names: Sequence[str] = ()) -> None:
    """Draws rows of tiles, all of one size. The `names` of the rows are on the left, `note` is below the title.

    Small tiles are enlarged by a whole factor, so that each pixel is a square.
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
    save(figure, path)


def gallery(predictions: pd.DataFrame, pixels: Pixels, spec: InputSpec, path: str | Path, *, title: str) -> None:
    """Draws a random sample of the predictions, the same one at each call.

    `predictions` has path, true, predicted and `probability_<class>`; or path, and `true_<name>` (1, 0, not known) and
    `probability_<name>` of each attribute. An image without `pixels` is a grey tile with its prediction.
    """
    n = len(predictions)
    tiles, positions = [], _draw(np.arange(n), DRAWN).tolist()
    pixels_of = pixels(positions)
    grey = np.full((spec.height, spec.width, 3), 0xBB, np.uint8)
    for position in positions:
        row = predictions.iloc[position]
        caption, wrong = _class_caption(row) if "true" in row else _attributes_caption(row)
        image = Image.fromarray(pixels_of.get(position, grey))
        image.thumbnail((TILE, TILE))
        tiles.append(Tile(np.asarray(image), caption, framed=wrong))
    sample = f"a random sample of {DRAWN} of {n:,}" if n > DRAWN else f"all {n}"
    errors = sum(tile.framed for tile in tiles)
    content = "Predicted class and its probability" if "true" in predictions else "Known attributes predicted correctly"
    note = f"{content}: {len(tiles) - errors} correct (✓), {errors} wrong (✗, framed)"
    grid([tiles[start : start + 6] for start in range(0, len(tiles), 6)], path, title=f"{title}, {sample}", note=note)


def _draw(positions: np.ndarray, count: int) -> np.ndarray:
    return np.sort(np.random.default_rng(0).choice(positions, min(count, len(positions)), replace=False))


def _class_caption(row: pd.Series) -> tuple[str, bool]:
    """The lines below a prediction, and whether it is wrong."""
    wrong = row["predicted"] != row["true"]
    caption = f"{'✗' if wrong else '✓'} {row['predicted']} {row['probability_' + row['predicted']]:.1%}"
    return (f"{caption}\ntrue: {row['true']}" if wrong else caption), wrong


def _attributes_caption(row: pd.Series) -> tuple[str, bool]:
    """The number of correct attributes and the two most certain errors, and whether there are errors."""
    names = [str(name)[5:] for name in row.index if str(name).startswith("true_") and pd.notna(row[name])]
    wrong = [name for name in names if (row[f"probability_{name}"] > 0.5) != (row[f"true_{name}"] > 0.5)]
    wrong.sort(key=lambda name: -abs(row[f"probability_{name}"] - 0.5))
    count = f"{'✗' if wrong else '✓'} {len(names) - len(wrong)} of {len(names)} correct"
    return "\n".join([count, *(f"wrong: {name}" for name in wrong[:2])]), bool(wrong)


class ChosenImage(NamedTuple):
    """An image by its position, and the class or attribute to explain by its column."""

    position: int
    column: int


def choose_images(scores: np.ndarray, truth: np.ndarray) -> dict[str, list[ChosenImage]]:
    """The images to explain, at most `EXPLAINED` in each group, of probabilities [N, K] and the truth (as models.task has it).

    `fixed sample` is random, of the same images for every model on the same split; `wrong and certain` has errors, the most
    certain first; `least certain` has correct and wrong images. An image is explained for the predicted class; of known
    attributes, for the worst error, the least certain one and, in the sample, the most certain one. Attributes are ranked each
    by itself: else the groups would show the hardest one only.
    """
    if truth.ndim == 2:
        eligible, certainty = np.isfinite(truth), np.maximum(scores, 1 - scores)
        wrong = eligible & ((scores > 0.5) != (truth > 0.5))
    else:
        predicted = scores.argmax(1)[:, None]
        eligible, certainty = np.arange(scores.shape[1]) == predicted, scores
        wrong = eligible & (predicted != truth[:, None])
    ranks = {  # the higher, the earlier in the group; by image and column
        "fixed sample": np.where(eligible, certainty, -np.inf),
        "wrong and certain": np.where(wrong, certainty, -np.inf),
        "least certain": np.where(eligible, -certainty, -np.inf),
    }
    groups = {}
    for name, rank in ranks.items():
        if truth.ndim == 2:
            place = rank.argsort(0)[::-1].argsort(
                0
            )  # within the attribute; at equal places the more certain image is first
            rank = np.where(np.isfinite(rank), rank / 2 - place, -np.inf)
        members = np.flatnonzero(np.isfinite(rank).any(1))
        best_first = members[np.argsort(-rank[members].max(1, initial=-np.inf), kind="stable")]
        rows = _draw(members, EXPLAINED) if name == "fixed sample" else best_first[:EXPLAINED]
        groups[name] = [ChosenImage(int(row), int(rank[row].argmax())) for row in rows]
    return groups


class ExplainedImage(NamedTuple):
    """An image as the network gets it, uint8 [h, w, 3], enlarged or reduced to `SIDE`, and with its Grad-CAM map (None for a
    network without maps); the true and the predicted class, its probability, whether it is correct, and the class that the map
    explains.

    For an attribute that is absent, `true` and `predicted` are "not <name>"; the map always explains its presence.
    """

    path: str
    pixels: np.ndarray
    overlay: np.ndarray | None
    true: str
    predicted: str
    probability: float
    correct: bool
    explained: str


def tiles(
    names: Sequence[str],
    scores: np.ndarray,
    truth: np.ndarray,
    paths: Sequence[str],
    pixels_of: Pixels,
    explain: Callable[[torch.Tensor, torch.Tensor], np.ndarray],
) -> dict[str, list[ExplainedImage]]:
    """The groups of `choose_images` with Grad-CAM maps. An image without pixels is left out.

    `names` are the classes, `paths` the images' names. `explain` gives maps [N, H, W] of uint8 images
    [N, 3, H, W] and a class for each [N].
    """
    groups = choose_images(scores, truth)
    distinct = sorted({choice for group in groups.values() for choice in group})
    images_at = pixels_of(sorted({choice.position for choice in distinct}))
    pixels = {choice: images_at[choice.position] for choice in distinct if choice.position in images_at}
    maps: dict[ChosenImage, np.ndarray | None] = dict.fromkeys(pixels)
    try:
        if pixels:
            images = torch.from_numpy(np.stack(list(pixels.values()))).permute(0, 3, 1, 2)
            columns = torch.tensor([choice.column for choice in pixels])
            maps.update(zip(pixels, explain(images, columns), strict=True))
    except FaceattrError as error:
        log.warning("%s", error)

    def explained(choice: ChosenImage) -> ExplainedImage:
        shown, heat = _resized(pixels[choice]), maps[choice]
        overlay = None if heat is None else gradcam.overlay(shown, cv2.resize(heat, shown.shape[1::-1]))
        answers = _answers(names, scores[choice.position], truth[choice.position], choice.column)
        return ExplainedImage(paths[choice.position], shown, overlay, *answers, names[choice.column])

    return {name: [explained(choice) for choice in group if choice in pixels] for name, group in groups.items()}


def _resized(pixels: np.ndarray) -> np.ndarray:
    zoom = max(1, SIDE // max(pixels.shape))
    image = Image.fromarray(pixels.repeat(zoom, 0).repeat(zoom, 1))
    image.thumbnail((SIDE, SIDE))
    return np.asarray(image)


def _answers(names: Sequence[str], scores: np.ndarray, truth: Any, column: int) -> tuple[str, str, float, bool]:
    """The true class, the predicted one, its probability, and whether it is correct."""
    predicted, probability = names[column], float(scores[column])
    if np.ndim(truth) == 0:
        true = names[truth]
    else:
        true = predicted if truth[column] > 0.5 else f"not {predicted}"
        if probability <= 0.5:
            predicted, probability = f"not {predicted}", 1 - probability
    return true, predicted, probability, true == predicted
