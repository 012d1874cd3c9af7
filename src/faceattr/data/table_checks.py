"""Checks of a source's table. Each returns its problems as lines with a count and up to five examples, so that one error can
list all of them.
"""

import logging
import os
import posixpath
import sys
import unicodedata
from collections.abc import Collection
from pathlib import Path

import pandas as pd

from faceattr.data.sources.conventions import SPLITS, file_names
from faceattr.errors import FaceattrError
from faceattr.message_text import counted, is_class_name, listed, shortened

log = logging.getLogger(__name__)

EXAMPLES = 5
OUTSIDE = r"/|\.\.(/|$)" + ("|[A-Za-z]:" if sys.platform == "win32" else "")
"""A normalised path that leaves data.root. On Windows a drive does; elsewhere `C:` is a name."""


def normalise(table: pd.DataFrame, root: Path, split: str | None) -> pd.DataFrame:
    """The table sorted by normalised path, with labels as text. A path below `root` becomes relative to it.

    Drops the columns `split` and `group` if they are empty or unused: `data.split=identity` ignores the source's split,
    `data.split=random` renames `group` to `identity`. Raises FaceattrError: split=identity without groups.
    """
    prefixes = [f"{folder.as_posix()}/" for folder in (root.absolute(), root.resolve())]  # root may be a link
    paths = [posixpath.normpath(path.replace(os.sep, "/")) if isinstance(path, str) else None for path in table["path"]]
    for prefix in prefixes:
        paths = [path.removeprefix(prefix) if path else None for path in paths]
    if not all(path.isascii() for path in paths if path):
        paths = _as_on_disk(root, paths)
    unused = [name for name in ("split", "group") if name in table and table[name].isna().all()]
    unused += ["split"] if split == "identity" and "split" in table else []
    labels = table["label"].astype(object).map(str, na_action="ignore")
    table = table.drop(columns=unused).assign(path=pd.Series(paths, table.index, dtype=object), label=labels)
    if split == "identity" and "group" not in table:
        raise FaceattrError("data.split=identity needs a group for the images, and this source gives none.")
    if split == "random":
        other = {"identity": "source_identity"} if "group" in table else {}  # a further column of this name makes room
        table = table.rename(columns={**other, "group": "identity"})
    return table.sort_values("path", kind="stable", ignore_index=True)


def row_problems(table: pd.DataFrame, root: Path, *, split_required: bool) -> list[str]:
    """Paths that are missing, duplicated, outside `root` or without a file; split names that do not exist."""
    paths = table["path"].dropna()
    problems = [f"rows without a path ({len(table) - len(paths):,})"] if len(paths) < len(table) else []
    outside = paths.str.match(OUTSIDE)
    problems += _problem("path that leaves data.root", paths[outside])
    missing = _without_file(root, paths[~outside])
    problems += _problem(f"missing file{_where_else(root, missing)}", missing)
    problems += _problem("duplicate path", paths[paths.duplicated()].drop_duplicates())
    if "split" in table:
        allowed = table["split"].isin(SPLITS) | (table["split"].isna() & (not split_required))
        problems += _problem(f"split other than {', '.join(SPLITS)}", _path_and_value(table, "split")[~allowed])
    return problems


def leave_out_missing(table: pd.DataFrame, root: Path) -> tuple[pd.DataFrame, list[tuple[str, str]]]:
    """The table without the rows whose file is missing below `root`, and their paths with the reason."""
    paths = table["path"].dropna()
    missing = set(_without_file(root, paths[~paths.str.match(OUTSIDE)]))
    reasons = [(path, _reason(root, path)) for path in sorted(missing)]
    return table[~table["path"].isin(missing)], reasons


def _reason(root: Path, path: str) -> str:
    try:
        return "a directory, not a file" if (root / path).is_dir() else "no such file"
    except OSError as error:  # a name that is too long, links that lead in a circle
        return error.strerror or "no such file"


def leave_out_unlabelled(
    table: pd.DataFrame, names: list[str], multilabel: bool
) -> tuple[pd.DataFrame, list[tuple[str, str]]]:
    """The table without the rows that have no label or another than `names`, and their paths with that label.

    Attributes: without the rows of which none is known.
    """
    labelled = table[names].notna().any(axis=1) if multilabel else table["label"].isin(names)
    bad = table[~labelled]
    labels = [""] * len(bad) if multilabel else bad["label"].astype(object).where(bad["label"].notna(), "").tolist()
    if len(bad):
        log.warning(
            "Left out %s without a label (data.on_bad_label=skip); see bad_labels.csv", counted(len(bad), "image")
        )
    return table[labelled], list(zip(bad["path"].astype(object).where(bad["path"].notna(), ""), labels, strict=True))


def warn_about_small_classes(table: pd.DataFrame) -> None:
    """Says which classes of a prepared table have fewer than 5 images, or under 1%."""
    counts = table["label"].value_counts()
    if small := [f"{name} ({n:,})" for name, n in counts.items() if 0 < n < max(5, 0.01 * len(table))]:
        log.warning("Classes with fewer than 5 images or under 1%%: %s. Are they classes?", listed(small))


