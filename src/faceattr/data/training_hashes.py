"""Has a model seen these images? A run stores the hashes of its training images beside its checkpoints.

So an evaluation on other data can count the copies of training images without having the training images. Hashes alone decide,
so they must be closer than in `duplicates`, which also compares the images: re-encoded, resized, brighter, grey and mirrored
copies are found, crops only near the views that are hashed (docs/evaluation.md).
"""

from pathlib import Path

import numpy as np

from faceattr.data import duplicates
from faceattr.data.datamodule import FaceData
from faceattr.data.perceptual_hash import CENTRAL, WORDS
from faceattr.errors import FaceattrError
from faceattr.files import write_array
from faceattr.progress import tracked

FILE = "training_hashes.npy"
"""Beside the checkpoints: uint64 [training images, len(CENTRAL), WORDS], 160 bytes an image."""
MAX_BITS = 32
"""A copy differs from its training image in at most so many of 256 bits."""
BLOCK = 256
"""Images that are compared with all training images at once."""


def write(hashes: np.ndarray, checkpoints: Path) -> None:
    """Writes the `hashes` of the training images into the folder of a run's checkpoints."""
    checkpoints.mkdir(parents=True, exist_ok=True)
    write_array(checkpoints / FILE, hashes)


def read(ckpt: Path) -> np.ndarray | None:
    """The hashes beside a checkpoint; None where there are none. Raises FaceattrError: a damaged file."""
    file = ckpt.with_name(FILE)
    if not file.is_file():
        return None
    try:
        hashes = np.load(file, allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise FaceattrError(f"{file} cannot be read: {error}. Remove it to evaluate without it.") from error
    if hashes.dtype != np.uint64 or hashes.shape[1:] != (len(CENTRAL), WORDS):
        raise FaceattrError(f"{file} holds no hashes of training images. Remove it to evaluate without it.")
    return hashes


def copies(data: FaceData, training: np.ndarray) -> np.ndarray:
    """Which images of the table, bool [N], are copies of images whose hashes are `training`.

    The whole image is compared with the views of the training images, and its views with the whole training images.
    """
    hashes = duplicates.compute_hashes(data)
    seen = np.zeros(len(hashes), bool)
    starts = range(0, len(hashes), BLOCK)
    for start in tracked(starts, "Looking for training images", len(starts), unit="block"):
        block = hashes[start : start + BLOCK]
        near = [_near(block[:, 0], training[:, view]) for view in range(training.shape[1])]
        near += [_near(block[:, view], training[:, 0]) for view in range(1, block.shape[1])]
        seen[start : start + BLOCK] = np.any(near, axis=0)
    return seen


def _near(hashes: np.ndarray, training: np.ndarray) -> np.ndarray:
    """Whether each of `hashes` [B, WORDS] is near one of `training` [T, WORDS]. The lowest 64 bits exclude most pairs."""
    row, other = np.nonzero(np.bitwise_count(hashes[:, :1] ^ training[:, 0]) <= MAX_BITS // 2)
    close = np.bitwise_count(hashes[row] ^ training[other]).sum(1, dtype=int) <= MAX_BITS
    return np.isin(np.arange(len(hashes)), row[close])
