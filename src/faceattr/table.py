"""The contract: what a source's table becomes before anything is trained on it. Checks that name all problems at once,
splits that depend on the seed alone, balanced or smaller draws, and a fingerprint of the contents.
"""

import hashlib
import json
import logging
import posixpath
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from faceattr.errors import FaceattrError
from faceattr.sources.layout import SPLITS, file_names

log = logging.getLogger(__name__)

FRACTIONS = {"train": 0.7, "val": 0.15, "test": 0.15}


def prepare(
    table: pd.DataFrame,
    root: str | Path,
    *,
    classes: list[str] | None = None,
    split: str | None = "auto",
    fractions: Mapping[str, float] | None = None,
    seed: int = 0,
    per_class: Mapping[str, int] | None = None,
    max_images: int | None = None,
) -> pd.DataFrame:
    """A source's table, checked, split and drawn: sorted by path, so that the order of the source does not matter.

    The result has `path`, `label` (Categorical: the classes in label order; ordered where they are), `split`, `group`
    where the source gives it, then the source's further columns; `attrs` carries `classes` and `ordinal`.

    classes: names in label order, by default the source's own.
    split: `auto` takes the source's split column, else makes one; `identity` always makes one, by group; None neither
        makes nor needs one, for evaluation on other data: a source's own is kept, and train and val may be empty.
    fractions: split → share of each class, for a split of our own; whole groups stay together.
    per_class: split → images of each class. Without a split column it also makes the split: train is filled first, then
        val, then test. Splits that it does not name are dropped.
    max_images: a draw of at most so many, with the shares of labels and splits kept.
    All draws come from `seed` alone; each image keeps its split, whatever max_images is.

    Raises FaceattrError: a setting that does not fit, or all problems of the table, with counts and five examples.
    """
    if split not in (None, "auto", "identity"):
        raise FaceattrError(f"data.split={split} is not known: auto, identity, or null for no split.")
    if seed < 0 or (max_images is not None and max_images < 1):
        raise FaceattrError(f"data.seed={seed} must be 0 or more, and data.max_images={max_images} 1 or more.")
    if table.empty:
        raise FaceattrError(f"The table of data.root={root} is empty: no images.")
    names = [str(name) for name in (classes if classes is not None else table.attrs["classes"])]
    ordinal = bool(table.attrs.get("ordinal", False))
    shares, sizes = _fractions(fractions), _sizes(per_class)

    table = _tidy(table, Path(root), ignore_split=split == "identity")
    problems = _row_problems(table, Path(root), names)
    table = table[table["label"].isin(names) & table["path"].notna()]
    if not table.empty:  # else there is nothing to split, and its rows are among the problems
        rng = np.random.default_rng(seed)
        table = table.iloc[rng.permutation(len(table))]  # from here on, the first n rows of a kind are a draw of n
        needed = {"train", "val"} | set(sizes)
        if "split" not in table and (split or sizes):
            needed |= set() if sizes else set(shares)
            table = table.assign(split=_new_split(table, rng, shares, sizes, by_group=split == "identity"))
        table = _draw_per_class(table, sizes) if sizes else table
        table = _draw(table, max_images) if max_images is not None else table
        problems += _split_problems(table, names, needed) if split else []
    if problems:
        raise FaceattrError(f"The table of data.root={root} cannot be used:\n- " + "\n- ".join(problems))
    table = table.sort_values("path", ignore_index=True)
    table["label"] = pd.Categorical(table["label"], categories=names, ordered=ordinal)
    first = [name for name in ("path", "label", "split", "group") if name in table]
    table = table[first + [name for name in table if name not in first]]
    table.attrs.update(classes=names, ordinal=ordinal)
    return table


def check_splits(table: pd.DataFrame) -> None:
    """Raises FaceattrError where a prepared table lost rows (unreadable images) and can no longer be trained on."""
    problems = _split_problems(table, list(table["label"].cat.categories), {"train", "val"})
    if problems:
        raise FaceattrError("Without the unreadable images, the table cannot be used:\n- " + "\n- ".join(problems))


def fingerprint(table: pd.DataFrame) -> str:
    """16 hex digits of the SHA-256 of what training on a prepared table depends on: path, label, split, group, classes.

    The order of rows and columns, further columns, and the root (the same data elsewhere) do not change it.
    """
    columns = [name for name in ("path", "label", "split", "group") if name in table]
    rows = table[columns].astype(object)
    rows = rows.where(rows.notna(), None).sort_values("path", kind="stable")
    contents = {name: [None if value is None else str(value) for value in rows[name]] for name in columns}
    contents["classes"] = list(map(str, table["label"].cat.categories))
    return hashlib.sha256(json.dumps(contents).encode()).hexdigest()[:16]


