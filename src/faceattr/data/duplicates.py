"""Copies among images: the same file, or the same photograph re-encoded, resized, cropped or mirrored.

Perceptual hashes propose candidate pairs. Hashes of aligned faces of different people can be close too. So the two images of a
candidate are aligned by the best affine transform, and are copies only if their fine detail correlates.
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

from faceattr.data import disk_cache, pixel_cache
from faceattr.data.array_file import RowArray
from faceattr.data.datamodule import FaceData
from faceattr.data.parallel import cores, processes_pay, run_tasks
from faceattr.data.perceptual_hash import (
    CENTRAL,
    MIRRORED,
    SIDE,
    VIEWS,
    WORDS,
    candidates,
    perceptual_hashes,
    view_transform,
    warp,
)
from faceattr.message_text import counted
from faceattr.progress import Progress, tracked

FORMAT = 2  # of the cached hashes and pairs: increase it with every change that changes them
MIN_DETAIL_CORRELATION, MIN_CORRELATION = 0.92, 0.965
"""The least correlation of copies, in fine detail and as whole images. docs/evaluation.md has the measurements."""
INSIDE = np.pad(np.ones((SIDE - 4, SIDE - 4), np.uint8), 2)
"""Mask without the border of 2 pixels, which interpolation changes."""


def find(data: FaceData) -> tuple[pd.DataFrame, np.ndarray]:
    """Pairs of copies: row < other (rows of the table), kind (same file, near-duplicate, mirrored), distance (differing
    bits of the hash), similarity. And hashes of all images, uint64 [N, len(CENTRAL), WORDS]: of the whole image first, then of its
    central crops.

    Of n equal images the first is paired with each of the others: n - 1 pairs. Pairs and hashes are cached for the next run on
    the same files.
    """
    n, shape = len(data.table), (len(CENTRAL), WORDS)
    computed: list[np.ndarray] = []

    def compute(rows: RowArray | None) -> dict[str, Any]:
        hashes = compute_hashes(data)
        computed.append(hashes[:, : len(CENTRAL)])
        if rows is not None:
            for row, words in enumerate(computed[0].reshape(n, -1)):
                rows[row] = words
        return {"pairs": _find_pairs(data, hashes).to_dict("list")}

    name = f"hashes-{FORMAT}-{pixel_cache.key(data.paths, data.spec)}"
    try:
        rows, metadata = disk_cache.get_or_create(
            name, (n, shape[0] * shape[1]), np.uint64, compute, title=f"Hashes and copies of {counted(n, 'image')}"
        )
        computed.append(rows[np.arange(n)].reshape(n, *shape))
    except disk_cache.NoRoom:
        metadata = compute(None)
    pairs = pd.DataFrame(metadata["pairs"]).astype({"row": int, "other": int, "distance": int, "similarity": float})
    return pairs, computed[0]


def compute_hashes(data: FaceData) -> np.ndarray:
    """uint64 [N, views, WORDS] of all images of the table."""
    n, hashes = len(data.table), [np.empty((0, len(VIEWS), WORDS), np.uint64)]
    tasks = (partial(perceptual_hashes, images) for images in thumbnails(data, np.arange(n)))
    with Progress("Hashing", n) as progress:
        workers = data.settings.workers
        for block in run_tasks(tasks, workers=workers, processes=processes_pay(n, workers)):
            hashes.append(block)
            progress.update(len(block))
    return np.concatenate(hashes)


def thumbnails(data: FaceData, rows: np.ndarray) -> Iterator[np.ndarray]:
    """Batches of grey images, uint8 [B, SIDE, SIDE], of these rows of the table."""
    for batch in data.pixel_batches(rows):
        grey = (cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in batch.inputs.permute(0, 2, 3, 1).numpy())
        yield np.stack([cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA) for image in grey])


def similarities(data: FaceData, pairs: np.ndarray) -> np.ndarray:
    """The similarity, float [C], of candidates, int64 [C, 4] as from `perceptual_hash.candidates`."""
    rows = np.unique(pairs[:, :2])
    images = np.concatenate([np.empty((0, SIDE, SIDE), np.uint8), *thumbnails(data, rows)])
    first, second = np.searchsorted(rows, pairs[:, :2]).T

    def compare(i: int) -> float:
        return _similarity(images[first[i]], images[second[i]], view_transform(pairs[i, 2]))

    with ThreadPoolExecutor(cores()) as pool:
        results = pool.map(compare, range(len(pairs)))
        return np.array([*tracked(results, "Comparing images", len(pairs), unit="pair")])


def _find_pairs(data: FaceData, hashes: np.ndarray) -> pd.DataFrame:
    """Pairs of equal files, of equal hashes, and of candidates that prove to be copies; of equal ones only the first is compared
    further."""
    same_file, files = _pair_with_first(_file_digests(data.paths, hashes[:, 0]))
    same_hash, distinct = _pair_with_first(hashes[files, 0])
    near = candidates(hashes[files[distinct]])
    near[:, :2] = files[distinct[near[:, :2]]]
    compared = np.concatenate([np.pad(files[same_hash], ((0, 0), (0, 2))), near])
    similarity = similarities(data, compared)
    is_copy = similarity >= MIN_DETAIL_CORRELATION
    compared, similarity = compared[is_copy], similarity[is_copy]
    copies = pd.DataFrame(np.sort(compared[:, :2]), columns=["row", "other"]).assign(
        kind=np.where(MIRRORED[compared[:, 2]], "mirrored", "near-duplicate"),
        distance=compared[:, 3],
        similarity=similarity.round(4),
    )
    same = pd.DataFrame(same_file, columns=["row", "other"]).assign(kind="same file", distance=0, similarity=1.0)
    pairs = pd.concat([same, copies.sort_values("similarity", ascending=False, kind="stable")])
    return pairs.drop_duplicates(["row", "other"], ignore_index=True)


def _pair_with_first(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows of equal keys, the first with each of the others, int64 [P, 2]; and the first row of each key, sorted."""
    _, first, inverse = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    others = np.setdiff1d(np.arange(len(keys)), first)
    return np.stack([first[inverse.reshape(-1)[others]], others], 1), np.sort(first)


