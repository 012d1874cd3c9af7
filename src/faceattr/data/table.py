"""The prepared table: a source's table, checked, split and reduced to the images that are used.

`prepare` makes it. The other functions give what else is needed of it: classes, targets, identities, counts, fingerprint.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from faceattr.config.schema import Data
from faceattr.data import splits, table_checks
from faceattr.data.sources.conventions import SPLITS
from faceattr.errors import FaceattrError
from faceattr.message_text import MOST_LISTED, counted

CONTRACT = ("path", "label", "split", "group")
FRACTIONS = Data().fractions


def prepare(
    table: pd.DataFrame,
    root: str | Path,
    *,
    classes: list[str] | None = None,
    split: str | None = "auto",
    fractions: Mapping[str, float] = FRACTIONS,
    seed: int = 0,
    per_class: Mapping[str, int] | None = None,
    max_images: int | None = None,
    on_bad_image: str = "error",
    on_bad_label: str = "error",
) -> pd.DataFrame:
    """A source's table, checked, split and reduced to the images that are used; sorted by path.

    Columns: `path`, `label` (Categorical, categories in label order), `split`, `group` if the source has one, then the
    source's further columns. A multilabel table has, instead of `label`, a float column for each of its `classes`: 1, 0 or
    nan (not known). `attrs` holds `classes`, `ordinal` and `multilabel`.

    classes: class names in label order; default: the source's.
    split: how images are split.
        auto: the source's split column; without one, a new split.
        identity: a new split that keeps each group in one split.
        random: rows without a split get one, regardless of their group; the column `group` is renamed to `identity`.
        None: no split is made or required (evaluation on other data).
    fractions: split → share of each class in a new split. Groups are never divided.
    per_class: split → number of images of each class. Other splits are dropped. A new split fills train first, then val;
        with groups, each split in proportion.
    max_images: at most this many images, with the same proportions of labels and splits.
    seed: the only source of randomness. The order of the source's rows has no effect, and `max_images` never changes the
        split of an image.
    on_bad_image: `skip` leaves out rows whose file is missing; `attrs["bad_images"]` lists them with a reason.
    on_bad_label: `skip` leaves out rows without a label that is a class; `attrs["bad_labels"]` lists them with their label.

    Raises FaceattrError: an invalid setting, or one message with all problems of the table, with counts and five examples.
    """
    root = Path(root)
    if table.empty:
        raise FaceattrError(f"The table of data.root={root} is empty: no images.")
    names = [str(name) for name in (classes if classes is not None else table.attrs["classes"])]
    ordinal, multilabel = (bool(table.attrs.get(kind, False)) for kind in ("ordinal", "multilabel"))
    plan = splits.SplitPlan.parse(split, fractions, per_class or {}, max_images)
    if multilabel and plan.per_class:
        raise FaceattrError("data.per_class draws classes; data.attributes has none. Use data.max_images.")

    table = table_checks.normalise(table.assign(label="") if multilabel else table, root, split)
    left_out: dict[str, list[tuple[str, str]]] = {}
    if on_bad_image == "skip":
        table, left_out["bad_images"] = table_checks.leave_out_missing(table, root)
    if on_bad_label == "skip":
        table, left_out["bad_labels"] = table_checks.leave_out_unlabelled(table, names, multilabel)
    problems = table_checks.row_problems(table, root, split_required=split != "random")
    problems += table_checks.label_problems(table, names, multilabel)
    table = table[table["label"].isin([""] if multilabel else names) & table["path"].notna()]
    if not table.empty:  # an empty table cannot be split; its rows are among the problems
        splits_of_source = split == "auto" and "split" in table
        table, required = splits.split_and_draw(table, plan, seed)
        problems += table_checks.split_problems(table, names, required, multilabel) if split else []
        if splits_of_source and set(required) - set(table["split"]):
            problems.append("these are the data's own splits: data.split=random or data.split=identity makes others")
    if problems:
        raise FaceattrError(f"The table of data.root={root} cannot be used:\n- " + "\n- ".join(problems))
    table = _finish(table, names, ordinal=ordinal, multilabel=multilabel)
    table.attrs.update({kind: rows for kind, rows in left_out.items() if rows})
    return table


def class_names(table: pd.DataFrame) -> list[str]:
    """The classes of a prepared table in label order; multilabel: its attributes."""
    return table.attrs["classes"] if table.attrs["multilabel"] else list(table["label"].cat.categories)


def targets(table: pd.DataFrame) -> np.ndarray:
    """The targets of a prepared table: class indices, int64 [N]; multilabel: 1, 0 or nan, float32 [N, classes]."""
    if table.attrs["multilabel"]:
        return table[class_names(table)].to_numpy(np.float32)
    return table["label"].cat.codes.to_numpy(np.int64)


def with_classes(table: pd.DataFrame, classes: list[str]) -> pd.DataFrame:
    """A prepared table with its classes in another order."""
    labels = {} if table.attrs["multilabel"] else {"label": table["label"].cat.reorder_categories(classes)}
    table = table.assign(**labels)
    table.attrs = {**table.attrs, "classes": classes}
    return table


def identities(table: pd.DataFrame) -> pd.Series | None:
    """The identity of each image; None without one. `data.split=random` renames the column `group` to `identity`."""
    return next((table[name] for name in ("group", "identity") if name in table), None)


def members(table: pd.DataFrame) -> dict[str, pd.Series]:
    """Class → mask of the rows of that class; multilabel: attribute → mask of the rows that have it."""
    multilabel = table.attrs["multilabel"]
    return {name: table[name] == 1 if multilabel else table["label"] == name for name in class_names(table)}


def counts(table: pd.DataFrame) -> pd.DataFrame:
    """Number of images of each class or with each attribute (rows) in each split (columns)."""
    rows = pd.DataFrame(members(table)).groupby(table["split"].to_numpy()).sum().T
    return rows[[split for split in SPLITS if split in rows]].rename_axis(index="label", columns="split")


def shortened(counts: pd.DataFrame) -> pd.DataFrame:
    """`counts` with the ten commonest classes, in their order, and a row for all others; as they are where there are no more."""
    if len(counts) <= MOST_LISTED:
        return counts
    first = counts.sum(axis=1).sort_values(ascending=False, kind="stable").index[:MOST_LISTED]
    others = counts[~counts.index.isin(first)]
    name = counted(len(others), "other")
    return pd.concat([counts[counts.index.isin(first)], others.sum().to_frame(name).T]).rename_axis("label")


def check_splits(table: pd.DataFrame) -> None:
    """Raises FaceattrError if a prepared table can no longer be trained on after unreadable images were removed."""
    problems = table_checks.split_problems(table, class_names(table), {"train", "val"}, table.attrs["multilabel"])
    if problems:
        raise FaceattrError("Without the unreadable images, the table cannot be used:\n- " + "\n- ".join(problems))


def fingerprint(table: pd.DataFrame) -> str:
    """First 16 hex digits of the SHA-256 of what training depends on: paths, labels or attributes, splits, groups, classes.

    The order of rows and columns, further columns and the root have no effect: the same data elsewhere has the same one.
    """
    rows = table[_contract(table)].astype(object).sort_values("path", kind="stable")
    contents = rows.where(rows.notna(), None).to_dict("list") | {"classes": class_names(table)}
    return hashlib.sha256(json.dumps(contents).encode()).hexdigest()[:16]


def _finish(table: pd.DataFrame, names: list[str], *, ordinal: bool, multilabel: bool) -> pd.DataFrame:
    """Rows sorted by path, labels and attributes in their final types, columns of the contract first."""
    table = table.sort_values("path", ignore_index=True)
    if multilabel:
        table = table.drop(columns="label").astype(dict.fromkeys(names, np.float32))
    else:
        table["label"] = pd.Categorical(table["label"], categories=names, ordered=ordinal)
    table.attrs.update(classes=names, ordinal=ordinal, multilabel=multilabel)
    contract = _contract(table)
    return table[contract + [name for name in table if name not in contract]]


def _contract(table: pd.DataFrame) -> list[str]:
    """The columns of a prepared table that training depends on."""
    columns = [name for name in CONTRACT if name in table]
    return [columns[0], *class_names(table), *columns[1:]] if table.attrs["multilabel"] else columns
