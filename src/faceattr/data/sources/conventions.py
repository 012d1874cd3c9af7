"""Conventions shared by all sources: split names, the key `data.attributes`, the names in one folder."""

import os
from pathlib import Path
from typing import Annotated, Any

from faceattr.config.key_annotation import Key
from faceattr.errors import FaceattrError
from faceattr.message_text import did_you_mean, instead_of, listed

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
    if not root:
        raise FaceattrError(f"data.root is not set. Expected there: {layout}.")
    if not Path(root).is_dir():
        hint = " It is a file." if Path(root).exists() else instead_of(Path(root))
        raise FaceattrError(f"data.root is not a folder: {root}.{hint} Expected there: {layout}.")
    return Path(root)


def listed_attributes(value: Any, available: list[str], where: str) -> list[str]:
    """The names that `data.attributes` lists. None: no names; "all": the `available` ones.

    Raises FaceattrError: no list of distinct names, or a name that is not available in `where`.
    """
    if value is None:
        return []
    entries = [value] if isinstance(value, str) else value
    if not isinstance(entries, list) or not entries or len(set(map(str, entries))) < len(entries):
        raise FaceattrError(
            f"data.attributes={value}: a list of names, each once, such as [Male,Young]; or all, or null."
        )
    names = available if value == "all" else [str(name) for name in entries]
    if unknown := [name for name in names if name not in available]:
        hint = did_you_mean(unknown[0], available)
        raise FaceattrError(
            f"data.attributes: {listed(unknown)} not in {where}.{hint} There: {listed(available, 50)}, or all."
        )
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