def _file_digests(paths: list[str], hashes: np.ndarray) -> np.ndarray:
    """A text for each file, equal for files of equal bytes. Only files with equal hashes are read."""
    _, inverse = np.unique(hashes, axis=0, return_inverse=True)
    shared = pd.Series(inverse.reshape(-1)).duplicated(keep=False)
    return np.array(
        [
            hashlib.sha256(Path(path).read_bytes()).hexdigest() if read else path
            for path, read in zip(paths, shared, strict=True)
        ]
    )


def _similarity(image: np.ndarray, other: np.ndarray, transform: np.ndarray) -> float:
    """The correlation of `image` with `other`, warped by `transform` or, if better, by the best affine transform near it.

    That transform comes from ECC maximisation (Evangelidis and Psarakis 2008).
    """
    similarity = _correlation(image, warp(other, transform), transform)
    with suppress(cv2.error):  # ECC does not converge, such as on images without detail
        transform = cv2.findTransformECC(image, other, transform.copy(), cv2.MOTION_AFFINE, (3, 15, 1e-4), None, 3)[1]
        similarity = max(similarity, _correlation(image, warp(other, transform), transform))
    return similarity


def _correlation(image: np.ndarray, warped: np.ndarray, transform: np.ndarray) -> float:
    """The correlation of fine detail, because coarse structure is similar in all faces.

    0 if the whole images do not correlate, if they overlap too little, or if one has no detail (below a grey level).
    """
    overlap = warp(INSIDE, transform) > 0
    a, b = _detail(image)[overlap], _detail(warped)[overlap]
    if overlap.mean() < 0.4 or min(a.std(), b.std()) < 0.5:
        return 0.0
    alike = np.corrcoef(image[overlap], warped[overlap])[0, 1] >= MIN_CORRELATION
    return float(np.corrcoef(a, b)[0, 1]) if alike else 0.0


def _detail(image: np.ndarray) -> np.ndarray:
    """The image without its coarse structure: minus its Gaussian blur."""
    grey = image.astype(np.float32)
    return grey - cv2.GaussianBlur(grey, (0, 0), SIDE / 24)
