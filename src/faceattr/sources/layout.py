"""What the sources and the table agree on about files and names: image suffixes, split names, a root that is there."""

import os
from pathlib import Path

from faceattr.errors import FaceattrError

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp"})
SPLITS = ("train", "val", "test")
SPLIT_ALIASES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}


def existing_root(root: str | Path | None, layout: str) -> Path:
    """`root` as a Path, or FaceattrError with the `layout` that a folder of this source has."""
    if not root:
        raise FaceattrError(f"data.root is not set. Expected there: {layout}.")
    path = Path(root).expanduser()
    if not path.is_dir():
        raise FaceattrError(f"data.root is not a folder: {path}. Expected there: {layout}.")
    return path


def file_names(folder: Path) -> set[str]:
    """The names of the files directly in `folder`, from one listing: a stat for each of 200,000 images would be slow.

    A folder that is not there has none.
    """
    try:
        with os.scandir(folder) as entries:
            return {entry.name for entry in entries if entry.is_file()}
    except (FileNotFoundError, NotADirectoryError):
        return set()


def is_image(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES  # noqa: PTH122 (a Path for each of 200,000 is slow)
