"""Conventions shared by all sources: split names, the key `data.attributes`, the names in one folder."""

import os
from pathlib import Path
from typing import Annotated, Any

from faceattr.config.key import Key
from faceattr.errors import FaceattrError

SPLITS = ("train", "val", "test")
SPLIT_ALIASES = {"training": "train", "valid": "val", "validation": "val", "dev": "val", "testing": "test"}
SPLIT_ALIASES |= {split: split for split in SPLITS}
Attributes = Annotated[
    Any,
    Key("Several attributes at once instead of one label: a list of names, or all; an image has each of them or not."),
]
"""Type of the key `data.attributes`."""


def existing_root(root: str | Path | None, layout: str) -> Path:
    """`root` as a Path. Raises FaceattrError if it is no folder; the message describes the expected `layout`."""
    if not root or not Path(root).is_dir():
        raise FaceattrError(
            f"data.root is not {'a folder: ' + str(root) if root else 'set'}. Expected there: {layout}."
        )
    return Path(root)


def listed_attributes(value: Any, available: list[str], where: str) -> list[str]:
    """The names that `data.attributes` lists. None: no names; "all": the `available` ones.

    Raises FaceattrError: no list of distinct names, or a name that is not available in `where`.
    """
    if value is None:
        return []
    listed = [value] if isinstance(value, str) else value
    if not isinstance(listed, list) or not listed or len(set(map(str, listed))) < len(listed):
        raise FaceattrError(
            f"data.attributes={value}: a list of names, each once, such as [Male,Young]; or all, or null."
        )
    names = available if value == "all" else [str(name) for name in listed]
    if unknown := [name for name in names if name not in available]:
        choices = ", ".join(available)
        raise FaceattrError(f"data.attributes: {', '.join(unknown)} not in {where}. There: {choices}, or all.")
    return names


def file_names(folder: Path) -> set[str]:
    """Names of the files directly in `folder`; none if it does not exist. One listing is faster than a stat per file."""
    try:
        with os.scandir(folder) as entries:
            return {entry.name for entry in entries if _is_file(entry)}
    except (OSError, ValueError):  # no such folder; a name that is too long, or that no file can have
        return set()


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:  # a link that leads to itself
        return False
