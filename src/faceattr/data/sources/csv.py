"""Source `csv`: any CSV with a row per image.

A column has image names; one column has labels (class names, values of a map, or numbers to bin), or several have
attributes. Columns for split and group are optional. The defaults read `results.csv` of study S0 (Gender: 0 is male).
"""

import io
import logging
import posixpath
import re
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd

from faceattr.config.key import Key
from faceattr.data.image_files import is_image, is_leftover
from faceattr.data.sources.layout import (
    SPLIT_ALIASES,
    Attributes,
    existing_root,
    file_names,
    listed_attributes,
)
from faceattr.errors import FaceattrError

log = logging.getLogger(__name__)

S0_LABELS = {"0": "male", "1": "female"}
YES_OR_NO = {"1": 1, "true": 1, "yes": 1, "0": 0, "-1": 0, "false": 0, "no": 0}
RESERVED = ("path", "label", "split", "group")


def load(
    root: str | Path,
    *,
    file: Annotated[str, Key("The table below data.root; its separator and encoding are detected.")] = "results.csv",
    image_column: Annotated[str, Key("Column of image names, with or without extension.")] = "Filename",
    label_column: Annotated[str, Key("Column of labels.")] = "Gender",
    attributes: Attributes = None,
    label_map: Annotated[
        dict | None,
        Key("value: class, such as {0: male, 1: female}; null: values are classes (Gender: 0 is male, 1 is female)."),
    ] = None,
    bins: Annotated[
        list | None,
        Key("Right-open thresholds for a column of numbers, such as [30,50] with data.classes=[young,middle,old]."),
    ] = None,
    classes: list[str] | None = None,
    split_column: Annotated[
        str | None, Key("Column of train, val or test, in any usual spelling; null: split by data.fractions.")
    ] = None,
    group_column: Annotated[str | None, Key("Column of persons; one person's images stay in one split.")] = None,
    image_dir: Annotated[
        str | None, Key("The images' folder below data.root; null: image names are relative to data.root.")
    ] = "images",
) -> pd.DataFrame:
    """A row per line of `root/file`. Columns that are not used for path, label, split or group keep their names.

    Values are compared with `label_map` as text: 0, "0" and 0.0 are equal. Other values stay, and the check of the table
    reports them. A cell of `attributes` is 1, true or yes; 0, -1, false or no; or empty: not known. `bins` of [30, 50] mean
    x < 30, 30 ≤ x < 50 and 50 ≤ x. The order of classes is that of `classes`, else of `label_map`, else sorted.

    Raises FaceattrError: root, file, image_dir or a column missing; bins that do not fit classes; a cell that is no number
    with `bins`; an attribute that is neither yes nor no.
    """
    root = existing_root(root, f"{file} (data.file) and the images (data.image_dir)")
    path = root / file
    frame = read(path)
    others = [str(name) for name in frame if name not in (image_column, split_column, group_column)]
    names = listed_attributes(attributes, others, str(path))
    _check_attribute_names(names, path)
    columns = {"image": image_column, "label": None if names else label_column}
    _check_columns(frame, path, columns | {"split": split_column, "group": group_column})
    if bins and label_map:
        raise FaceattrError("data.bins and data.label_map exclude each other: set one of them to null.")
    if label_column == "Gender" and set(classes or ()) <= set(S0_LABELS.values()):
        label_map = label_map or S0_LABELS
    class_of = {_plain(value): str(name) for value, name in (label_map or {}).items()}

    table = pd.DataFrame({"path": _paths(root, image_dir or "", frame[image_column])})
    if names:
        table = table.join(_yes_or_no(path, frame[[image_column, *names]]))
    else:
        values = frame[label_column]
        if bins:
            labels = _bin(path, frame[image_column], values, bins, classes or [])
        else:
            labels = values.map(_plain).map(lambda value: class_of.get(value, value))
        table["label"] = labels.mask(values == "")
    if split_column:
        split = frame[split_column].map(lambda name: SPLIT_ALIASES.get(name.lower(), name))
        table["split"] = split.mask(split == "")
    if group_column:
        table["group"] = frame[group_column].mask(frame[group_column] == "")
    used = {image_column, split_column, group_column} | (set(names) or (set() if bins else {label_column}))
    table = table.join(_further(path, frame[[column for column in frame if column not in used]]))
    defaults = names or list(dict.fromkeys(class_of.values())) or sorted(table["label"].dropna().unique())
    kind = {"multilabel": True} if names else {"ordinal": bool(bins)}
    table.attrs.update(classes=list(map(str, classes or defaults)), **kind)
    return table


def _check_attribute_names(names: list[str], path: Path) -> None:
    if reserved := [name for name in names if name in RESERVED]:
        raise FaceattrError(
            f"data.attributes: {path} has a column {reserved[0]!r}, a name with a meaning here: rename it."
        )


def _check_columns(frame: pd.DataFrame, path: Path, columns: dict[str, str | None]) -> None:
    """Raises FaceattrError if a column that a config key names does not exist."""
    for key, column in columns.items():
        if column and column not in frame:
            choices = ", ".join(map(str, frame))
            raise FaceattrError(f"data.{key}_column={column}: {path} has no such column. Its columns: {choices}.")


