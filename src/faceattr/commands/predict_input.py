"""The files that `input=` of predict.py names: a photo or video, a folder, a glob, a list of paths, or a table of training."""

import glob
import logging
import os
import re
from collections.abc import Iterator, Mapping
from itertools import takewhile
from pathlib import Path
from typing import Any

from faceattr.config.schema import InputTable
from faceattr.data.file_finder import FileFinder
from faceattr.data.image_files import IMAGE_SUFFIXES, is_image, suffix_of, walk
from faceattr.data.sources import table_file
from faceattr.data.sources.csv import named_column
from faceattr.data.sources.text_table import decoded
from faceattr.data.videos import VIDEO_SUFFIXES
from faceattr.errors import FaceattrError
from faceattr.message_text import counted, instead_of, listed, shortened
from faceattr.training.checkpoint_format import read_description

log = logging.getLogger(__name__)

USUAL_COLUMNS = ("path", "file", "filename", "image", "image_id", "id")
"""Names of a column of images, in lower case; the first one that a table has is taken."""


def input_files(source: str, keys: InputTable | None = None, stored: Mapping[str, Any] | None = None) -> list[str]:
    """The photos and videos that `input` names, in the order of its list or table, else sorted.

    keys: the keys `data.…` of the command line. stored: the group `data` of the checkpoint, for keys that are not given.
    Raises FaceattrError: there are no such files.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        listing = walk(path, IMAGE_SUFFIXES | VIDEO_SUFFIXES)
        if left_out := listing.left_out():
            log.info("%s: left out: %s", path, left_out)
        files = [str(path / file) for file in listing.files]
    elif path.is_file() and suffix_of(path.name) in table_file.SUFFIXES:
        files = _listed(path, keys or InputTable(), stored or {})
    elif path.is_file():
        files = [str(path)]
    elif path.exists():
        raise FaceattrError(f"input={source}: this is a pipe or a device. Give a file or a folder.")
    elif glob.has_magic(source):
        matched = sorted(glob.glob(str(path), recursive=True))  # noqa: PTH207
        files = [file for file in matched if Path(file).is_file()]
        if not matched:
            raise FaceattrError(f"input={source}: no file matches it.{_missing_folder(path)}")
        special = [file for file in matched if not Path(file).is_file() and not Path(file).is_dir()]
        if special:
            log.info("%s: left out: no regular file: %d (%s)", source, len(special), special[0])
    else:
        raise FaceattrError(f"input={source}: there is no such file or folder.{instead_of(path)}")
    if not files:
        looked_for = ", ".join(sorted(IMAGE_SUFFIXES | VIDEO_SUFFIXES))
        raise FaceattrError(f"input={source}: no images there (looked for {looked_for}).")
    return files


def _missing_folder(pattern: Path) -> str:
    """Where the folder before a pattern's first magic sign does not exist: what is there instead."""
    fixed = Path(*takewhile(lambda part: not glob.has_magic(part), pattern.parts))
    return "" if fixed.exists() else instead_of(fixed)


def _listed(path: Path, keys: InputTable, stored: Mapping[str, Any]) -> list[str]:
    """The absolute paths of the images in a list or a table."""
    if path.suffix.lower() == ".txt" and not _is_table(path, keys, stored):
        names = [line.strip() for line in decoded(path).splitlines() if line.strip()]
        folders = [path.parent, keys.root]
    else:
        names = list(_names(path, keys, stored))
        image_dir = keys.image_dir or stored.get("image_dir") or ""
        roots = [path.parent, keys.root or _root_of_run(path.parent), stored.get("root")]
        folders = [Path(root) / part for root in roots if root for part in dict.fromkeys(("", str(image_dir)))]
    places = [Path(folder).expanduser().absolute() for folder in [*folders, Path.cwd()] if folder]
    finder = FileFinder()
    files = [finder.find(name.replace("\\", "/") if os.sep == "/" else name, places) for name in names]
    if files and not any(files):
        looked = ", ".join(map(str, dict.fromkeys(places)))
        raise FaceattrError(
            f"input={path}: none of its {counted(len(files), 'image')} is there, e.g. {shortened(names[0])}. Looked in {looked}. "
            f"data.root=FOLDER says where they are.{_table_hint(names[0])}"
        )
    return [file or str(places[0] / name) for file, name in zip(files, names, strict=True)]


def _table_hint(entry: str) -> str:
    """What to say of an entry that holds an image's name and more."""
    cells = re.split(r"[,;\t|]|\s+", entry)
    return " Is it a table? data.header=false data.image_column=0" if len(cells) > 1 and is_image(cells[0]) else ""


def _is_table(path: Path, keys: InputTable, stored: Mapping[str, Any]) -> bool:
    """Whether a .txt file is a table, as some data sets have it, and no list: by the keys given; or it has several columns, and
    training read such a file."""
    if keys.image_column is not None or keys.header is not None:
        return True
    trained_on = str(stored.get("file") or "").lower().endswith(".txt")
    return trained_on and table_file.read(path, header=False).shape[1] > 1


def _names(path: Path, keys: InputTable, stored: Mapping[str, Any]) -> Iterator[str]:
    """The image names of a table."""
    table = table_file.read(path, header=_has_header(path, keys, stored))
    image_column = named_column(table, keys.image_column)
    if image_column and image_column not in table:
        choices = listed(table, 50)
        raise FaceattrError(
            f"data.image_column={keys.image_column}: {path} has no such column. Its columns: {choices}."
        )
    trained_on = stored.get("image_column")  # a number means a column of a table like that of training only
    candidates = [image_column or (trained_on if stored.get("header") is False else named_column(table, trained_on))]
    candidates += [column for name in USUAL_COLUMNS for column in table if str(column).strip().lower() == name]
    columns = [column for column in candidates if column in table]
    if not columns:
        raise FaceattrError(
            f"input={path}: no column named {', '.join(USUAL_COLUMNS)}; data.image_column=NAME says which. "
            f"Columns there: {listed(table.columns, 50)}"
        )
    return (name for name in table[columns[0]] if name)


def _has_header(path: Path, keys: InputTable, stored: Mapping[str, Any]) -> bool:
    """As the command line says; else as in training, but a header is seen where the first row has a usual name."""
    if keys.header is not None:
        return keys.header
    return stored.get("header") is not False or any(
        str(name).strip().lower() in USUAL_COLUMNS for name in table_file.read(path)
    )


def _root_of_run(folder: Path) -> str | None:
    """`data.root` of the run whose folder this is: the paths in its table.csv are relative to it."""
    for name in ("best.ckpt", "last.ckpt"):
        if (file := folder / "checkpoints" / name).is_file():
            root = read_description(file)["config"]["data"].get("root")
            return str(root) if root else None
    return None