def _fractions(fractions: Mapping[str, float] | None) -> dict[str, float]:
    """Split → share, in the order of SPLITS, without the zeros."""
    given = dict(fractions) if fractions is not None else FRACTIONS
    shares = {name: float(given[name] or 0) for name in SPLITS if given.get(name)}
    sound = set(given) <= set(SPLITS) and {"train", "val"} <= set(shares) and min(shares.values()) > 0
    if not sound or abs(sum(shares.values()) - 1) > 1e-6:
        raise FaceattrError(
            f"data.fractions={given}: train and val need a share, test may be 0, and they must sum to 1 "
            f"(here {sum(shares.values()):g}), e.g. {{train: 0.8, val: 0.2, test: 0}}."
        )
    return shares


def _sizes(per_class: Mapping[str, int] | None) -> dict[str, int]:
    """Split → images per class, in the order of SPLITS, without the zeros."""
    given = dict(per_class or {})
    if not set(given) <= set(SPLITS) or any(not isinstance(n or 0, int) or (n or 0) < 0 for n in given.values()):
        raise FaceattrError(f"data.per_class={given}: expected counts by split, e.g. {{train: 1600, val: 800}}.")
    return {name: given[name] for name in SPLITS if given.get(name)}


def _tidy(table: pd.DataFrame, root: Path, ignore_split: bool) -> pd.DataFrame:
    """Normal paths (an absolute one below root becomes relative), sorted; no split or group column without a value."""
    here = [f"{folder.as_posix().rstrip('/')}/" for folder in (root.absolute(), root.resolve())]

    def normal(path: object) -> str | None:
        if not isinstance(path, str) or not path:
            return None
        path = posixpath.normpath(path)
        return next((path.removeprefix(folder) for folder in here if path.startswith(folder)), path)

    empty = [name for name in ("split", "group") if name in table and (table[name].isna().all())]
    if ignore_split and "split" in table:
        empty.append("split")
    table = table.drop(columns=empty).assign(path=pd.Series(map(normal, table["path"]), table.index, dtype=object))
    return table.sort_values("path", kind="stable", ignore_index=True)


def _problem(what: str, examples: pd.Series | list[str]) -> list[str]:
    """One line with the count and the first five, or nothing where there are no examples."""
    shown = [str(example) for example in examples[:5]] + (["…"] if len(examples) > 5 else [])
    return [f"{what} ({len(examples):,}): {', '.join(shown)}"] if len(examples) else []


def _row_problems(table: pd.DataFrame, root: Path, names: list[str]) -> list[str]:
    choices = f"[{', '.join(names)}]"
    problems = []
    if len(set(names)) < 2 or len(set(names)) < len(names):
        problems.append(f"data.classes={choices}: at least two classes are needed, each named once")
    paths, labels = table["path"].dropna(), table["label"]
    if len(paths) < len(table):
        problems.append(f"rows without a path ({len(table) - len(paths):,})")
    outside = paths.str.startswith("/") | (paths == "..") | paths.str.startswith("../")
    problems += _problem("path that leaves data.root", paths[outside])
    problems += _problem("missing file", _missing(root, paths[~outside]))
    problems += _problem("duplicate path", paths[paths.duplicated()].drop_duplicates())
    problems += _problem("no label", table["path"][labels.isna()])
    unknown = labels.notna() & ~labels.isin(names)
    values = ", ".join(sorted(labels[unknown].astype(str).unique())[:10])
    what = f"label outside data.classes {choices}, namely {values}"
    problems += _problem(what, (table["path"] + ": " + labels.astype(object))[unknown])
    if "split" in table:
        wrong = ~table["split"].isin(SPLITS)
        shown = table["path"] + ": " + table["split"].astype(object).where(table["split"].notna(), "none")
        problems += _problem(f"split other than {', '.join(SPLITS)}", shown[wrong])
    return problems


def _missing(root: Path, paths: pd.Series) -> list[str]:
    listings: dict[str, set[str]] = {}
    missing = []
    for path in paths:
        folder, _, name = path.rpartition("/")
        if folder not in listings:
            listings[folder] = file_names(root / folder)
        if name not in listings[folder]:
            missing.append(path)
    return missing


