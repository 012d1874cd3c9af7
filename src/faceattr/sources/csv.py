"""Any CSV with a row per image: a column of image names, a column of labels (classes by name, by a map, or a number
that is cut into classes), optionally a split and a group. The defaults read S0's `results.csv` (Gender: 0 is male)."""

import io
import logging
import posixpath
import re
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

    image_dir: below root; null where the image names are relative to root themselves.
    label_map: value in the file → class; values are compared as text (0, "0" and 0.0 are the same), and one that is
        not in the map stays as it is, so that the table's check can list it.
    bins: right-open thresholds for a number: [30, 50] gives x < 30, 30 ≤ x < 50 and 50 ≤ x, named by `classes`.
    classes: names in label order; else the order of label_map's values, else the labels sorted.

    Raises FaceattrError: root, file, image_dir or a column missing; bins that do not fit classes; a non-number to cut.
    """
    root = existing_root(root, f"{file} (data.file) and the images (data.image_dir)")
    path = root / file
    frame = read(path)
    wanted = {"image": image_column, "label": label_column, "split": split_column, "group": group_column}
    for key, column in wanted.items():
        if column and column not in frame:
            columns = ", ".join(map(str, frame))
            raise FaceattrError(f"data.{key}_column={column}: {path} has no such column. Its columns: {columns}.")
    if bins and label_map:
        raise FaceattrError("data.bins and data.label_map exclude each other: set one of them to null.")
    if label_column == "Gender" and set(classes or ()) <= set(S0_LABELS.values()):
        label_map = label_map or S0_LABELS
    names = {_plain(value): str(name) for value, name in (label_map or {}).items()}

    values = frame[label_column]
    if bins:
        labels = _cut(path, frame[image_column], values, bins, classes or [])
    else:
        labels = values.map(_plain).map(lambda value: names.get(value, value))
    paths = _paths(root, image_dir or "", frame[image_column])
    table = pd.DataFrame({"path": paths, "label": labels.mask(values == "")})
    if split_column:
        split = frame[split_column].map(lambda name: SPLIT_ALIASES.get(name.lower(), name))
        table["split"] = split.mask(split == "")
    if group_column:
        table["group"] = frame[group_column].mask(frame[group_column] == "")
    used = {image_column, split_column, group_column} | (set() if bins else {label_column})
    table = table.join(_further(path, frame[[column for column in frame if column not in used]]))
    found = list(dict.fromkeys(names.values())) or sorted(table["label"].dropna().unique())
    table.attrs.update(classes=list(map(str, classes or found)), ordinal=bool(bins))
    return table


def decoded(path: Path) -> str:
    """A text file's contents, in UTF-8, UTF-16 with its mark, or else latin-1."""
    raw = path.read_bytes()
    try:
        return raw.decode("utf-16" if raw.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig")
    except UnicodeDecodeError:
        log.info("%s is not UTF-8: read as latin-1", path)
        return raw.decode("latin-1")


def read(path: Path) -> pd.DataFrame:
    """All cells as stripped text, so that an image "001" and a group "0007" stay what they are."""
    if not path.is_file():
        tables = ", ".join(sorted(file.name for file in path.parent.glob("*.csv")))
        raise FaceattrError(f"data.file does not exist: {path}. Tables there: {tables or 'none'}.")
    text = decoded(path)
    separator = max(",;\t|", key=text.partition("\n")[0].count)
    try:
        frame = pd.read_csv(io.StringIO(text), sep=separator, dtype=str, keep_default_na=False, index_col=False)
    except ValueError as error:  # pandas' parser errors and "no columns" are both ValueErrors
        raise FaceattrError(f"{path} is not a readable CSV: {error}") from error
    frame.columns = frame.columns.str.strip()
    return frame.fillna("").apply(lambda column: column.str.strip())


def _paths(root: Path, folder: str, names: pd.Series) -> list[str | None]:
    """Paths below root. A name without extension becomes the image of that name, where there is one."""
    if not (root / folder).is_dir():
        raise FaceattrError(f"data.image_dir does not exist: {root / folder}. Null: names relative to data.root.")
    paths = [posixpath.join(folder, name) if name else None for name in names.str.replace("\\", "/", regex=False)]
    bare = {path for path in paths if path and not is_image(path)}
    parents = {posixpath.dirname(path) for path in bare}
    files = [posixpath.join(parent, name) for parent in parents for name in filter(is_image, file_names(root / parent))]
    whole: dict[str, str] = {}
    for file in sorted(files):
        stem = posixpath.splitext(file)[0]
        if whole.setdefault(stem, file) != file and stem in bare:
            raise FaceattrError(f"{stem!r} may be {whole[stem]} or {file} in {root}: give names with extension.")
    return [whole.get(path, path) if path in bare else path for path in paths]


def _plain(value: object) -> str:
    """A raw label as text: 0, "0", 0.0 and " 0 " are the same."""
    return re.sub(r"^(-?\d+)\.0*$", r"\1", str(value).strip())


def _cut(path: Path, images: pd.Series, values: pd.Series, bins: list, classes: list[str]) -> pd.Series:
    """Numbers → classes; an empty cell stays for the caller, any other non-number is an error that names its row."""
    if len(classes) != len(bins) + 1 or sorted(set(bins)) != bins:
        raise FaceattrError(
            f"data.bins={bins} must be numbers that rise, and makes {len(bins) + 1} classes; data.classes names "
            f"{len(classes)}: {classes}. E.g. data.bins=[30,50] data.classes=[young,middle,old]."
        )
    numbers = pd.to_numeric(values, errors="coerce")
    wrong = np.flatnonzero((values != "") & ~np.isfinite(numbers))
    if len(wrong):
        rows = "; ".join(f"row {row + 1} ({images.iloc[row]}): {values.iloc[row]!r}" for row in wrong[:5])
        raise FaceattrError(f"{path}: {len(wrong):,} of column {values.name!r} are not numbers to cut: {rows}")
    return pd.Series(np.array(classes, dtype=object)[np.digitize(numbers, bins)], index=values.index)


def _further(path: Path, columns: pd.DataFrame) -> pd.DataFrame:
    """The other columns, as numbers where all cells are; a name with a meaning in the table gets `csv_` before it."""
    if reserved := [name for name in columns if name in RESERVED]:
        log.info("%s: not used, kept as csv_<name>: %s (data.split_column etc. say which to use)", path, reserved)
    numbers = columns.apply(pd.to_numeric, errors="coerce")
    numeric = [name for name in columns if (numbers[name].notna() == (columns[name] != "")).all()]
    return columns.assign(**numbers[numeric]).rename(columns={name: f"csv_{name}" for name in reserved})
