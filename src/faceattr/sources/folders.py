"""Class folders: `root/<split>/<class>/…` or `root/<class>/…`, with split names in their usual spellings."""

import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import pandas as pd

from faceattr.errors import FaceattrError
from faceattr.sources.layout import SPLIT_ALIASES, SPLITS, existing_root, file_names, is_image

log = logging.getLogger(__name__)

LAYOUT = "<split>/<class>/image files, or <class>/image files"


def load(root: str | Path, *, class_map: dict | None = None, split_map: dict | None = None) -> pd.DataFrame:
    """A row per image anywhere below a class folder; other files are ignored. Classes in order of the folders' names.

    class_map: folder → class, e.g. {man: male, woman: female}; a folder that is not in it keeps its name.
    split_map: further folder → split, e.g. {all: test}; besides train/training, val/valid/validation/dev and
        test/testing in any case. Next to split folders, every other folder is ignored (logged).

    Raises FaceattrError: root missing, no class folder there, a map that names a folder which is not there.
    """
    root = existing_root(root, LAYOUT)
    splits = _splits(root, split_map or {})
    rows: list[tuple[str, str, str | None]] = []
    folders: set[str] = set()
    tops: dict[str, str | None] = {**splits} or {"": None}
    for top, split in tops.items():
        loose = sum(map(is_image, file_names(root / top)))
        if loose:
            log.warning("%s: %d images outside class folders are ignored", root / top, loose)
        for name in _subfolders(root / top):
            folders.add(name)
            rows.extend((path, name, split) for path in _images(root, root / top / name))
    if not rows:
        raise FaceattrError(f"data.root={root} has no images in class folders. Expected there: {LAYOUT}.")
    _check_keys("class_map", class_map or {}, folders)

    names = {folder: str((class_map or {}).get(folder, folder)) for folder in sorted(folders)}
    table = pd.DataFrame(rows, columns=["path", "label", "split"])
    table["label"] = table["label"].map(names)
    if not splits:
        table = table.drop(columns="split")
    table.attrs["classes"] = list(dict.fromkeys(names.values()))
    table.attrs["ordinal"] = False
    return table


def _splits(root: Path, split_map: Mapping) -> dict[str, str]:
    """Split folder → split; empty where `root` holds the class folders themselves."""
    there = _subfolders(root)
    _check_keys("split_map", split_map, there)
    wrong = [str(split) for split in split_map.values() if split not in SPLITS]
    if wrong:
        raise FaceattrError(f"data.split_map: {', '.join(wrong)} is no split; choose from {', '.join(SPLITS)}.")
    splits = {name: SPLIT_ALIASES[name.lower()] for name in there if name.lower() in SPLIT_ALIASES} | dict(split_map)
    ignored = [name for name in there if name not in splits]
    if splits and ignored:
        log.info("%s: ignored beside the split folders: %s (data.split_map={%s: …} uses it)", root, ignored, ignored[0])
    return splits


def _subfolders(folder: Path) -> list[str]:
    """Names, sorted; without hidden ones and archive left-overs such as `__MACOSX`."""
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith((".", "__")))


def _images(root: Path, folder: Path) -> Iterator[str]:
    for where, _, names in os.walk(folder):
        below = Path(where).relative_to(root).as_posix()
        yield from (f"{below}/{name}" for name in names if is_image(name) and not name.startswith("."))


def _check_keys(key: str, mapping: Mapping, folders: list[str] | set[str]) -> None:
    unknown = [str(name) for name in mapping if name not in folders]
    if unknown:
        raise FaceattrError(f"data.{key} names {', '.join(unknown)}; the folders there: {', '.join(sorted(folders))}.")
