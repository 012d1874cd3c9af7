"""The contract: what a source's table becomes before anything is trained on it. Checks that name all problems at once,
splits that depend on the seed alone, balanced or smaller draws, and a fingerprint of the contents.
"""

import hashlib
import json
import logging
import posixpath
from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from faceattr.data.sources.layout import SPLITS, file_names
from faceattr.errors import FaceattrError

log = logging.getLogger(__name__)

CONTRACT = ("path", "label", "split", "group")
FRACTIONS = {"train": 0.7, "val": 0.15, "test": 0.15}


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
) -> pd.DataFrame:
    """A source's table, checked, split and drawn: sorted by path, so that the order of the source does not matter.

    The result has `path`, `label` (Categorical: the classes in label order; ordered where they are), `split`, `group`
    where the source gives it, then the source's further columns; `attrs` carries `classes`, `ordinal` and `multilabel`.
    A multilabel table has, in place of `label`, a column of 1, 0 and nan (not known) for each of its `classes`.

    classes: names in label order, by default the source's own.
    split: `auto` takes the source's split column, else makes one; `identity` always makes one, by group; `random` splits
        the rows that the source gives no split, whoever is on them (the group stays as a column `identity`); None
        neither makes nor needs one, for evaluation on other data.
    fractions: split → share of each class, for a split of our own; whole groups stay together.
    per_class: split → images of each class; without a split column train is filled first, then val (groups: each by its
        proportion). Other splits are dropped.
    max_images: a draw of at most so many, with the shares of labels and splits kept.
    All draws come from `seed` alone; each image keeps its split, whatever max_images is.

    Raises FaceattrError: a setting that does not fit, or all problems of the table, with counts and five examples.
    """
    if table.empty:
        raise FaceattrError(f"The table of data.root={root} is empty: no images.")
    names = [str(name) for name in (classes if classes is not None else table.attrs["classes"])]
    ordinal, multilabel = (bool(table.attrs.get(kind, False)) for kind in ("ordinal", "multilabel"))
    shares, sizes = _fractions(fractions), _sizes(per_class or {})
    if multilabel and sizes:
        raise FaceattrError("data.per_class draws classes; data.attributes has none. Use data.max_images.")

    strata = [""] if multilabel else names
    table = _tidy(table.assign(label="") if multilabel else table, Path(root), ignore_split=split == "identity")
    if split == "identity" and "group" not in table:
        raise FaceattrError("data.split=identity needs a group for the images, and this source gives none.")
    if split == "random":
        table = table.rename(columns={"group": "identity"})
    problems = _row_problems(table, Path(root), unplaced=split == "random")
    problems += _attribute_problems(table, names) if multilabel else _class_problems(table, names)
    table = table[table["label"].isin(strata) & table["path"].notna()]
    if not table.empty:  # else there is nothing to split, and its rows are among the problems
        rng = np.random.default_rng(seed)
        table = table.iloc[rng.permutation(len(table))]  # from here on, the first n rows of a kind are a draw of n
        needed = {"train", "val"} | set(sizes)
        if "split" not in table and (split or sizes):
            needed |= set(sizes or shares)
            table = table.assign(split=_new_split(table, rng, shares, sizes))
        elif split == "random" and table["split"].isna().any():
            needed |= set(sizes or shares)
            rest = table[table["split"].isna()]
            made = pd.Series(_new_split(rest, rng, shares, sizes), rest.index)
            table = table.assign(split=table["split"].fillna(made))
        if split == "random" and "identity" in table:
            _warn_of_shared_identities(table)
        table = _draw_per_class(table, sizes) if sizes else table
        table = _draw(table, max_images) if max_images else table
        problems += _split_problems(table, names, needed, multilabel) if split else []
    if problems:
        raise FaceattrError(f"The table of data.root={root} cannot be used:\n- " + "\n- ".join(problems))
    table = table.sort_values("path", ignore_index=True)
    if multilabel:
        table = table.drop(columns="label").astype(dict.fromkeys(names, np.float32))
    else:
        table["label"] = pd.Categorical(table["label"], categories=names, ordered=ordinal)
    table.attrs.update(classes=names, ordinal=ordinal, multilabel=multilabel)
    contract = _contract(table)
    return table[contract + [name for name in table if name not in contract]]


