"""Which images are copies of one another: the same file, encoded, resized, cropped or mirrored anew.

A perceptual hash of each image (pHash, 256 bits) is compared with those of all others, whole, cropped and mirrored. Aligned
faces of different people are alike to a hash, so what it proposes is laid over the other image by the affine map that fits
best, and is a copy only where the fine detail agrees.
"""

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
from scipy.fft import dct
from tqdm import tqdm

from faceattr.data import array_cache, pixel_cache
from faceattr.data.datamodule import FaceData
from faceattr.data.decode import cores

FORMAT = 1  # of what is kept: raise it with whatever changes what is found
SIDE, LOW = 48, 16
"""Pixels of the grey image that is hashed and compared; and how many of its frequencies each way make the hash."""
CENTRAL = [(side, 0.0, 0.0) for side in (1.0, 0.92, 0.84, 0.76, 0.68)]
OFF_CENTRE = [(0.92, x, y) for x in (-0.025, 0.025) for y in (-0.025, 0.025)]
VIEWS = [*((crop, False) for crop in CENTRAL + OFF_CENTRE), *((crop, True) for crop in CENTRAL[:2])]
"""How another image is looked at: (side, and how far right and down of the middle) of a crop, as shares; mirrored or not."""
SCREEN, ALIKE, NEAREST = 12, 64, 20
"""Images are compared further where at most so many bits differ, of the 64 lowest and of all; each with so many in a view."""
SAME, WHOLE = 0.92, 0.965
"""Copies correlate at least so in fine detail, and as a whole: docs/evaluation.md says what was measured."""

WORDS = LOW * LOW // 64
MIRRORED = np.array([mirrored for _, mirrored in VIEWS])
WAVES = dct(np.eye(SIDE), axis=0)[:LOW]
LOWEST_FIRST = np.argsort(np.maximum(*np.indices((LOW, LOW))).ravel() >= 8, kind="stable")
INSIDE = np.pad(np.ones((SIDE - 4, SIDE - 4), np.uint8), 2)
ROWS, COLUMNS = 32, 8192
"""Hashes that are compared at a time: small enough for a core's cache."""


def find(data: FaceData) -> pd.DataFrame:
    """Pairs of rows of the table, row < other: kind (same file, near-duplicate, mirrored), distance (differing bits of the hash),
    similarity. Of n equal images the first is paired with each of the others, so that 5,000 make 4,999 pairs.

    What was found is kept beside the hashes, for the next run on the same files."""

    def fill(kept: array_cache.RowArray | None) -> dict[str, Any]:
        hashes = _hashes(data)
        for row, own in enumerate(hashes[:, 0] if kept is not None else ()):
            kept[row] = own  # type: ignore[index]
        return {"pairs": _pairs(data, hashes).to_dict("list")}

    n = len(data.table)
    try:
        name, what = f"hashes-{FORMAT}-{pixel_cache.key(data.paths, data.spec)}", f"Hashes and copies of {n} images"
        about = array_cache.get_or_create(name, (n, WORDS), np.uint64, fill, what=what)[1]
    except array_cache.NoRoom:
        about = fill(None)
    return pd.DataFrame(about["pairs"]).astype({"row": int, "other": int, "distance": int, "similarity": float})


def _pairs(data: FaceData, hashes: np.ndarray) -> pd.DataFrame:
    identical, first = _stars(_contents(data.paths, hashes[:, 0]))
    equal, distinct = _stars(hashes[first, 0])
    near = _candidates(hashes[first[distinct]])
    near[:, :2] = first[distinct[near[:, :2]]]
    looked = np.concatenate([np.pad(first[equal], ((0, 0), (0, 2))), near])
    similarity = _similarities(data, looked)
    looked, similarity = looked[similarity >= SAME], similarity[similarity >= SAME]
    pairs = pd.DataFrame(np.sort(looked[:, :2]), columns=["row", "other"]).assign(
        kind=np.where(MIRRORED[looked[:, 2]], "mirrored", "near-duplicate"),
        distance=looked[:, 3],
        similarity=similarity.round(4),
    )
    same = pd.DataFrame(identical, columns=["row", "other"]).assign(kind="same file", distance=0, similarity=1.0)
    pairs = pd.concat([same, pairs.sort_values("similarity", ascending=False, kind="stable")])
    return pairs.drop_duplicates(["row", "other"], ignore_index=True)


