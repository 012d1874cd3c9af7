"""Source `folders`: images in class folders, `root/<split>/<class>/…` or `root/<class>/…`."""

import logging
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated

import pandas as pd

from faceattr.config.key import Key
from faceattr.data.sources.layout import SPLIT_ALIASES, existing_root, is_image
from faceattr.errors import FaceattrError

log = logging.getLogger(__name__)

LAYOUT = "<split>/<class>/image files, or <class>/image files"


def load(
    root: str | Path,
    *,
    class_map: Annotated[
        dict | None,
        Key("folder: class, such as {man: male, woman: female}; another folder is a class by its own name."),
    ] = None,
    split_map: Annotated[
        dict | None,
        Key(
            "folder: split, such as {all: test}, for folders whose name does not say it; null as split: data.split=random "
            "splits that folder."
        ),
    ] = None,
    identity_file: Annotated[
        str | None, Key("A file below data.root with an image's name and its person a line, as identity_CelebA.txt.")
    ] = None,
) -> pd.DataFrame:
    """A row per image at any depth below a class folder; other files are ignored. Classes are in the order of folder names.

    Split folders are those in `split_map` and those named train, training, val, valid, validation, dev, test or testing, in
    upper or lower case. If there are split folders, all other folders beside them are ignored, with a message in the log.

    Raises FaceattrError: root missing, no class folders, a folder in a map that does not exist, an identity file that is
    missing or lacks an image.
    """
    root = existing_root(root, LAYOUT)
    splits = _splits(root, split_map or {})
    rows = []
    for top, split in (splits or {"": None}).items():
        for folder in _subfolders(root / top):
            files = [path for path in (root / top / folder).rglob("*") if is_image(path.name) and path.name[0] != "."]
            rows += [(file.relative_to(root).as_posix(), folder, split) for file in files]
    if not rows:
        raise FaceattrError(f"data.root={root} has no images in class folders. Expected there: {LAYOUT}.")
    table = pd.DataFrame(rows, columns=["path", "label", "split"])
    folders = sorted(table["label"].unique())
    names = dict(zip(folders, folders, strict=True)) | _checked_map("class_map", class_map or {}, folders)
    table["label"] = table["label"].map(names)
    if identity_file:
        table["group"] = _identities(root / identity_file, table["path"])
    table.attrs.update(classes=list(dict.fromkeys(names.values())), ordinal=False)
    return table if splits else table.drop(columns="split")


def _identities(file: Path, paths: pd.Series) -> pd.Series:
    """The identity of each path, from lines of an image name and an identity."""
    if not file.is_file():
        raise FaceattrError(f"data.identity_file does not exist: {file}")
    pairs = [line.split() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    by_name = {pair[0]: pair[1] for pair in pairs if len(pair) == 2}
    identities = paths.map(lambda path: by_name.get(path.rpartition("/")[2]))
    missing = identities.isna()
    if missing.any():
        raise FaceattrError(f"{file} has no identity of {missing.sum():,} images, e.g. {paths[missing].iloc[0]}")
    return identities


def _splits(root: Path, split_map: Mapping) -> dict[str, str | None]:
    """Split folder → split (None: to be split); empty if `root` contains the class folders."""
    folders = _subfolders(root)
    usual = {name: SPLIT_ALIASES[name.lower()] for name in folders if name.lower() in SPLIT_ALIASES}
    splits: dict[str, str | None] = {**usual, **_checked_map("split_map", split_map, folders)}
    splits |= {str(name): None for name, split in split_map.items() if split is None}
    ignored = [name for name in folders if name not in splits]
    if splits and ignored:
        log.info("%s: ignored beside the split folders: %s (data.split_map={%s: …} uses it)", root, ignored, ignored[0])
    return splits


def _subfolders(folder: Path) -> list[str]:
    """Names, sorted; without hidden folders and those that archives leave, such as `__MACOSX`."""
    return sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith((".", "__")))


def _checked_map(key: str, mapping: Mapping, folders: Collection[str]) -> dict[str, str]:
    """The map with values as text. Raises FaceattrError: a name that is not among `folders`."""
    unknown = [str(name) for name in mapping if name not in folders]
    if unknown:
        raise FaceattrError(f"data.{key} names {', '.join(unknown)}; the folders there: {', '.join(sorted(folders))}.")
    return {folder: str(name) for folder, name in mapping.items()}