def class_names(table: pd.DataFrame) -> list[str]:
    """The classes of a prepared table in label order, or its attributes."""
    return table.attrs["classes"] if table.attrs["multilabel"] else list(table["label"].cat.categories)


def targets(table: pd.DataFrame) -> np.ndarray:
    """The truth of a prepared table: class positions, int64 [N]; multilabel: 1, 0 and nan, float32 [N, classes]."""
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
    """Whom each image shows, where the table knows; `data.split=random` sets a group aside as `identity`."""
    return next((table[name] for name in ("group", "identity") if name in table), None)


def members(table: pd.DataFrame) -> dict[str, pd.Series]:
    """Which rows of a prepared table show each class, or have each attribute."""
    multilabel = table.attrs["multilabel"]
    return {name: table[name] == 1 if multilabel else table["label"] == name for name in class_names(table)}


def counts(table: pd.DataFrame) -> pd.DataFrame:
    """Images of each class, or with each attribute (rows), in each split (columns)."""
    rows = pd.DataFrame(members(table)).groupby(table["split"].to_numpy()).sum().T
    return rows[[split for split in SPLITS if split in rows]].rename_axis(index="label", columns="split")


def check_splits(table: pd.DataFrame) -> None:
    """Raises FaceattrError where a prepared table lost rows (unreadable images) and can no longer be trained on."""
    if problems := _split_problems(table, class_names(table), {"train", "val"}, table.attrs["multilabel"]):
        raise FaceattrError("Without the unreadable images, the table cannot be used:\n- " + "\n- ".join(problems))


def fingerprint(table: pd.DataFrame) -> str:
    """16 hex digits of the SHA-256 of what training on a prepared table depends on: path, label or attributes, split, group,
    classes; not of the order of rows and columns, further columns, or the root (the same data elsewhere)."""
    rows = table[_contract(table)].astype(object).sort_values("path", kind="stable")
    contents = rows.where(rows.notna(), None).to_dict("list") | {"classes": class_names(table)}
    return hashlib.sha256(json.dumps(contents).encode()).hexdigest()[:16]


def _contract(table: pd.DataFrame) -> list[str]:
    own = [name for name in CONTRACT if name in table]
    return [own[0], *class_names(table), *own[1:]] if table.attrs["multilabel"] else own


def _fractions(given: Mapping[str, float]) -> dict[str, float]:
    """Split → share, in the order of SPLITS, without the zeros."""
    shares = {name: given[name] for name in SPLITS if given.get(name)}
    sound = set(given) <= set(SPLITS) and {"train", "val"} <= set(shares) and min(shares.values()) > 0
    if not sound or abs(sum(shares.values()) - 1) > 1e-6:
        raise FaceattrError(
            f"data.fractions={dict(given)}: train and val need a share, test may be 0, and they must sum to 1 "
            f"(here {sum(shares.values()):g}), e.g. {{train: 0.8, val: 0.2, test: 0}}."
        )
    return shares


def _sizes(given: Mapping[str, int]) -> dict[str, int]:
    """Split → images per class, in the order of SPLITS."""
    if not set(given) <= set(SPLITS) or any(n < 1 for n in given.values()):
        raise FaceattrError(f"data.per_class={dict(given)}: expected counts by split, e.g. {{train: 1600, val: 800}}.")
    return {name: given[name] for name in SPLITS if name in given}