def _stars(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of the rows of one key the first with each of the others, int64 [P, 2]; and the first of every key, in order."""
    _, first, of = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    others = np.setdiff1d(np.arange(len(keys)), first)
    return np.stack([first[of.reshape(-1)[others]], others], 1), np.sort(first)


def _contents(files: list[str], hashes: np.ndarray) -> np.ndarray:
    """Equal for files of equal bytes; only files of equal hashes are read."""
    _, of = np.unique(hashes, axis=0, return_inverse=True)
    again = pd.Series(of.reshape(-1)).duplicated(keep=False)
    return np.array(
        [hashlib.sha256(Path(f).read_bytes()).hexdigest() if a else f for f, a in zip(files, again, strict=True)]
    )


def _hashes(data: FaceData) -> np.ndarray:
    """uint64 [N, views, WORDS]."""
    hashes = np.empty((len(data.table), len(VIEWS), WORDS), np.uint64)
    done = 0
    with tqdm(total=len(hashes), desc="Hashing", unit="img", disable=None, leave=False) as progress:
        for images in _thumbnails(data, np.arange(len(hashes))):
            hashes[done : done + len(images)] = _hash(images)
            done += len(images)
            progress.update(len(images))
    return hashes


def _thumbnails(data: FaceData, rows: np.ndarray) -> Iterator[np.ndarray]:
    """Batches of grey images, uint8 [B, SIDE, SIDE]."""
    for batch in data.in_order(rows):
        grey = (cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in batch.inputs.permute(0, 2, 3, 1).numpy())
        yield np.stack([cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA) for image in grey])


def _hash(images: np.ndarray) -> np.ndarray:
    """uint64 [B, views, WORDS] of uint8 [B, SIDE, SIDE]: bit for bit `imagehash.phash(view, LOW, SIDE // LOW)`, with the lowest
    frequencies first. That library takes images one by one, and many times as long."""
    views = np.stack([_laid(image, _place(view)) for image in images for view in range(len(VIEWS))])
    low = WAVES @ views.astype(float) @ WAVES.T
    bits = (low > np.median(low, axis=(1, 2), keepdims=True)).reshape(-1, LOW * LOW)
    return np.packbits(bits.take(LOWEST_FIRST, 1), axis=1).view(np.uint64).reshape(len(images), len(VIEWS), -1)


def _place(view: int) -> np.ndarray:
    """The affine map [2, 3] from a pixel of the view to where in the image it lies."""
    (side, x, y), mirrored = VIEWS[view]
    middle, across = (SIDE - 1) / 2, -side if mirrored else side
    return np.array(
        [[across, 0, middle * (1 - across) + x * SIDE], [0, side, middle * (1 - side) + y * SIDE]], np.float32
    )


def _laid(image: np.ndarray, place: np.ndarray) -> np.ndarray:
    how = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(image, place, (SIDE, SIDE), flags=how, borderMode=cv2.BORDER_REPLICATE)


def _candidates(hashes: np.ndarray) -> np.ndarray:
    """int64 [C, 4] of uint64 [N, views, WORDS]: row, other row, the view of the other that is nearest, differing bits."""
    screens = np.ascontiguousarray(hashes[:, :, 0].T)
    blocks = range(0, len(hashes), ROWS)
    with ThreadPoolExecutor(cores()) as pool:
        near = pool.map(partial(_near, hashes, screens), blocks)
        found = np.concatenate([*tqdm(near, "Comparing hashes", len(blocks), disable=None, leave=False)])
    found = found[np.argsort(found[:, 3], kind="stable")]
    again = pd.DataFrame(np.c_[np.sort(found[:, :2]), MIRRORED[found[:, 2]]]).duplicated()
    return found[~again.to_numpy()]


def _near(hashes: np.ndarray, screens: np.ndarray, start: int) -> np.ndarray:
    """The candidates of `ROWS` images, of each in each view the `NEAREST`."""
    own, found = hashes[start : start + ROWS, 0], []
    for view, screen in enumerate(screens):
        whole = VIEWS[view][0] == CENTRAL[0]  # is as near the other way round: each pair once
        hits = []
        for left in range(start if whole else 0, len(hashes), COLUMNS):
            part = screen[left : left + COLUMNS]
            row, other = np.divmod(np.flatnonzero(np.bitwise_count(own[:, :1] ^ part) <= SCREEN), len(part))
            bits = np.bitwise_count(own[row] ^ hashes[left + other, view]).sum(1, dtype=int)
            row, other = start + row, left + other
            kept = (bits <= ALIKE) & ((other > row) if whole else (other != row))
            hits.append(np.stack([row, other, np.full_like(row, view), bits], 1)[kept])
        hit = np.concatenate(hits)
        hit = hit[np.lexsort((hit[:, 3], hit[:, 0]))]
        found.append(hit[np.arange(len(hit)) - np.searchsorted(hit[:, 0], hit[:, 0]) < NEAREST])
    return np.concatenate(found)


def _similarities(data: FaceData, looked: np.ndarray) -> np.ndarray:
    """float [C] of int64 [C, 4], as `_candidates` has them."""
    rows = np.unique(looked[:, :2])
    images = np.concatenate([np.empty((0, SIDE, SIDE), np.uint8), *_thumbnails(data, rows)])
    one, other = np.searchsorted(rows, looked[:, :2]).T

    def compare(i: int) -> float:
        return _similarity(images[one[i]], images[other[i]], _place(looked[i, 2]))

    with ThreadPoolExecutor(cores()) as pool:
        found = pool.map(compare, range(len(looked)))
        return np.array([*tqdm(found, "Comparing images", len(looked), disable=None, leave=False)])


def _similarity(image: np.ndarray, other: np.ndarray, place: np.ndarray) -> float:
    """How far `image` agrees with `other` in `place`, or laid over it by the affine map that fits best from there on
    (ECC, Evangelidis and Psarakis 2008), if that is better."""
    found = _agreement(image, _laid(other, place), place)
    with suppress(cv2.error):  # finds nothing to hold on to
        place = cv2.findTransformECC(image, other, place.copy(), cv2.MOTION_AFFINE, (3, 15, 1e-4), None, 3)[1]
        found = max(found, _agreement(image, _laid(other, place), place))
    return found


def _agreement(image: np.ndarray, laid: np.ndarray, place: np.ndarray) -> float:
    """The correlation of fine detail, for coarse forms are alike in all faces; 0 where the whole images do not agree."""
    covered = _laid(INSIDE, place) > 0
    a, b = _detail(image)[covered], _detail(laid)[covered]
    if covered.mean() < 0.4 or min(a.std(), b.std()) < 0.5:  # too little in common; or flat, below a grey level
        return 0.0
    return float(np.corrcoef(a, b)[0, 1]) if np.corrcoef(image[covered], laid[covered])[0, 1] >= WHOLE else 0.0


def _detail(image: np.ndarray) -> np.ndarray:
    grey = image.astype(np.float32)
    return grey - cv2.GaussianBlur(grey, (0, 0), SIDE / 24)