def label_problems(table: pd.DataFrame, names: list[str], multilabel: bool) -> list[str]:
    """Labels that are missing or no class; multilabel: attributes with an invalid value or all unknown."""
    return _attribute_problems(table, names) if multilabel else _class_problems(table, names)


def split_problems(table: pd.DataFrame, names: list[str], required: Collection[str], multilabel: bool) -> list[str]:
    """`required` splits without images; classes or attributes absent from train; groups in more than one split."""
    present = set(table["split"])
    problems = _problem("empty split", [name for name in SPLITS if name in required and name not in present])
    if "train" in present:
        train = table[table["split"] == "train"]
        known = [name for name in names if train[name].notna().any()] if multilabel else set(train["label"])
        problem = "attribute without a known label in train" if multilabel else "class absent from train"
        problems += _problem(problem, [name for name in names if name not in known])
        constant = [name for name in known if train[name].nunique() == 1] if multilabel else []
        values = [f"{name} (always {'yes' if train[name].max() else 'no'})" for name in constant]
        problems += _problem("attribute of which all training images have the same value", values)
    if "group" in table:
        splits = table[table["split"].isin(SPLITS)].sort_values("split").groupby("group")["split"].unique()
        divided = [f"{group} ({' and '.join(in_splits)})" for group, in_splits in splits.items() if len(in_splits) > 1]
        problems += _problem("group in two splits (data.split=identity makes a split that divides no group)", divided)
    return problems


def _class_problems(table: pd.DataFrame, names: list[str]) -> list[str]:
    choices, labels = f"[{listed(map(shortened, names))}]", table["label"]
    valid = len(names) >= 2 and len(set(names)) == len(names)
    problems = [] if valid else [f"data.classes={choices}: at least two classes are needed, each named once"]
    problems += _problem(
        "class name of several lines, or over 200 characters", [n for n in names if not is_class_name(n)]
    )
    hint = "data.on_bad_label=skip leaves these out; data.classes=[none,…] makes none a class"
    problems += _problem(f"no label, or a marker such as none ({hint})", table["path"][labels.isna()])
    unknown = table[labels.notna() & ~labels.isin(names)]
    values = listed(value[:40] for value in sorted(unknown["label"].unique()))
    problem = f"label outside data.classes {choices}, namely {values}"
    return problems + _problem(problem, _path_and_value(unknown, "label"))


def _attribute_problems(table: pd.DataFrame, names: list[str]) -> list[str]:
    valid = len(names) >= 1 and len(set(names)) == len(names)
    problems = [] if valid else [f"data.attributes=[{listed(names)}]: each must be named once"]
    problems += _problem("name of several lines, or over 200 characters", [n for n in names if not is_class_name(n)])
    invalid = ~(table[names].isin([0, 1]) | table[names].isna()).all(axis=1)
    problems += _problem("attribute that is neither 1, 0 nor missing", table["path"][invalid])
    return problems + _problem("no attribute known", table["path"][table[names].isna().all(axis=1)])


def _as_on_disk(root: Path, paths: list[str | None]) -> list[str | None]:
    """Each path as its file is called, where Unicode writes the same letters in another form (é as one sign or as two)."""
    folders = {posixpath.dirname(path) for path in paths if path and not path.startswith(("/", ".."))}
    files = [posixpath.join(folder, name) for folder in folders for name in file_names(root / folder)]
    present, by_form = set(files), {unicodedata.normalize("NFC", file): file for file in files}
    return [p if p is None or p in present else by_form.get(unicodedata.normalize("NFC", p), p) for p in paths]


def _where_else(root: Path, missing: list[str]) -> str:
    """A hint, if the first missing file exists with another suffix or in another folder; else ""."""
    if not missing:
        return ""
    folder, name = posixpath.split(missing[0])
    stem = posixpath.splitext(name)[0]
    if others := sorted(file for file in file_names(root / folder) if stem and posixpath.splitext(file)[0] == stem):
        return f"; {others[0]} is there, with another suffix: leave suffixes out of the table, or mend them"
    parts = missing[0].split("/")
    ends = ("/".join(parts[start:]) for start in range(1, len(parts)))
    if folder := next((end for end in ends if end and (root / end).is_file()), ""):
        return f"; {folder} is there: names are relative to data.root with data.image_dir=null"
    return ""


def _problem(problem: str, examples: pd.Series | list[str]) -> list[str]:
    """One line with the number of examples and the first of them; no line without examples."""
    shown = listed((shortened(str(example)) for example in examples), EXAMPLES)
    return [f"{problem} ({len(examples):,}): {shown}"] if len(examples) else []


def _path_and_value(rows: pd.DataFrame, column: str) -> pd.Series:
    """`path: value` of each row. Columns are not added up: with pyarrow installed, pandas cannot add text and objects."""
    values = [
        f"{path}: {'none' if pd.isna(value) else value}" for path, value in zip(rows["path"], rows[column], strict=True)
    ]
    return pd.Series(values, rows.index, dtype=object)


def _without_file(root: Path, paths: pd.Series) -> list[str]:
    """The paths without a file. Lists each folder once, which is faster than a check for each file."""
    parts = [posixpath.split(path) for path in paths]
    files = {folder: file_names(root / folder) for folder in {folder for folder, _ in parts}}
    return [path for path, (folder, name) in zip(paths, parts, strict=True) if name not in files[folder]]
