"""Source `csv`: any table with a row per image: CSV and other text, Excel, Parquet, JSON.

A column has image names; one column has labels (class names, values of a map, or numbers to bin), or several have
attributes. Columns for split and group are optional. `table_file` reads it, `labels` says what its cells mean.
"""

import logging
import os
import posixpath
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import pandas as pd

from faceattr.config.key_annotation import Key
from faceattr.data.file_finder import FileFinder
from faceattr.data.image_files import is_image
from faceattr.data.sources.conventions import (
    SPLIT_ALIASES,
    Attributes,
    existing_root,
    listed_attributes,
)
from faceattr.data.sources.labels import MISSING, Unknown, to_classes, yes_or_no
from faceattr.data.sources.table_file import cell_errors, read
from faceattr.errors import FaceattrError
from faceattr.message_text import counted, did_you_mean, instead_of, listed

log = logging.getLogger(__name__)

RESERVED = ("path", "label", "split", "group")


def load(
    root: str | Path,
    *,
    file: Annotated[
        str, Key("The table below data.root: text (separator and encoding are detected), .xlsx, .parquet or .jsonl.")
    ] = "results.csv",
    header: Annotated[
        bool, Key("Whether the first row names the columns; else they are numbered: data.image_column=0.")
    ] = True,
    image_column: Annotated[
        str, Key("Column of image names, with or without extension; a name, or a number from 0.")
    ] = "Filename",
    label_column: Annotated[str, Key("Column of labels; a name, or a number from 0.")] = "Gender",
    attributes: Attributes = None,
    unknown: Unknown = "auto",
    label_map: Annotated[
        dict | None,
        Key("value: class, such as {0: male, 1: female}; null: the values are the classes, unless they are numbers."),
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

    Values are compared with `label_map` as text, whatever their case: 0, "0" and 0.0 are equal. Other values stay, and the
    check of the table reports them. A marker such as `NA` is no label. `bins` of [30, 50] mean x < 30, 30 ≤ x < 50 and
    50 ≤ x. The order of classes is that of `classes`, else of `label_map`, else sorted. `attrs["notes"]` has in words what was
    decided about codes.

    Raises FaceattrError: root, file, image_dir or a column missing; a line that is not clear; bins that do not fit classes; a
    cell that is no number with `bins`; an attribute that is neither yes nor no; labels whose meaning nothing says.
    """
    root = existing_root(root, f"{file} (data.file) and the images (data.image_dir)")
    columns = Columns(image_column, label_column, split_column, group_column)
    return to_table(
        read(root / file, header=header),
        root,
        root / file,
        columns,
        attributes=attributes,
        unknown=unknown,
        label_map=label_map,
        bins=bins,
        classes=classes,
        image_dir=image_dir,
    )


class Columns(NamedTuple):
    """The names of the columns that mean something here; None: there is none."""

    image: str
    label: str
    split: str | None = None
    group: str | None = None


def to_table(
    frame: pd.DataFrame,
    root: Path,
    path: Path,
    columns: Columns,
    *,
    attributes: Any = None,
    unknown: str = "auto",
    label_map: dict | None = None,
    bins: list | None = None,
    classes: list[str] | None = None,
    image_dir: str | None = None,
) -> pd.DataFrame:
    """The source's table from cells of text, as `load` describes it; `path` names their origin in messages."""
    columns = Columns(*(named_column(frame, column) for column in columns))
    image_column, label_column, split_column, group_column = columns
    others = [str(name) for name in frame if name not in (image_column, split_column, group_column)]
    names = listed_attributes(attributes, others, str(path))
    _check_attribute_names(names, path)
    _check_columns(frame, path, columns._asdict() | ({"label": None} if names else {}))
    if bins and label_map:
        raise FaceattrError("data.bins and data.label_map exclude each other: set one of them to null.")

    table = pd.DataFrame({"path": _paths(root, image_dir or "", frame[image_column])}, index=frame.index)
    if names:
        labels, note = yes_or_no(path, frame.drop(columns=image_column), names, unknown)
        table = table.join(labels)
        table.attrs["notes"] = [note]
    elif bins:
        table["label"] = _bin(path, frame[label_column], bins, classes or [])
    else:
        table["label"] = to_classes(frame[label_column], label_map, classes, path=path)
    if split_column:
        split = frame[split_column].map(lambda name: SPLIT_ALIASES.get(name.lower(), name))
        table["split"] = split.mask(split == "")
    if group_column:
        table["group"] = frame[group_column].mask(frame[group_column] == "")
    used = {image_column, split_column, group_column} | (set(names) or (set() if bins else {label_column}))
    attrs = table.attrs
    table = table.join(_further(path, frame[[column for column in frame if column not in used]])).reset_index(drop=True)
    mapped = list(dict.fromkeys(map(str, (label_map or {}).values())))
    defaults = names or mapped or sorted(table["label"].dropna().unique())
    kind = {"multilabel": True} if names else {"ordinal": bool(bins)}
    table.attrs = attrs | {"classes": list(map(str, classes or defaults)), **kind}
    return table


def _check_attribute_names(names: list[str], path: Path) -> None:
    if reserved := [name for name in names if name in RESERVED]:
        raise FaceattrError(
            f"data.attributes: {path} has a column {reserved[0]!r}, a name with a meaning here: rename it."
        )


def named_column(frame: pd.DataFrame, column: Any) -> Any:
    """The name of a column that is given by its number, from 0; another name as it is."""
    number = int(column) if column not in frame and str(column).isdecimal() else len(frame.columns)
    return frame.columns[number] if number < len(frame.columns) else column


def _check_columns(frame: pd.DataFrame, path: Path, columns: dict[str, str | None]) -> None:
    """Raises FaceattrError if a column that a config key names does not exist."""
    for key, column in columns.items():
        if column and column not in frame:
            choices, near = listed(frame.columns, 50), did_you_mean(str(column), map(str, frame))
            hint = " Has it no header? Then data.header=false, and data.image_column=0: numbers from 0."
            headless = any(is_image(str(name)) for name in frame)
            raise FaceattrError(
                f"data.{key}_column={column}: {path} has no such column.{near} Its columns: {choices}.{hint if headless else ''}"
            )
        if column in frame.attrs["repeated"]:
            raise FaceattrError(f"data.{key}_column={column}: {path} has several columns of this name. Rename them.")


def _paths(root: Path, folder: str, names: pd.Series) -> list[str | None]:
    """Paths relative to root. A name without extension becomes the path of the image with that name, if there is one.

    Raises FaceattrError: no folder, or two images for a name without extension.
    """
    if not (root / folder).is_dir():
        raise FaceattrError(
            f"data.image_dir does not exist: {root / folder}.{instead_of(root / folder)}\n"
            "With data.image_dir=null, names are relative to data.root."
        )
    paths = [posixpath.join(folder, name) if name else None for name in names.str.replace("\\", "/", regex=False)]
    finder, root_text = FileFinder(), root.as_posix()
    files = [path and not is_image(path) and finder.fitting(posixpath.join(root_text, path)) for path in paths]
    return [
        posixpath.relpath(file.replace(os.sep, "/"), root_text) if file else path
        for file, path in zip(files, paths, strict=True)
    ]


def _bin(path: Path, values: pd.Series, bins: list, classes: list[str]) -> pd.Series:
    """The class of each number; nan for a missing one, and for one below 0 where all `bins` are above 0: a code such as -1.

    Raises FaceattrError: bins that do not increase or do not fit the number of classes, or other cells that are no numbers (the
    message gives their lines).
    """
    if sorted(set(bins)) != bins:
        raise FaceattrError(f"data.bins={bins} must be increasing numbers, e.g. data.bins=[30,50].")
    if len(classes) != len(bins) + 1:
        names = f"data.classes names {len(classes)}: {classes}" if classes else "name them in data.classes"
        raise FaceattrError(
            f"data.bins={bins} makes {len(bins) + 1} classes; {names}. E.g. data.bins=[30,50] data.classes=[young,middle,old]."
        )
    missing = values.str.lower().isin(MISSING)
    numbers = pd.to_numeric(values.mask(missing), errors="coerce")
    invalid = ~missing & ~np.isfinite(numbers)
    if invalid.any():
        raise cell_errors(path, values, invalid, "numbers")
    if bins[0] > 0 and (negative := numbers < 0).any():
        log.warning(
            "%s: in column %r no label: %s below 0, such as %s. Not known?",
            *(path, values.name, counted(int(negative.sum()), "number"), values[negative].iloc[0]),
        )
        missing |= negative
    labels = pd.Series(np.array(classes, dtype=object)[np.digitize(numbers, bins)], index=values.index)
    return labels.mask(missing)


def _further(path: Path, columns: pd.DataFrame) -> pd.DataFrame:
    """The other columns, as numbers if all their cells are numbers. Names that the table reserves get the prefix `csv_`."""
    numbers = columns.apply(pd.to_numeric, errors="coerce")
    numeric = [name for name in columns if (numbers[name].notna() == (columns[name] != "")).all()]
    renamed: dict[str, str] = {}
    for name in (name for name in columns if name in RESERVED):
        renamed[name] = f"csv_{name}"
        while renamed[name] in columns:
            renamed[name] = f"csv_{renamed[name]}"
    if renamed:
        pairs = ", ".join(f"{name} as {other}" for name, other in renamed.items())
        log.info("%s: not used, kept under another name: %s (data.split_column etc. say which to use)", path, pairs)
    return columns.assign(**numbers[numeric]).rename(columns=renamed)
