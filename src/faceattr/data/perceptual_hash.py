"""Perceptual hashes (pHash, 256 bits) of images in several views, and the pairs of images whose hashes are close.

A view is a crop of an image, possibly mirrored. A cropped or mirrored copy is close to one of the views of its original.
"""

from concurrent.futures import ThreadPoolExecutor
from functools import partial

import cv2
import numpy as np
import pandas as pd
from scipy.fft import dct

from faceattr.data.parallel import cores
from faceattr.progress import tracked

SIDE, LOW = 48, 16
"""Side of the grey image that is hashed, in pixels; number of its frequencies in each direction that make the hash."""
CENTRAL = [(side, 0.0, 0.0) for side in (1.0, 0.92, 0.84, 0.76, 0.68)]
OFF_CENTRE = [(0.92, x, y) for x in (-0.025, 0.025) for y in (-0.025, 0.025)]
VIEWS = [*((crop, False) for crop in CENTRAL + OFF_CENTRE), *((crop, True) for crop in CENTRAL[:2])]
"""(crop, mirrored). A crop is its side, and its offset from the centre to the right and down, as shares of the image."""
MIRRORED = np.array([mirrored for _, mirrored in VIEWS])

MAX_LOW_DISTANCE, MAX_DISTANCE, NEAREST = 12, 64, 20
"""Candidates differ in at most so many of the 64 lowest bits, and of all bits; at most so many per image and view."""

WORDS = LOW * LOW // 64
DCT = dct(np.eye(SIDE), axis=0)[:LOW]
LOWEST_FIRST = np.argsort(np.maximum(*np.indices((LOW, LOW))).ravel() >= 8, kind="stable")
BLOCK_ROWS, BLOCK_COLUMNS = 32, 8192
"""Hashes that are compared at once: few enough for the cache of a CPU core."""


def perceptual_hashes(images: np.ndarray) -> np.ndarray:
    """uint64 [B, views, WORDS] of grey images, uint8 [B, SIDE, SIDE]; the bits of the lowest frequencies come first.

    The bits equal those of `imagehash.phash(view, LOW, SIDE // LOW)`, which takes one image at a time and is much slower.
    """
    views = np.stack([warp(image, view_transform(view)) for image in images for view in range(len(VIEWS))])
    frequencies = DCT @ views.astype(float) @ DCT.T
    bits = (frequencies > np.median(frequencies, axis=(1, 2), keepdims=True)).reshape(-1, LOW * LOW)
    return np.packbits(bits.take(LOWEST_FIRST, 1), axis=1).view(np.uint64).reshape(len(images), len(VIEWS), -1)


def view_transform(view: int) -> np.ndarray:
    """The affine transform, float32 [2, 3], from the pixels of a view to those of the image."""
    (side, x, y), mirrored = VIEWS[view]
    centre, scale_x = (SIDE - 1) / 2, -side if mirrored else side
    return np.array(
        [[scale_x, 0, centre * (1 - scale_x) + x * SIDE], [0, side, centre * (1 - side) + y * SIDE]], np.float32
    )


def warp(image: np.ndarray, transform: np.ndarray) -> np.ndarray:
    """The image at the positions to which `transform` [2, 3] maps the pixels [SIDE, SIDE]."""
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(image, transform, (SIDE, SIDE), flags=flags, borderMode=cv2.BORDER_REPLICATE)


def candidates(hashes: np.ndarray) -> np.ndarray:
    """Pairs with close hashes, int64 [C, 4]: row, other row, nearest view of the other, differing bits. The nearest first.

    `hashes` are uint64 [N, views, WORDS]. The whole image of a row is compared with each view of the others.
    """
    low_words = np.ascontiguousarray(hashes[:, :, 0].T)
    blocks = range(0, len(hashes), BLOCK_ROWS)
    with ThreadPoolExecutor(cores()) as pool:
        results = pool.map(partial(_block_candidates, hashes, low_words), blocks)
        pairs = np.concatenate([*tracked(results, "Comparing hashes", len(blocks), unit="block")])
    pairs = pairs[np.argsort(pairs[:, 3], kind="stable")]
    repeated = pd.DataFrame(np.c_[np.sort(pairs[:, :2]), MIRRORED[pairs[:, 2]]]).duplicated()
    return pairs[~repeated.to_numpy()]


def _block_candidates(hashes: np.ndarray, low_words: np.ndarray, start: int) -> np.ndarray:
    """The candidates of `BLOCK_ROWS` rows from `start` on: for each row and view the `NEAREST`. `low_words` is [views, N]."""
    pairs = []
    for view in range(len(low_words)):
        near = _near_in_view(hashes, low_words[view], start, view)
        near = near[np.lexsort((near[:, 3], near[:, 0]))]
        rank = np.arange(len(near)) - np.searchsorted(near[:, 0], near[:, 0])
        pairs.append(near[rank < NEAREST])
    return np.concatenate(pairs)


def _near_in_view(hashes: np.ndarray, low_words: np.ndarray, start: int, view: int) -> np.ndarray:
    """All pairs of a block of rows with close hashes in one view. The lowest 64 bits exclude most pairs quickly."""
    block_hashes = hashes[start : start + BLOCK_ROWS, 0]
    symmetric = VIEWS[view][0] == CENTRAL[0]  # the distance is the same in both directions: each pair once
    pairs = []
    for column in range(start if symmetric else 0, len(hashes), BLOCK_COLUMNS):
        block = low_words[column : column + BLOCK_COLUMNS]
        close = np.bitwise_count(block_hashes[:, :1] ^ block) <= MAX_LOW_DISTANCE
        row, other = np.divmod(np.flatnonzero(close), len(block))
        distance = np.bitwise_count(block_hashes[row] ^ hashes[column + other, view]).sum(1, dtype=int)
        row, other = start + row, column + other
        selected = (distance <= MAX_DISTANCE) & ((other > row) if symmetric else (other != row))
        pairs.append(np.stack([row, other, np.full_like(row, view), distance], 1)[selected])
    return np.concatenate(pairs)
