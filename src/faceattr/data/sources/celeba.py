"""Source `celeba`: one attribute of CelebA as label, or several; its partition as split, its identities as group.

Reads the official text files or Kaggle's CSV files, in the folders of the archives or of torchvision.
"""

import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd

from faceattr.config.key_annotation import Key
from faceattr.data.sources.conventions import SPLITS, Attributes, existing_root, file_names, listed_attributes
from faceattr.data.sources.labels import Unknown, known_codes
from faceattr.errors import FaceattrError
from faceattr.message_text import counted, counted_of, listed

log = logging.getLogger(__name__)

FOLDERS = ("", "celeba", "Anno", "Eval", "Img")
LAYOUT = (
    "img_align_celeba/*.jpg, list_attr_celeba.txt, list_eval_partition.txt and, for identities, identity_CelebA.txt"
)
SITE = "https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html"


def load(
    root: str | Path,
    *,
    attribute: Annotated[
        str,
        Key("The attribute that is the label: Male gives female and male; another, Smiling, not_smiling and smiling."),
    ] = "Male",
    attributes: Attributes = None,
    unknown: Unknown = "auto",
    allow_missing: Annotated[bool, Key("Go on without the images that are missing.")] = False,
    download: Annotated[bool, Key("Download CelebA through torchvision, into data.root/celeba.")] = False,
    first_per_class: Annotated[
        int | None, Key("Only the first rows of each class, without the official partition (study S2).", minimum=1)
    ] = None,
    last_per_class: Annotated[
        int | None, Key("With first_per_class: the last rows of each class are the test.", minimum=1)
    ] = None,
) -> pd.DataFrame:
    """A row per line of the attribute file; further attributes are bool columns. Where the file has 0 beside 1 and -1, 0 means
    not known: such an image has no label, and False in a further column. `attrs["notes"]` says it.

    Raises FaceattrError: root or a file missing, an unknown attribute, missing images, a failed download.
    """
    if download and root and not (_find(Path(root), "list_attr_celeba") and _image_folder(Path(root))):
        _download(Path(root))
    root = existing_root(root, LAYOUT)
    source, folder = _find(root, "list_attr_celeba"), _image_folder(root)
    if source is None or folder is None:
        missing = "no folder img_align_celeba" if source else "no list_attr_celeba.txt (or .csv)"
        raise FaceattrError(f"data.root={root} has {missing}. Expected there: {LAYOUT}.")
    values = _read(source)  # 1, -1 or 0; a row per image, a column per attribute
    _check_codes(values, source)
    names = listed_attributes(attributes, list(map(str, values)), str(source))
    if not names and attribute not in values:
        choices = listed(values, 50)
        raise FaceattrError(f"data.attribute={attribute} is not in {source}. Its attributes: {choices}.")
    if last_per_class and not first_per_class:
        raise FaceattrError(f"data.last_per_class={last_per_class} needs data.first_per_class too.")
    if names and first_per_class:
        raise FaceattrError("data.first_per_class draws classes; data.attributes has none. Use data.max_images.")

    codes = {str(int(code)) for code in np.unique(values.to_numpy())}
    values = _with_image(values, folder, source, allow_missing)
    labels, note = known_codes(values[names or [attribute]].astype(float), codes, unknown, where=source.name)
    notes = {"notes": [note]} if "0" in codes else {}
    table = pd.DataFrame({"path": f"{folder.relative_to(root).as_posix()}/" + values.index}, index=values.index)
    if names:
        table = table.join(labels)
        table.attrs.update(classes=names, multilabel=True, **notes)
    else:
        classes = ["female", "male"] if attribute == "Male" else [f"not_{attribute.lower()}", attribute.lower()]
        table["label"] = labels[attribute].map({0.0: classes[0], 1.0: classes[1]})
        table.attrs.update(classes=classes, ordinal=False, **notes)
    table = _with_split_and_group(table, root, first_per_class, last_per_class or 0)
    attrs = table.attrs
    table = table.join(values.drop(columns=names or attribute) > 0)
    if first_per_class:
        table = table[table["split"] != "left out"]
    table = table.reset_index(drop=True)
    table.attrs.update(attrs)
    return table


def _check_codes(values: pd.DataFrame, source: Path) -> None:
    """Raises FaceattrError for an attribute that is none of 1, -1 and 0."""
    wrong = np.argwhere(~values.isin([-1, 0, 1]).to_numpy())
    if len(wrong):
        row, column = wrong[0]
        cell = f"{values.columns[column]!r} of {values.index[row]!r} is {values.to_numpy(float)[row, column]:g}"
        raise FaceattrError(f"{source}: attribute {cell}; expected 1, -1 or 0 (not known).")