def _tidy(table: pd.DataFrame, root: Path, ignore_split: bool) -> pd.DataFrame:
    """Normal paths (an absolute one below root becomes relative), sorted; no split or group column without a value."""
    here = f"{root.absolute().as_posix()}/"
    paths = [posixpath.normpath(path).removeprefix(here) if isinstance(path, str) else None for path in table["path"]]
    unused = [name for name in ("split", "group") if name in table and table[name].isna().all()]
    unused += ["split"] if ignore_split and "split" in table else []
    labels = table["label"].astype(object).map(str, na_action="ignore")
    table = table.drop(columns=unused).assign(path=pd.Series(paths, table.index, dtype=object), label=labels)
    return table.sort_values("path", kind="stable", ignore_index=True)


def _problem(what: str, examples: pd.Series | list[str]) -> list[str]:
    """One line with the count and the first five, or nothing where there are no examples."""
    shown = [str(example) for example in examples[:5]] + (["…"] if len(examples) > 5 else [])
    return [f"{what} ({len(examples):,}): {', '.join(shown)}"] if len(examples) else []


def _warn_of_shared_identities(table: pd.DataFrame) -> None:
    splits = table.dropna(subset=["identity", "split"]).groupby("identity")["split"].nunique()
    if (splits > 1).any():
        message = (
            "data.split=random: %d of %d identities are in more than one split; data.split=identity keeps them apart"
        )
        log.warning(message, (splits > 1).sum(), len(splits))


def _class_problems(table: pd.DataFrame, names: list[str]) -> list[str]:
    choices, labels = f"[{', '.join(names)}]", table["label"]
    sound = len(names) >= 2 and len(set(names)) == len(names)
    problems = [] if sound else [f"data.classes={choices}: at least two classes are needed, each named once"]
    problems += _problem("no label", table["path"][labels.isna()])
    unknown = table[labels.notna() & ~labels.isin(names)]
    values = ", ".join(sorted(unknown["label"].unique())[:10])
    what = f"label outside data.classes {choices}, namely {values}"
    return problems + _problem(what, _shown(unknown, "label"))


def _shown(rows: pd.DataFrame, column: str) -> pd.Series:
    """`path: value` of each row. Not added as columns: with pyarrow installed, text and objects have no sum in pandas."""
    values = [
        f"{path}: {'none' if pd.isna(value) else value}" for path, value in zip(rows["path"], rows[column], strict=True)
    ]
    return pd.Series(values, rows.index, dtype=object)


def _attribute_problems(table: pd.DataFrame, names: list[str]) -> list[str]:
    sound = len(names) >= 1 and len(set(names)) == len(names)
    problems = [] if sound else [f"data.attributes=[{', '.join(names)}]: each must be named once"]
    wrong = ~(table[names].isin([0, 1]) | table[names].isna()).all(axis=1)
    problems += _problem("attribute that is neither 1, 0 nor missing", table["path"][wrong])
    return problems + _problem("no attribute known", table["path"][table[names].isna().all(axis=1)])


def _row_problems(table: pd.DataFrame, root: Path, unplaced: bool) -> list[str]:
    paths = table["path"].dropna()
    problems = [f"rows without a path ({len(table) - len(paths):,})"] if len(paths) < len(table) else []
    outside = paths.str.match(r"/|\.\.(/|$)")
    problems += _problem("path that leaves data.root", paths[outside])
    problems += _problem("missing file", _missing(root, paths[~outside]))
    problems += _problem("duplicate path", paths[paths.duplicated()].drop_duplicates())
    if "split" in table:
        shown = _shown(table, "split")
        wrong = ~table["split"].isin(SPLITS) & ~(table["split"].isna() & unplaced)
        problems += _problem(f"split other than {', '.join(SPLITS)}", shown[wrong])
    return problems


def _missing(root: Path, paths: pd.Series) -> list[str]:
    """The paths without a file, from one listing per folder."""
    parts = [posixpath.split(path) for path in paths]
    there = {folder: file_names(root / folder) for folder in {folder for folder, _ in parts}}
    return [path for path, (folder, name) in zip(paths, parts, strict=True) if name not in there[folder]]


