"""The one LightningDataModule: a table of images becomes batches.

A batch is gathered from the stored pixels; where none are stored, worker processes decode images, to the same tensors.
Augmentation and scaling happen in the classifier, on its device.
"""

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from faceattr.config.schema import Data
from faceattr.data import table
from faceattr.data.array_file import RowArray
from faceattr.data.batches import Batch, EpochSampler, ImageSet, RowSource, rank_share
from faceattr.data.decode import InputSpec, UnreadableImage, read
from faceattr.data.device_batches import DeviceBatches, place
from faceattr.data.faces.detection_cache import FaceRows
from faceattr.data.faces.table_faces import FoundFaces, find_faces
from faceattr.data.parallel import default_workers
from faceattr.data.pixel_cache import pack
from faceattr.errors import FaceattrError
from faceattr.message_text import counted, listed

log = logging.getLogger(__name__)


class FaceData(pl.LightningDataModule):
    """Reads the images of a prepared table (faces, pixels) and gives batches of its splits.

    table: the prepared table, without unreadable images (`data.on_bad_image=skip`) and without images that have no face
        (`faces.on_none=skip`). bad_images: the unreadable ones (columns path, reason). found_faces: the faces in each image; None
        where faces are not looked for.

    Raises FaceattrError: unreadable images, or images without a face, where they are not to be skipped.
    """

    def __init__(
        self, prepared: pd.DataFrame, settings: Data, spec: InputSpec, seed: int = 0, detector_file: str | None = None
    ) -> None:
        """`detector_file` is `faces.weights`."""
        super().__init__()
        self.settings, self.spec, self.seed = settings, spec, seed
        paths = [str(Path(settings.root) / path) for path in prepared["path"]]
        names, rows, bad = prepared["path"].tolist(), np.arange(len(prepared)), dict[int, str]()
        self.found_faces: FoundFaces | None = None
        self.faces: FaceRows | None = None
        if spec.faces.active:
            self.found_faces, bad = find_faces(
                paths, names, spec.faces, weights=detector_file, workers=settings.workers
            )
            rows = np.setdiff1d(self.found_faces.usable, list(bad))
            self.faces = self.found_faces.chosen[rows]
        selected = [paths[row] for row in rows]
        pixels, unreadable = pack(selected, spec, mode=settings.pack, workers=settings.workers, faces=self.faces)
        bad |= {int(rows[position]): reason for position, reason in unreadable.items()}
        self.bad_images = pd.DataFrame({"path": prepared["path"].iloc[list(bad)], "reason": list(bad.values())})
        if bad and settings.on_bad_image == "error":
            raise FaceattrError(_list_bad(self.bad_images, len(prepared)))
        missing = pd.DataFrame(prepared.attrs.get("bad_images", []), columns=["path", "reason"], dtype=object)
        self.bad_images = pd.concat([missing, self.bad_images], ignore_index=True) if len(missing) else self.bad_images
        if len(self.bad_images):
            count = counted(len(self.bad_images), "unreadable image")
            log.warning("Left out %s (data.on_bad_image=skip); see bad_images.csv in the run's folder", count)
        readable = np.setdiff1d(np.arange(len(rows)), list(unreadable))  # positions in `selected`, and so in `pixels`
        self.table = prepared.iloc[rows[readable]].reset_index(drop=True)
        self.table.attrs = prepared.attrs
        self._pixels: RowSource | None = pixels
        self.paths, self._pixel_positions = [selected[position] for position in readable], readable
        self.faces = self.faces[readable] if self.faces is not None else None
        self._targets = table.targets(self.table)
        self._images: dict[str, ImageSet] = {}
        self.device: torch.device | None = None  # where batches are made; None: in host memory
        self.placement: dict[str, str] = {}

    @property
    def bad_labels(self) -> pd.DataFrame:
        """The rows that `data.on_bad_label=skip` left out (columns path, label)."""
        return pd.DataFrame(self.table.attrs.get("bad_labels", []), columns=["path", "label"], dtype=object)

    def setup(self, stage: str) -> None:
        """Lightning's hook, called when the trainer knows its device."""
        assert self.trainer is not None
        if self.settings.pack == "device" and self.trainer.strategy.root_device.type != "cuda":
            raise FaceattrError("data.pack=device needs a CUDA device (trainer=gpu). Use data.pack=auto.")
        if self.trainer.strategy.root_device.type == "cuda":
            self.move_to(self.trainer.strategy.root_device)

    def move_to(self, device: torch.device) -> None:
        """From now on the batches of every split are on `device`, and so are the pixels where they fit."""
        if self._pixels is not None and not isinstance(self._pixels, torch.Tensor):
            self.device = device
            self._pixels = self.placed(self._pixels, "pixels")
            self._images = {}

    def placed(self, array: RowArray | np.ndarray, title: str) -> RowSource:
        """`array`, moved to the device of the batches where it fits; `placement` says where it is."""
        if self.device is None:
            return array
        placed, self.placement[title] = place(array, self.device, mode=self.settings.pack, title=title)
        log.info("%s: in %s", title.capitalize(), self.placement[title])
        return placed

    def leave_out(self, rows: np.ndarray) -> None:
        """Go on without these rows of the table."""
        remaining = np.setdiff1d(np.arange(len(self.table)), rows)
        self.table = self.table.iloc[remaining].reset_index(drop=True)
        self.paths, self._pixel_positions, self._targets = (
            [self.paths[row] for row in remaining],
            self._pixel_positions[remaining],
            self._targets[remaining],
        )
        self.faces = self.faces[remaining] if self.faces is not None else None
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

    def train_dataloader(self) -> Iterable[Batch]:
        images = self.images("train")
        weights = None
        if self.settings.balance == "sampler":
            targets = self._targets[images.rows]
            weights = 1.0 / np.bincount(targets)[targets]
        order = EpochSampler(len(images), self.seed, weights, lambda: self.trainer.current_epoch if self.trainer else 0)
        drop_last = (
            len(order) > 1 and len(order) % self.settings.batch_size == 1
        )  # batch norm cannot train on one image
        if drop_last:
            log.info("The last training batch would hold one image: each epoch leaves a random one out")
        return self._loader(images, order, drop_last=drop_last)

    def val_dataloader(self) -> Iterable[Batch]:
        return self.split_dataloader("val")

    def split_dataloader(self, split: str) -> Iterable[Batch]:
        """The images of a split in the table's order; in a DDP run this process's share."""
        images = self.images(split)
        return self._loader(images, rank_share(np.arange(len(images))).tolist())

    def pixel_batches(self, rows: np.ndarray) -> DataLoader[Batch]:
        """Batches of pixels of these rows of the table, in this order, in host memory."""
        return self._host_loader(self._image_set(rows))

    def pixels(self, rows: Iterable[int]) -> dict[int, np.ndarray]:
        """uint8 [H, W, 3] by row of the table; an image that is decoded now and can no longer be read is left out."""
        pixels: dict[int, np.ndarray] = {}
        if self._pixels is not None:
            for batch in self.pixel_batches(np.array(list(rows), int)):
                pixels |= dict(zip(batch.rows.tolist(), batch.inputs.permute(0, 2, 3, 1).numpy(), strict=True))
            return pixels
        for row in map(int, rows):
            try:
                pixels[row] = read(self.paths[row], self.spec, self.faces[row] if self.faces is not None else None)
            except UnreadableImage as error:
                log.warning("%s cannot be read: %s", self.table["path"].iloc[row], error)
        return pixels

    def _image_set(self, rows: np.ndarray) -> ImageSet:
        return ImageSet(self.paths, self._targets, self.spec, self._pixels, self._pixel_positions, rows, self.faces)

    def _loader(self, images: ImageSet, sampler: Any, drop_last: bool = False) -> Iterable[Batch]:
        if self.device is None or images.inputs is None:
            return self._host_loader(images, sampler=sampler, drop_last=drop_last)
        return DeviceBatches(self.device, images, sampler, self.settings.batch_size, drop_last)

    def _host_loader(self, images: ImageSet, **order: Any) -> DataLoader[Batch]:
        workers = (
            0
            if self._pixels is not None
            else (default_workers() if self.settings.workers is None else self.settings.workers)
        )
        return DataLoader(
            images,
            batch_size=self.settings.batch_size,
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
    shown = listed((f"{row.path} ({row.reason})" for row in bad.itertuples()), 5, separator="; ")
    return (
        f"{len(bad)} of {counted(total, 'image')} cannot be read: {shown}\n"
        "Mend or remove them, or leave them out with data.on_bad_image=skip"
    )
