"""Any CSV with a row per image: a column of image names, a column of labels (classes by name, by a map, or a number
that is cut into classes), optionally a split and a group. The defaults read S0's `results.csv`, where Gender is 0 for
male and 1 for female.
"""

import csv
import io
import logging
import posixpath
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from faceattr.errors import FaceattrError
from faceattr.sources.layout import SPLIT_ALIASES, existing_root, file_names, is_image

log = logging.getLogger(__name__)

S0_LABELS = {"0": "male", "1": "female"}
RESERVED = ("path", "label", "split", "group")


def load(
    root: str | Path,
    *,
    file: str = "results.csv",
    image_column: str = "Filename",
    label_column: str = "Gender",
    label_map: dict | None = None,
    bins: list | None = None,
    classes: list[str] | None = None,
    split_column: str | None = None,
    group_column: str | None = None,
    image_dir: str | None = "images",
) -> pd.DataFrame:
    """A row per line of `root/file`; every column that is not used for path, label, split or group is kept by its name.

    image_dir: below root; null or "" where the image names are relative to root themselves.
    label_map: value in the file → class; values are compared as text (0, "0" and 0.0 are the same), and one that is
        not in the map stays as it is, so that the table's check can list it.
    bins: right-open thresholds for a number: [30, 50] gives x < 30, 30 ≤ x < 50 and 50 ≤ x, named by `classes`.
    classes: names in label order; else the order of label_map's values, else the labels sorted.

    Raises FaceattrError: root, file, image_dir or a column missing; bins that do not fit classes; a non-number to cut.
    """
    root = existing_root(root, f"{file} (data.file) and the images (data.image_dir)")
    path = root / file
    frame = _read(path, image_column)
    named = {"image_column": image_column, "label_column": label_column}
    named |= {"split_column": split_column} if split_column else {}
    named |= {"group_column": group_column} if group_column else {}
    for key, column in named.items():
        if column not in frame:
            raise FaceattrError(
                f"data.{key}={column}: {path} has no such column. Its columns: {', '.join(map(str, frame))}."
            )

    table = pd.DataFrame({"path": _paths(root, image_dir, frame[image_column])})
    if bins:
        if label_map:
            raise FaceattrError("data.bins and data.label_map exclude each other: set one of them to null.")
        table["label"] = _cut(path, frame[image_column], frame[label_column], bins, classes)
    else:
        if not label_map and label_column == "Gender" and set(classes or ()) <= set(S0_LABELS.values()):
            label_map = S0_LABELS
        table["label"] = _named(frame[label_column], label_map or {})
    if split_column:
        names = frame[split_column].str.lower()
        table["split"] = names.map(SPLIT_ALIASES).fillna(frame[split_column]).where(names != "", None)
    if group_column:
        table["group"] = frame[group_column].where(frame[group_column] != "", None)

    used = {image_column, split_column, group_column} | (set() if bins else {label_column})
    table = table.join(_extra(path, frame[[column for column in frame if column not in used]]))
    names_in_map = list(dict.fromkeys(str(name) for name in (label_map or {}).values()))
    table.attrs["classes"] = list(map(str, classes or names_in_map or sorted(table["label"].dropna().unique())))
    table.attrs["ordinal"] = bool(bins)
    return table


def _read(path: Path, image_column: str) -> pd.DataFrame:
    """All cells as stripped text, so that an image "001" and a group "0007" stay what they are."""
    if not path.is_file():
        there = sorted(name for name in file_names(path.parent) if name.lower().endswith((".csv", ".tsv", ".txt")))
        raise FaceattrError(f"data.file does not exist: {path}. Tables there: {', '.join(there) or 'none'}.")
    raw = path.read_bytes()
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        text = raw.decode("utf-16")
    else:
        try:
            text = raw.decode("utf-8-sig")
        except UnicodeDecodeError:
            log.info("%s is not UTF-8: read as latin-1", path)
            text = raw.decode("latin-1")
    separator = _separator(text.lstrip().partition("\n")[0], image_column)
    try:
        frame = pd.read_csv(io.StringIO(text), sep=separator, dtype=str, keep_default_na=False, index_col=False)
    except ValueError as error:  # pandas' parser errors and "no columns" are both ValueErrors
        raise FaceattrError(f"{path} is not a readable CSV: {error}") from error
    frame.columns = frame.columns.str.strip()
    return frame.fillna("").apply(lambda column: column.str.strip())


