"""Batches of a table's images: what a batch holds, how it is gathered, and the order of an epoch."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from faceattr.data.array_file import RowArray
from faceattr.data.decode import InputSpec, read
from faceattr.data.faces.detection_cache import FaceRows

RowSource = RowArray | np.ndarray | Tensor
"""What rows are gathered from: an array in a file, in memory, or on a device."""


class Batch(NamedTuple):
    """B images of a table, and how far the network has processed them already.

    `inputs`: uint8 pixels [B, 3, H, W], channels last in memory, where `layers_applied` is 0. Else the output of the first
    `layers_applied` of the network's `layer_names`, [B, C, H, W] or [B, F], in the precision in which it was computed.
    `targets`: class positions, int64 [B] (-1: not known), or attributes, float32 [B, attributes] (nan: not known).
    `rows`: int64 [B], positions in the table.
    """

    inputs: Tensor
    targets: Tensor
    rows: Tensor
    layers_applied: int = 0


class ImageSet(Dataset[Batch]):
    """Some `rows` of a table: indexed with a list of positions in them, it returns a whole `Batch`.

    `paths`, `targets`, `pixel_positions` (where in `pixels` an image lies) and `faces` (what is cropped of it) have an entry for
    each row of the table.
    """

    def __init__(
        self,
        paths: list[str],
        targets: np.ndarray,
        spec: InputSpec,
        pixels: RowSource | None,
        pixel_positions: np.ndarray,
        rows: np.ndarray,
        faces: FaceRows | None = None,
    ) -> None:
        self.paths, self.targets, self.spec, self.rows, self.faces = paths, targets, spec, rows, faces
        self._pixels, self._pixel_positions = pixels, pixel_positions
        self.serve_pixels()

    def serve(self, outputs: RowSource, rows: np.ndarray, positions: np.ndarray, layers_applied: int) -> None:
        """From now on gives, for these `rows`, `outputs[positions]`: the output of the network's first `layers_applied` layers."""
        self.inputs: RowSource | None = outputs
        self._positions, self._layers_applied = np.full(len(self.paths), -1), layers_applied
        self._positions[rows] = positions

    def serve_pixels(self) -> None:
        self.inputs, self._positions, self._layers_applied = self._pixels, self._pixel_positions, 0

    def __len__(self) -> int:
        return len(self.rows)

    def positions(self, rows: np.ndarray) -> np.ndarray:
        """Where in `inputs` these rows of the table lie."""
        return self._positions[rows]

    def batch(self, inputs: Tensor, targets: Tensor, rows: Tensor) -> Batch:
        """A batch from `inputs` as they are stored: channels last, [B, H, W, C], or [B, F]."""
        return Batch(inputs.permute(0, 3, 1, 2) if inputs.ndim == 4 else inputs, targets, rows, self._layers_applied)

    def __getitems__(self, positions: list[int]) -> Batch:
        rows = self.rows[positions]
        if isinstance(self.inputs, Tensor):
            inputs = self.inputs[torch.from_numpy(self.positions(rows))].cpu()
        elif self.inputs is not None:
            inputs = from_numpy(self.inputs[self.positions(rows)])
        else:
            inputs = torch.from_numpy(np.stack([self._read(row) for row in rows]))
        return self.batch(inputs, torch.from_numpy(self.targets[rows]), torch.from_numpy(rows))

    def _read(self, row: int) -> np.ndarray:
        return read(self.paths[row], self.spec, self.faces[row] if self.faces is not None else None)


def as_numpy(tensor: Tensor) -> np.ndarray:
    """The same bytes; NumPy has no bfloat16, int16 stands for it."""
    return (tensor.view(torch.int16) if tensor.dtype == torch.bfloat16 else tensor).numpy()


def from_numpy(array: np.ndarray) -> Tensor:
    """The inverse of `as_numpy`."""
    tensor = torch.from_numpy(array)
    return tensor.view(torch.bfloat16) if tensor.dtype == torch.int16 else tensor


class EpochSampler(Sampler[int]):
    """The order of an epoch's images, from (seed, epoch) alone, so that a resumed run sees what an uninterrupted one saw.

    `epoch` is asked when the order is needed: on resume Lightning iterates before it calls a sampler's `set_epoch`.
    With `weights` images are drawn with replacement. Each process of a DDP run takes every world-size-th image.
    """

    def __init__(self, size: int, seed: int, weights: np.ndarray | None, epoch: Callable[[], int]) -> None:
        self.size, self.seed, self.weights, self.epoch = size, seed, weights, epoch

    def __len__(self) -> int:
        return -(-self.size // rank_and_size()[1])

    def __iter__(self) -> Iterator[int]:
        rng = np.random.default_rng([self.seed, self.epoch()])
        if self.weights is None:
            order = rng.permutation(self.size)
        else:
            order = rng.choice(self.size, self.size, p=self.weights / self.weights.sum())
        yield from rank_share(order).tolist()


def rank_share(order: np.ndarray) -> np.ndarray:
    """This process's part of `order` in a DDP run: every world-size-th image. All processes take equally many, or they would wait
    for each other for ever; if the last ones are missing, the first ones are taken again."""
    rank, world = rank_and_size()
    return np.resize(order, -(-len(order) // world) * world)[rank::world]


def rank_and_size() -> tuple[int, int]:
    """This process's rank and how many processes there are."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_available() and dist.is_initialized() else (0, 1)
