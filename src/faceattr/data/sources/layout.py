"""What the sources and the table agree on about files and names: image suffixes, split names, a root that is there."""

import os
from pathlib import Path
from typing import Annotated, Any

from faceattr.config.key import Key
from faceattr.errors import FaceattrError

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp"})
SPLITS = ("train", "val", "test")
SPLIT_ALIASES = {"training": "train", "valid": "val", "validation": "val", "dev": "val", "testing": "test"}
SPLIT_ALIASES |= {split: split for split in SPLITS}
Attributes = Annotated[
    Any,
    Key("Several attributes at once instead of one label: a list of names, or all; an image has each of them or not."),
]
"""Type of the key `data.attributes`."""


def existing_root(root: str | Path | None, layout: str) -> Path:
    """`root` as a Path, or FaceattrError with the `layout` that a folder of this source has."""
    if not root or not Path(root).is_dir():
        raise FaceattrError(
            f"data.root is not {'a folder: ' + str(root) if root else 'set'}. Expected there: {layout}."
        )
    return Path(root)


def listed_attributes(given: Any, there: list[str], where: str) -> list[str]:
    """The names that `data.attributes` lists (null: none; all: every one of `there`); FaceattrError for another."""
    if given is None:
        return []
    listed = [given] if isinstance(given, str) else given
    if not isinstance(listed, list) or not listed or len(set(map(str, listed))) < len(listed):
        raise FaceattrError(
            f"data.attributes={given}: a list of names, each once, such as [Male,Young]; or all, or null."
        )
    wanted = there if given == "all" else [str(name) for name in listed]
    if unknown := [name for name in wanted if name not in there]:
        raise FaceattrError(f"data.attributes: {', '.join(unknown)} not in {where}. There: {', '.join(there)}, or all.")
    return wanted


def file_names(folder: Path) -> set[str]:
    """The files directly in `folder` (none where it is not there), from one listing: a stat for each is slow."""
    try:
        with os.scandir(folder) as entries:
            return {entry.name for entry in entries if entry.is_file()}
    except (FileNotFoundError, NotADirectoryError):
        return set()


def is_image(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES  # noqa: PTH122 (a Path for each of 200,000 is slow)