def _with_image(values: pd.DataFrame, folder: Path, source: Path, allow_missing: bool) -> pd.DataFrame:
    """The rows whose image is in `folder`. Raises FaceattrError if images are missing, unless that is allowed."""
    present = values.index.isin(list(file_names(folder)))
    if present.all():
        return values
    message = f"{source}: {counted_of(int((~present).sum()), len(values), 'image', 'are')} missing in {folder}"
    if not allow_missing or not present.any():
        first = str(values.index[~present][0])
        others = sorted(name for name in file_names(folder) if Path(name).stem == Path(first).stem)
        example = f"e.g. {first}" + (f"; {others[0]} is there: rename the images in the table" if others else "")
        raise FaceattrError(f"{message}, {example}.\ndata.allow_missing=true continues without them.")
    log.warning("data.allow_missing: %s: left out", message)
    return values[present]


def _with_split_and_group(table: pd.DataFrame, root: Path, first_per_class: int | None, last: int) -> pd.DataFrame:
    """Adds the columns `split` and `group`, if there are files for them. `first_per_class` replaces the partition."""
    partition, identity = _find(root, "list_eval_partition"), _find(root, "identity_CelebA")
    if first_per_class:
        table["split"] = _first_and_last(table["label"], first_per_class, last)
    elif partition:
        table["split"] = _read(partition).iloc[:, 0].map(dict(enumerate(SPLITS)))
    if identity:
        table["group"] = _read(identity).iloc[:, 0].astype(str)
    return table


def _first_and_last(labels: pd.Series, first: int, last: int) -> pd.Series:
    """The split: None for the first rows of each class, `test` for the last ones, `left out` for the rows between."""
    by_class = labels.groupby(labels)
    smallest = int(by_class.size().min())
    if first + last > smallest:
        raise FaceattrError(
            f"data.first_per_class={first} and data.last_per_class={last} ask for {first + last:,} rows of each class; "
            f"one has {smallest:,}."
        )
    split = pd.Series("left out", labels.index, dtype=object)
    split[by_class.cumcount() < first] = None
    split[by_class.cumcount(ascending=False) < last] = "test"
    return split


def _find(root: Path, name: str, suffixes: Sequence[str] = (".txt", ".csv")) -> Path | None:
    paths = (root / folder / f"{name}{suffix}" for folder in FOLDERS for suffix in suffixes)
    return next((path for path in paths if path.exists()), None)


def _image_folder(root: Path) -> Path | None:
    return _find(root, "img_align_celeba", ("/img_align_celeba", ""))  # nested in Kaggle's archive


def _read(path: Path) -> pd.DataFrame:
    """Columns of numbers, indexed by the name of the image.

    The official attribute file starts with a line with the number of images, then a line with the attributes' names; without the
    former it is read, too. The other official files have no header.
    """
    try:
        separator, above = _layout(path)
        if path.suffix == ".csv":
            frame = pd.read_csv(path, index_col=0, sep=separator)
        elif above:
            frame = pd.read_csv(path, sep=r"\s+", skiprows=above - 1)
        else:
            frame = pd.read_csv(path, sep=r"\s+", header=None, index_col=0)
        frame = frame.apply(pd.to_numeric)
        if frame.isna().any(axis=None) or frame.empty:
            raise ValueError("a value is missing")
        return frame
    except ValueError as error:  # parser errors, cells that are no numbers, files that are no text
        raise FaceattrError(f"{path} is not in CelebA's format: {_wrong_line(path) or error}") from error


def _layout(path: Path) -> tuple[str | None, int]:
    """The separator (None: blanks), and how many lines stand above the first row."""
    with path.open(encoding="utf-8", errors="replace") as stream:
        first = stream.readline(100_000)
    if path.suffix == ".csv":
        return max(",;\t", key=first.count), 1
    return None, 0 if path.stem != "list_attr_celeba" else 2 if first.strip().isdecimal() else 1


def _wrong_line(path: Path) -> str:
    """The first line of a file that does not fit its header, or holds a cell that is no number; "" where each does."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    separator, above = _layout(path)
    if len(lines) <= above:
        return "it has no rows"
    names = lines[above - 1].split(separator) if above else []
    columns = names[1:] if path.suffix == ".csv" else names
    for number, line in enumerate(lines[above:], above + 1):
        cells = line.split(separator)[1:]
        if line.strip() and len(cells) != (len(columns) or 1):
            return f"line {number}: {counted(len(cells), 'value')}, expected {len(columns) or 1}"
        for position, cell in enumerate(cells):
            if not re.fullmatch(r"\s*[+-]?\d+(\.\d*)?\s*", cell):
                name = columns[position] if columns else "value"
                return f"line {number}, column {name}: {cell[:60]!r}; expected a number"
    return ""


def _download(root: Path) -> None:
    from torchvision.datasets import CelebA  # a slow import that is rarely needed

    try:
        CelebA(root, split="all", download=True)
    except Exception as error:  # many kinds: connection, Google Drive's quota, gdown not installed
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise FaceattrError(
            f"data.download: torchvision could not download CelebA: {reason}\n"
            f"Get img_align_celeba.zip, list_attr_celeba.txt, list_eval_partition.txt and identity_CelebA.txt from\n"
            f"{SITE} into {root / 'celeba'} and unpack the zip there (it makes img_align_celeba/)."
        ) from error