def _split_problems(table: pd.DataFrame, names: list[str], needed: Collection[str], multilabel: bool) -> list[str]:
    there = set(table["split"])
    problems = _problem("empty split", [name for name in SPLITS if name in needed and name not in there])
    if "train" in there:
        train = table[table["split"] == "train"]
        known = [name for name in names if train[name].notna().any()] if multilabel else set(train["label"])
        what = "attribute without a known label in train" if multilabel else "class absent from train"
        problems += _problem(what, [name for name in names if name not in known])
    if "group" in table:
        places = table[table["split"].isin(SPLITS)].sort_values("split").groupby("group")["split"].unique()
        twice = [f"{group} ({' and '.join(splits)})" for group, splits in places.items() if len(splits) > 1]
        problems += _problem("group in two splits (data.split=identity makes a split without)", twice)
    return problems


def _new_split(
    table: pd.DataFrame, rng: np.random.Generator, shares: dict[str, float], sizes: dict[str, int]
) -> np.ndarray:
    """A split for each row of the shuffled table; None where `sizes` (images per class) leaves no place for it."""
    wanted = np.array([*(sizes or shares).values()])
    if "group" in table:
        place = _place_groups(table, rng, wanted / wanted.sum())
    else:
        by_label = table.groupby("label")["path"]
        of = np.ones(len(table)) if sizes else by_label.transform("size").to_numpy()
        edges = np.outer(wanted.cumsum().round(9), of)  # in each row's class: up to where each split reaches
        place = (by_label.cumcount().to_numpy() + 0.5 > edges).sum(axis=0)
    split = np.array([*(sizes or shares), None], dtype=object)[place]
    counts = ", ".join(f"{name} {(split == name).sum():,}" for name in sizes or shares)
    log.info("split made by data.%s: %s", "per_class" if sizes else "fractions", counts)
    return split


def _place_groups(table: pd.DataFrame, rng: np.random.Generator, shares: np.ndarray) -> np.ndarray:
    """The place among the splits of each row: groups go, whole and in shuffled order, to where each most reduces the
    chi-square distance between the splits' labels and their share of them. A row without a group is one of its own."""
    groups = table["group"].astype(object).where(table["group"].notna(), [f"\0{path}" for path in table["path"]])
    counts = pd.crosstab(groups, table["label"])
    sizes = counts.to_numpy(dtype=float)  # [groups, classes]
    target = np.outer(shares, sizes.sum(axis=0))
    lacking, place = target.copy(), np.zeros(len(sizes), dtype=int)
    for index in rng.permutation(len(sizes)):
        size = sizes[index]
        place[index] = np.argmax(((2 * lacking - size) * size / target).sum(axis=1))
        lacking[place[index]] -= size
    return place[counts.index.get_indexer(pd.Index(groups))]


def _draw_per_class(table: pd.DataFrame, sizes: dict[str, int]) -> pd.DataFrame:
    """The first `sizes[split]` of each class in each split of the shuffled table."""
    limit = table["split"].map(sizes)  # nan, which nothing is below, for a split without
    drawn = table[table.groupby(["split", "label"]).cumcount() < limit]
    without = "".join(f", without the split {split}" for split in SPLITS if split in set(table["split"]) - set(sizes))
    log.info("data.per_class: %d of %d images used%s", len(drawn), len(table), without)
    found = Counter(zip(drawn["split"], drawn["label"], strict=True))
    wanted = [(split, label, n) for split, n in sizes.items() for label in sorted(set(table["label"]))]
    short = [
        f"{split} has {found[split, label]} of {n} {label}" for split, label, n in wanted if found[split, label] < n
    ]
    if short:
        log.warning("data.per_class: a class runs out: %s", ", ".join(short))
    return drawn


def _draw(table: pd.DataFrame, n: int) -> pd.DataFrame:
    """The first rows of each stratum (label and split) of the shuffled table, n in all, in proportion."""
    strata = table.groupby([name for name in ("label", "split") if name in table], dropna=False)["path"]
    share = (strata.cumcount() + 0.5) / strata.transform("size")
    log.info("data.max_images: %d of %d images used", min(n, len(table)), len(table))
    return table.loc[share.sort_values(kind="stable").index[:n]]
