"""The one LightningDataModule: a table of images becomes batches.

A batch is one gather from the packed pixels; where those are switched off, worker processes decode instead, to the same
tensors. Augmentation and scaling happen in the classifier, on its device.
"""

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytorch_lightning as pl
import torch
import torch.distributed as dist
from omegaconf import DictConfig
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from faceattr.data import table
from faceattr.data.array_cache import RowArray
from faceattr.data.decode import InputSpec, cores, read
from faceattr.data.pixel_cache import pack
from faceattr.errors import FaceattrError

log = logging.getLogger(__name__)


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
    """Rows of a table as batches: indexed with a list of positions, it returns a whole `Batch`.

    `paths`, `targets` and `packed` (where in `pixels` an image lies) have an entry for each row of the table.
    """

    def __init__(
        self,
        paths: list[str],
        targets: np.ndarray,
        spec: InputSpec,
        pixels: RowArray | np.ndarray | None,
        packed: np.ndarray,
        rows: np.ndarray,
    ) -> None:
        self.paths, self.targets, self.spec, self.rows = paths, targets, spec, rows
        self._pixels, self._packed = pixels, packed
        self._inputs, self._layers_applied, self._at = pixels, 0, packed

    def serve(self, outputs: RowArray, rows: np.ndarray, at: np.ndarray, layers_applied: int) -> None:
        """From now on give `outputs[at]` for these rows of the table: what the network's first `layers_applied` layers gave."""
        self._inputs, self._layers_applied = outputs, layers_applied
        self._at = np.full(len(self.paths), -1)
        self._at[rows] = at

    def serve_pixels(self) -> None:
        """From now on give pixels."""
        self._inputs, self._layers_applied = self._pixels, 0
        self._at = self._packed

    def __len__(self) -> int:
        return len(self.rows)

    def __getitems__(self, positions: list[int]) -> Batch:
        rows = self.rows[positions]
        if self._inputs is not None:
            inputs = from_numpy(self._inputs[self._at[rows]])
        else:
            inputs = torch.from_numpy(np.stack([read(self.paths[row], self.spec) for row in rows]))
        inputs = inputs.permute(0, 3, 1, 2) if inputs.ndim == 4 else inputs
        return Batch(inputs, torch.from_numpy(self.targets[rows]), torch.from_numpy(rows), self._layers_applied)


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
        return -(-self.size // _world()[1])

    def __iter__(self) -> Iterator[int]:
        rng = np.random.default_rng([self.seed, self.epoch()])
        if self.weights is None:
            order = rng.permutation(self.size)
        else:
            order = rng.choice(self.size, self.size, p=self.weights / self.weights.sum())
        rank, world = _world()
        yield from np.resize(order, len(self) * world)[rank::world].tolist()


def _world() -> tuple[int, int]:
    return (dist.get_rank(), dist.get_world_size()) if dist.is_available() and dist.is_initialized() else (0, 1)


class FaceData(pl.LightningDataModule):
    """Packs a prepared table and serves its splits.

    `bad_images` lists what could not be decoded (columns path, reason); those rows are gone from `table` where
    `data.on_bad_image=skip`, and an error otherwise.
    """

    def __init__(self, prepared: pd.DataFrame, cfg: DictConfig, spec: InputSpec, seed: int = 0) -> None:
        super().__init__()
        self.cfg, self.spec, self.seed = cfg, spec, seed
        paths = [str(Path(cfg.root) / path) for path in prepared["path"]]
        pixels, bad = pack(paths, spec, mode=cfg.pack, workers=cfg.workers)
        self.bad_images = pd.DataFrame({"path": prepared["path"].iloc[list(bad)], "reason": list(bad.values())})
        if bad and cfg.on_bad_image == "error":
            raise FaceattrError(_list_bad(self.bad_images, len(prepared)))
        if bad:
            log.warning("Left out %d unreadable images (data.on_bad_image=skip); see bad_images.csv", len(bad))
        kept = np.setdiff1d(np.arange(len(prepared)), list(bad))
        self.table = prepared.iloc[kept].reset_index(drop=True)
        self.table.attrs = prepared.attrs
        self.paths, self._pixels, self._packed = [paths[row] for row in kept], pixels, kept
        self._targets = table.targets(self.table)
        self._images: dict[str, ImageSet] = {}

    def leave_out(self, rows: np.ndarray) -> None:
        """Go on without these rows of the table."""
        kept = np.setdiff1d(np.arange(len(self.table)), rows)
        self.table = self.table.iloc[kept].reset_index(drop=True)
        self.paths, self._packed, self._targets = (
            [self.paths[row] for row in kept],
            self._packed[kept],
            self._targets[kept],
        )
        self._images = {}

    def rows(self, split: str) -> np.ndarray:
        """Positions in `table` of the split's images; `all` is every image."""
        if split == "all":
            return np.arange(len(self.table))
        return np.flatnonzero(self.table["split"] == split) if "split" in self.table else np.array([], int)

    def images(self, split: str) -> ImageSet:
        """The one data set of a split that every loader of it reads from."""
        if split not in self._images:
            self._images[split] = self._image_set(self.rows(split))
        return self._images[split]

    def train_dataloader(self) -> DataLoader[Batch]:
        images = self.images("train")
        weights = None
        if self.cfg.balance == "sampler":
            targets = self._targets[images.rows]
            weights = 1.0 / np.bincount(targets)[targets]
        order = EpochSampler(len(images), self.seed, weights, lambda: self.trainer.current_epoch if self.trainer else 0)
        alone = len(order) > 1 and len(order) % self.cfg.batch_size == 1  # batch norm cannot train on one image
        if alone:
            log.info("The last training batch would hold one image: each epoch leaves a random one out")
        return self._loader(images, sampler=order, drop_last=alone)

    def val_dataloader(self) -> DataLoader[Batch]:
        return self.split_dataloader("val")

    def split_dataloader(self, split: str) -> DataLoader[Batch]:
        """The images of a split in the table's order."""
        images = self.images(split)
        rank, world = _world()
        return self._loader(images, sampler=range(rank, len(images), world))

    def in_order(self, rows: np.ndarray) -> DataLoader[Batch]:
        """The pixels of these rows of the table."""
        return self._loader(self._image_set(rows))

    def _image_set(self, rows: np.ndarray) -> ImageSet:
        return ImageSet(self.paths, self._targets, self.spec, self._pixels, self._packed, rows)

    def _loader(self, images: ImageSet, **order: Any) -> DataLoader[Batch]:
        workers = 0 if self._pixels is not None else (cores() if self.cfg.workers is None else self.cfg.workers)
        return DataLoader(
            images,
            batch_size=self.cfg.batch_size,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=torch.cuda.is_available(),
            collate_fn=_as_it_is,
            generator=torch.Generator(),  # else each new iterator would draw from the generator that dropout uses
            **order,
        )


def _as_it_is(batch: Any) -> Any:
    return batch


def _list_bad(bad: pd.DataFrame, total: int) -> str:
    shown = "; ".join(f"{row.path} ({row.reason})" for row in bad.head(5).itertuples())
    return (
        f"{len(bad)} of {total} images cannot be read: {shown}{', …' if len(bad) > 5 else ''}\n"
        "Mend or remove them, or leave them out with data.on_bad_image=skip"
    )