def _yes_or_no(path: Path, cells: pd.DataFrame) -> pd.DataFrame:
    """1, 0 or nan for each cell of the attribute columns; the first column has the image names."""
    images, cells = cells.iloc[:, 0], cells.iloc[:, 1:]
    values = cells.map(lambda cell: YES_OR_NO.get(_plain(cell).lower()))
    invalid = np.argwhere((values.isna() & (cells != "")).to_numpy())
    if len(invalid):
        examples = "; ".join(
            f"row {row + 1} ({images.iloc[row]}): {cells.columns[c]}={cells.iat[row, c]!r}" for row, c in invalid[:5]
        )
        count = f"{len(invalid):,} cells of data.attributes"
        raise FaceattrError(f"{path}: {count} are neither 1 nor 0 nor empty: {examples}")
    return values.astype(float)


def decoded(path: Path) -> str:
    """The contents of a text file in UTF-8, in UTF-16 with a byte order mark, or else in latin-1."""
    raw = path.read_bytes()
    try:
        return raw.decode("utf-16" if raw.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig")
    except UnicodeDecodeError:
        log.info("%s is not UTF-8: read as latin-1", path)
        return raw.decode("latin-1")


def read(path: Path) -> pd.DataFrame:
    """The table with all cells as stripped text, so that names such as "001" keep their zeros."""
    if not path.is_file():
        tables = ", ".join(sorted(file.name for file in path.parent.glob("*.csv")))
        raise FaceattrError(f"data.file does not exist: {path}. Tables there: {tables or 'none'}.")
    text = decoded(path)
    separator = max(",;\t|", key=text.partition("\n")[0].count)
    try:
        frame = pd.read_csv(io.StringIO(text), sep=separator, dtype=str, keep_default_na=False, index_col=False)
    except ValueError as error:  # parser errors, and files without columns
        raise FaceattrError(f"{path} is not a readable CSV: {error}") from error
    frame.columns = frame.columns.str.strip()
    return frame.fillna("").apply(lambda column: column.str.strip())


def _paths(root: Path, folder: str, names: pd.Series) -> list[str | None]:
    """Paths relative to root. A name without extension becomes the path of the image with that name, if there is one.

    Raises FaceattrError: no folder, or two images for a name without extension.
    """
    if not (root / folder).is_dir():
        raise FaceattrError(
            f"data.image_dir does not exist: {root / folder}. With data.image_dir=null, names are relative to data.root."
        )
    paths = [posixpath.join(folder, name) if name else None for name in names.str.replace("\\", "/", regex=False)]
    without_suffix = {path for path in paths if path and not is_image(path)}
    folders = {posixpath.dirname(path) for path in without_suffix}
    listed = ((folder, name) for folder in folders for name in file_names(root / folder))
    files = [posixpath.join(folder, name) for folder, name in listed if is_image(name) and not is_leftover(name)]
    by_stem: dict[str, str] = {}
    for file in sorted(files):
        stem = posixpath.splitext(file)[0]
        if by_stem.setdefault(stem, file) != file and stem in without_suffix:
            raise FaceattrError(f"{stem!r} may be {by_stem[stem]} or {file} in {root}: give names with extension.")
    return [by_stem.get(path, path) if path in without_suffix else path for path in paths]


def _plain(value: object) -> str:
    """A label as text. 0, "0", 0.0 and " 0 " give the same text."""
    return re.sub(r"^(-?\d+)\.0*$", r"\1", str(value).strip())


def _bin(path: Path, images: pd.Series, values: pd.Series, bins: list, classes: list[str]) -> pd.Series:
    """The class of each number; the caller masks empty cells. Raises FaceattrError: bins that do not increase or do not fit
    the number of classes, or other cells that are no numbers (the message gives their rows)."""
    if len(classes) != len(bins) + 1 or sorted(set(bins)) != bins:
        raise FaceattrError(
            f"data.bins={bins} must be increasing numbers, and makes {len(bins) + 1} classes; data.classes names "
            f"{len(classes)}: {classes}. E.g. data.bins=[30,50] data.classes=[young,middle,old]."
        )
    numbers = pd.to_numeric(values, errors="coerce")
    invalid = np.flatnonzero((values != "") & ~np.isfinite(numbers))
    if len(invalid):
        rows = "; ".join(f"row {row + 1} ({images.iloc[row]}): {values.iloc[row]!r}" for row in invalid[:5])
        raise FaceattrError(f"{path}: {len(invalid):,} cells of column {values.name!r} are not numbers: {rows}")
    return pd.Series(np.array(classes, dtype=object)[np.digitize(numbers, bins)], index=values.index)


def _further(path: Path, columns: pd.DataFrame) -> pd.DataFrame:
    """The other columns, as numbers if all their cells are numbers. Names that the table reserves get the prefix `csv_`."""
    if reserved := [name for name in columns if name in RESERVED]:
        log.info("%s: not used, kept as csv_<name>: %s (data.split_column etc. say which to use)", path, reserved)
    numbers = columns.apply(pd.to_numeric, errors="coerce")
    numeric = [name for name in columns if (numbers[name].notna() == (columns[name] != "")).all()]
    return columns.assign(**numbers[numeric]).rename(columns={name: f"csv_{name}" for name in reserved})
