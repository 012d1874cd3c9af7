"""Packed pixels: every image decoded and resized once, to one uint8 array that later runs find again."""

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from faceattr.data import disk_cache
from faceattr.data.array_file import RowArray
from faceattr.data.decode import InputSpec, read_many
from faceattr.data.faces.detect import Face
from faceattr.errors import FaceattrError
from faceattr.message_text import counted

log = logging.getLogger(__name__)

FORMAT = 2


def pack(
    paths: list[str],
    spec: InputSpec,
    *,
    mode: str,
    workers: int | None,
    faces: Sequence[Face | None] | None = None,
) -> tuple[RowArray | np.ndarray | None, dict[int, str]]:
    """Pixels of all `paths`, uint8 [N, height, width, 3], and row → reason for the unreadable images (their rows stay zero).

    mode: `disk` stores pixels in a file; `ram` decodes into memory; `off` only checks the images, and returns None for the pixels;
        `auto` is `disk` where there is room, else `off`; `device` is `disk` where there is room, else `ram` (the data module
        then copies them to the device).
    faces: what is cropped of each image, by `spec.faces`; None: images are taken whole.
    """
    shape = (len(paths), spec.height, spec.width, 3)
    if mode in ("auto", "disk", "device"):
        try:
            pixels, metadata = disk_cache.get_or_create(
                f"pixels-{key(paths, spec)}",
                shape,
                np.uint8,
                lambda rows: {"bad": read_many(paths, spec, rows, workers=workers, label="Packing", faces=faces)},
                title=f"Pixels of {counted(len(paths), 'image')}",
            )
            return pixels, {int(row): reason for row, reason in metadata["bad"].items()}
        except disk_cache.NoRoom as error:
            if mode == "disk":
                raise FaceattrError(f"data.pack=disk: {error}\nOr data.pack=off.") from None
            when = "in every epoch" if mode == "auto" else "anew by every run"
            log.warning("data.pack=%s: %s Images are decoded %s", mode, error, when)
    if mode in ("ram", "device"):
        decoded = np.zeros(shape, np.uint8)
        return decoded, read_many(paths, spec, decoded, workers=workers, label="Decoding", faces=faces)
    return None, read_many(paths, spec, None, workers=workers, label="Checking images")


def key(paths: list[str], spec: InputSpec) -> str:
    """Changes with the input spec, how faces are cropped, the order of the images, and any file (`file_identities`)."""
    recipe: list[Any] = [asdict(spec.faces)] if spec.faces.active else []
    recipe += [] if spec.resize == "stretch" else [spec.resize]
    digest = hashlib.sha256(json.dumps([FORMAT, spec.height, spec.width, spec.interpolation, *recipe]).encode())
    digest.update(file_identities(paths))
    return digest.hexdigest()[:24]


def file_identities(paths: Sequence[str]) -> bytes:
    """Changes with the order of the files, and with the size, date, inode or change time of any of them. (The change time cannot be
    set, as the date can.)"""
    stats = [(path, Path(path).stat()) for path in paths]
    parts = (f"{path}\0{s.st_size}\0{s.st_mtime_ns}\0{s.st_ino}\0{s.st_ctime_ns}\n" for path, s in stats)
    return "".join(parts).encode()
