"""Source `folders`: images in class folders, `root/<split>/<class>/…` or `root/<class>/…`."""

import logging
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Annotated

import pandas as pd

from faceattr.config.key_annotation import Key
from faceattr.data.image_files import walk
from faceattr.data.sources.conventions import SPLIT_ALIASES, existing_root
from faceattr.data.sources.labels import to_classes
from faceattr.errors import FaceattrError
from faceattr.message_text import counted, did_you_mean, instead_of, listed

log = logging.getLogger(__name__)

LAYOUT = "<split>/<class>/image files, or <class>/image files"


def load(
    root: str | Path,
    *,
    class_map: Annotated[
        dict | None,
        Key("folder: class, such as {man: male, woman: female}; another folder is a class by its own name."),
    ] = None,
    classes: list[str] | None = None,
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
    """A row per image at any depth below a class folder. Classes are in the order of folder names, which mean what cells of a
    table mean (`to_classes`): `Male` beside `male` is one class, `unknown` none.

    Split folders are those in `split_map` and those with class folders named train, training, val, valid, validation, dev,
    test or testing, in upper or lower case. If there are split folders, all other folders beside them are ignored. What is
    left out is in the log, with counts.

    Raises FaceattrError: root missing, no class folders, a folder in a map that does not exist, an identity file that is
    missing or lacks an image.
    """
    root = existing_root(root, LAYOUT)
    listing = walk(root)
    if left_out := listing.left_out():
        log.info("%s: left out: %s", root, left_out)
    paths = [path.split("/") for path in listing.files]
    splits = _splits(root, split_map or {}, paths)
    rows = []
    for parts in paths:
        in_class = parts[1:] if splits else parts
        if len(in_class) > 1 and (parts[0] in splits if splits else parts[0].lower() not in SPLIT_ALIASES):
            rows.append(("/".join(parts), in_class[0], splits.get(parts[0])))
    _warn_of_images_without_class(root, paths, splits)
    if not rows:
        raise FaceattrError(
            f"data.root={root} has no images in class folders. Expected there: {LAYOUT}.\n"
            "To classify images without labels: python predict.py ckpt=… input=FOLDER"
        )
    table = pd.DataFrame(rows, columns=["path", "label", "split"])
    folders = sorted(table["label"].unique())
    names = dict(zip(folders, folders, strict=True)) | _checked_map("class_map", class_map or {}, folders)
    folder = table["label"].map(names).rename("class folder")
    table["label"] = to_classes(folder, None, classes, path=root, key="data.class_map", numbers_are_names=True)
    if identity_file:
        table["group"] = _identities(root / identity_file, table["path"])
    label_of = dict(zip(folder, table["label"], strict=True))
    present = [label_of[name] for name in dict.fromkeys(names.values()) if pd.notna(label_of[name])]
    table.attrs.update(classes=classes or list(dict.fromkeys(present)), ordinal=False)
    return table if splits else table.drop(columns="split")


def _identities(file: Path, paths: pd.Series) -> pd.Series:
    """The identity of each path, from lines of an image name and an identity."""
    if not file.is_file():
        raise FaceattrError(f"data.identity_file does not exist: {file}.{instead_of(file)}")
    pairs = [line.split() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    by_name = {pair[0]: pair[1] for pair in pairs if len(pair) == 2}
    identities = paths.map(lambda path: by_name.get(path.rpartition("/")[2]))
    missing = identities.isna()
    if missing.any():
        raise FaceattrError(
            f"{file} has no identity of {counted(missing.sum(), 'image')}, e.g. {paths[missing].iloc[0]}"
        )
    return identities


def _splits(root: Path, split_map: Mapping, paths: Sequence[Sequence[str]]) -> dict[str, str | None]:
    """Split folder → split (None: to be split); empty if `root` contains the class folders. `paths`: each image's, in parts.

    A folder that is named like a split but holds images without class folders is none.
    """
    folders = sorted({parts[0] for parts in paths if len(parts) > 1})
    with_classes = {parts[0] for parts in paths if len(parts) > 2}
    usual = {name: SPLIT_ALIASES[name.lower()] for name in folders if name.lower() in SPLIT_ALIASES}
    splits: dict[str, str | None] = {name: split for name, split in usual.items() if name in with_classes}
    splits |= _checked_map("split_map", split_map, folders)
    splits |= {str(name): None for name, split in split_map.items() if split is None}
    ignored = [name for name in folders if name not in splits and name not in usual]
    if splits and ignored:
        log.info("%s: ignored beside the split folders: %s (data.split_map={%s: …} uses it)", root, ignored, ignored[0])
    return splits


def _warn_of_images_without_class(root: Path, paths: Sequence[Sequence[str]], splits: Mapping) -> None:
    """Says in which folders images lie that have no class folder: beside the folders, or directly in one named like a split."""
    flat = Counter(
        parts[0] if len(parts) > 1 else "."
        for parts in paths
        if len(parts) == 1 or (len(parts) == 2 and (parts[0] in splits or parts[0].lower() in SPLIT_ALIASES))
    )
    if flat:
        shown = ", ".join(f"{count:,} in {root / folder}" for folder, count in flat.most_common())
        log.warning("Images in no class folder are left out: %s. Expected there: %s", shown, LAYOUT)


def _checked_map(key: str, mapping: Mapping, folders: Collection[str]) -> dict[str, str]:
    """The map with values as text. Raises FaceattrError: a name that is not among `folders`."""
    unknown = [str(name) for name in mapping if name not in folders]
    if unknown:
        hint = did_you_mean(unknown[0], folders)
        raise FaceattrError(f"data.{key} names {listed(unknown)}.{hint} The folders there: {listed(sorted(folders))}.")
    return {folder: str(name) for folder, name in mapping.items()}