def _separator(header: str, image_column: str) -> str:
    """The separator that brings out the image column; without one, the most frequent (the error lists its columns)."""
    for separator in ",;\t|":
        if image_column in [name.strip() for name in next(csv.reader([header], delimiter=separator), [])]:
            return separator
    return max(",;\t|", key=header.count)


def _paths(root: Path, image_dir: str | None, names: pd.Series) -> list[str | None]:
    folder = image_dir or ""
    if not (root / folder).is_dir():
        raise FaceattrError(f"data.image_dir does not exist: {root / folder}. Null: names relative to data.root.")
    names = names.str.replace("\\", "/", regex=False)
    paths = [posixpath.join(folder, name) if name else None for name in names]
    unfinished = {path for path in paths if path and not is_image(path)}
    complete = _with_suffix(root, unfinished) if unfinished else {}
    return [complete.get(path, path) if path else None for path in paths]


def _with_suffix(root: Path, paths: set[str]) -> dict[str, str]:
    """Names without extension → the image of that name, from one listing per folder; a name without one is left out."""
    complete: dict[str, str] = {}
    for folder in sorted({posixpath.dirname(path) for path in paths}):
        files = file_names(root / folder)
        by_stem: dict[str, str] = {}
        for name in sorted(filter(is_image, files)):
            full = posixpath.join(folder, name)
            stem = posixpath.splitext(full)[0]
            if stem in paths and posixpath.basename(stem) not in files and by_stem.setdefault(stem, full) != full:
                raise FaceattrError(f"{stem!r} may be {by_stem[stem]} or {full} in {root}: give names with extension.")
        complete |= by_stem
    return complete


def _text(value: object) -> str:
    """A raw label as text: 0, "0", 0.0 and " 0 " are the same."""
    text = str(value).strip()
    whole, dot, zeros = text.partition(".")
    return whole if dot and whole.lstrip("-").isdigit() and not zeros.strip("0") else text


def _named(values: pd.Series, label_map: Mapping) -> pd.Series:
    classes = {_text(value): str(name) for value, name in label_map.items()}
    labels = {value: classes.get(_text(value), _text(value)) for value in values.unique()}
    return values.map(labels).where(values != "", None)


def _cut(path: Path, images: pd.Series, values: pd.Series, bins: Sequence, classes: Sequence | None) -> pd.Series:
    """Numbers → classes; an empty cell is a missing label, any other non-number an error that names its row."""
    if len(classes or ()) != len(bins) + 1:
        raise FaceattrError(
            f"data.bins={list(bins)} makes {len(bins) + 1} classes; data.classes names {len(classes or ())}: "
            f"{list(classes or ())}. E.g. data.bins=[30,50] data.classes=[young,middle,old]."
        )
    if not all(isinstance(bound, int | float) for bound in bins) or sorted(set(bins)) != list(bins):
        raise FaceattrError(f"data.bins={list(bins)} must be numbers that rise from one threshold to the next.")
    numbers = pd.to_numeric(values, errors="coerce")
    wrong = np.flatnonzero((values != "") & ~np.isfinite(numbers))
    if len(wrong):
        rows = "; ".join(f"row {row + 1} ({images.iloc[row]}): {values.iloc[row]!r}" for row in wrong[:5])
        more = "; …" if len(wrong) > 5 else ""
        raise FaceattrError(f"{path}: {len(wrong):,} of column {values.name!r} are not numbers to cut: {rows}{more}")
    names = np.array([str(name) for name in classes or ()], dtype=object)
    return pd.Series(names[np.digitize(numbers, bins)], index=values.index).where(values != "", None)


def _extra(path: Path, columns: pd.DataFrame) -> pd.DataFrame:
    """The other columns, as numbers where all cells are; a name with a meaning in the table gets `csv_` before it."""
    reserved = [name for name in columns if name in RESERVED]
    if reserved:
        log.info("%s: not used, kept as csv_<name>: %s (data.split_column etc. say which to use)", path, reserved)
    numbers = {str(name): pd.to_numeric(columns[name], errors="coerce") for name in columns}
    numeric = {name: column for name, column in numbers.items() if (column.notna() == (columns[name] != "")).all()}
    return columns.assign(**numeric).rename(columns={name: f"csv_{name}" for name in reserved})