def _split_problems(table: pd.DataFrame, names: list[str], needed: Iterable[str]) -> list[str]:
    splits = table["split"]
    problems = _problem("empty split", [name for name in SPLITS if name in needed and not (splits == name).any()])
    if (splits == "train").any():
        in_train = set(table["label"][splits == "train"])
        problems += _problem("class absent from train", [name for name in names if name not in in_train])
    if "group" in table:
        pairs = table.loc[splits.isin(SPLITS), ["group", "split"]].dropna().drop_duplicates().sort_values("split")
        twice = pairs[pairs.duplicated("group", keep=False)].groupby("group")["split"].agg(" and ".join)
        problems += _problem(
            "group in two splits (data.split=identity makes a split without)",
            [f"{group} ({where})" for group, where in twice.items()],
        )
    return problems


def _new_split(
    table: pd.DataFrame, rng: np.random.Generator, shares: dict[str, float], sizes: dict[str, int], by_group: bool
) -> np.ndarray:
    """A split for each row of the shuffled table; None where `sizes` (images per class) leaves no place for it."""
    if by_group and "group" not in table:
        raise FaceattrError("data.split=identity needs a group for the images, and this source gives none.")
    if "group" in table:
        place = _place_groups(table, rng, shares, sizes)
    else:
        by_label = table.groupby("label")["label"]
        rank = by_label.cumcount()
        if sizes:
            place = np.searchsorted(np.cumsum(list(sizes.values())), rank, side="right")
        else:
            share = (rank + 0.5) / by_label.transform("size")
            place = np.searchsorted(np.cumsum(list(shares.values()))[:-1].round(9), share)
    split = np.array([*(sizes or shares), None], dtype=object)[place]
    counts = ", ".join(f"{name} {(split == name).sum():,}" for name in sizes or shares)
    log.info("split made by data.%s: %s", "per_class" if sizes else "fractions", counts)
    return split


def _place_groups(
    table: pd.DataFrame, rng: np.random.Generator, shares: dict[str, float], sizes: dict[str, int]
) -> np.ndarray:
    """The place among the splits of each row, or -1: groups go, whole and in shuffled order, to where they are wanted.

    By shares, that is where a group most reduces the chi-square distance between each split's labels and its share of
    them; by sizes, the first split that still lacks a class of the group. A row without a group is one of its own.
    """
    groups = table["group"].astype(object).where(table["group"].notna(), "\0" + table["path"])
    group, names = pd.factorize(groups, sort=True)
    label, classes = pd.factorize(table["label"], sort=True)
    counts = np.zeros((len(names), len(classes)))
    np.add.at(counts, (group, label), 1)
    if sizes:
        target = np.repeat(np.array([*sizes.values()], dtype=float)[:, None], len(classes), axis=1)
    else:
        target = np.outer([*shares.values()], counts.sum(axis=0))
    lacking, place = target.copy(), np.full(len(names), -1)
    for index in rng.permutation(len(names)):
        size = counts[index]
        if sizes:
            wanted = (np.minimum(lacking, size) > 0).any(axis=1)
            if not wanted.any():
                continue
        else:
            wanted = ((2 * lacking - size) * size / target).sum(axis=1)
        place[index] = np.argmax(wanted)
        lacking[place[index]] -= size
    return place[group]


def _draw_per_class(table: pd.DataFrame, sizes: dict[str, int]) -> pd.DataFrame:
    """The first `sizes[split]` of each class in each split of the shuffled table."""
    named = table[table["split"].isin(list(sizes))]
    drawn = named[named.groupby(["split", "label"]).cumcount() < named["split"].map(sizes)]
    dropped = sorted(set(table["split"].dropna()) - set(sizes))
    without = f", without the split {', '.join(dropped)}" if dropped else ""
    log.info("data.per_class: %d of %d images used%s", len(drawn), len(table), without)
    found = pd.crosstab(drawn["split"], drawn["label"])
    short = [
        f"{s} has {n} of {sizes[s]} {label}" for s in found.index for label, n in found.loc[s].items() if n < sizes[s]
    ]
    if short:
        log.warning("data.per_class: a class runs out: %s", ", ".join(short))
    return drawn


def _draw(table: pd.DataFrame, n: int) -> pd.DataFrame:
    """The first rows of each stratum (label and split) of the shuffled table, n in all, by largest remainders."""
    if n >= len(table):
        return table
    strata = table.groupby([name for name in ("label", "split") if name in table], dropna=False)
    stratum = strata.ngroup().to_numpy()
    exact = np.bincount(stratum) * n / len(table)
    quota = np.floor(exact).astype(int)
    quota[np.argsort(quota - exact, kind="stable")[: n - quota.sum()]] += 1
    log.info("data.max_images: %d of %d images used", n, len(table))
    return table[strata.cumcount().to_numpy() < quota[stratum]]
