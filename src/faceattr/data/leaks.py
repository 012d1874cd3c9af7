"""Leakage between splits: copies of an image, or images of one person, in two splits. `duplicates` finds the copies."""

import logging
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from faceattr.data import duplicates, table
from faceattr.data.datamodule import FaceData
from faceattr.data.perceptual_hash import CENTRAL, WORDS
from faceattr.data.sources.conventions import SPLITS
from faceattr.message_text import counted

log = logging.getLogger(__name__)

KINDS = ("same file", "near-duplicate", "mirrored")
SPLIT_PAIRS = list(combinations(SPLITS, 2))


@dataclass(frozen=True)
class Leakage:
    """What the audit of a table found.

    pairs: all pairs of copies, also within a split. Columns: path, other, split, other_split, kind (one of `KINDS`),
        distance (differing bits of the hashes), similarity (correlation), conflict (whether their labels differ).
    identities: those in more than one split. Columns: identity, splits, images. None if the table has no identities.
    hashes: of all images of the table, as `duplicates.find` gives them.
    """

    pairs: pd.DataFrame
    identities: pd.DataFrame | None
    hashes: np.ndarray = field(default_factory=lambda: np.empty((0, len(CENTRAL), WORDS), np.uint64), repr=False)


def find(data: FaceData) -> Leakage:
    """Compares all images of the table with each other. Pairs across splits come first, then by similarity."""
    rows, (copies, hashes) = data.table, duplicates.find(data)
    first, second = copies["row"].to_numpy(), copies["other"].to_numpy()
    path = rows["path"].to_numpy(object)
    split = rows["split"].to_numpy(object) if "split" in rows else np.full(len(rows), "none", object)
    ends = {"path": path[first], "other": path[second], "split": split[first], "other_split": split[second]}
    pairs = pd.DataFrame(ends).join(copies[["kind", "distance", "similarity"]])
    pairs["conflict"] = _labels_differ(table.targets(rows), first, second)
    across_first = np.argsort(split[first] == split[second], kind="stable")
    return Leakage(pairs.iloc[across_first].reset_index(drop=True), _shared_identities(rows), hashes)


def _labels_differ(targets: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Whether the known labels of rows `first` and `second` differ; multilabel: those of any attribute."""
    differ = (targets[first] != targets[second]) & ~np.isnan(targets[first]) & ~np.isnan(targets[second])
    return differ if differ.ndim == 1 else differ.any(axis=1)


def _shared_identities(rows: pd.DataFrame) -> pd.DataFrame | None:
    identities = table.identities(rows)
    if identities is None or "split" not in rows:
        return None
    splits = rows["split"].astype(object).groupby(identities.rename("identity"))
    shared = splits.agg(splits=lambda values: ", ".join(name for name in SPLITS if name in set(values)), images="size")
    return shared[splits.nunique() > 1].reset_index()


def status(rows: pd.DataFrame, leakage: Leakage) -> pd.Series:
    """For each row outside train: `copy in train`, else `person in train`, else `clean`. nan for rows of train."""
    train, component, identities = rows["split"] == "train", _components(rows, leakage), table.identities(rows)
    has_copy = np.isin(component, component[train])
    has_person = np.zeros(len(rows), bool) if identities is None else identities.isin(identities[train].dropna())
    values = np.select([has_copy, has_person], ["copy in train", "person in train"], "clean")
    return pd.Series(values, rows.index).where(~train)


def leaking_training_rows(rows: pd.DataFrame, leakage: Leakage) -> np.ndarray:
    """Positions of the training images with a copy, or a copy of a copy, in val or test."""
    train, component = (rows["split"] == "train").to_numpy(), _components(rows, leakage)
    return np.flatnonzero(train & np.isin(component, component[~train]))


def apply_leak_policy(data: FaceData, leakage: Leakage, *, drop: bool, slice_leaks: bool) -> dict[str, int | None]:
    """Applies the policy to the data and returns the `summary`, with the number of `left_out` images.

    drop: leave out the training images that have a copy in val or test.
    slice_leaks: add the `status` of the remaining rows to the table, as the column `in_train`.
    """
    rows = leaking_training_rows(data.table, leakage) if drop else np.zeros(0, int)
    if len(rows):
        data.leave_out(rows)
    if slice_leaks:
        data.table["in_train"] = status(data.table, leakage)
    return summary(leakage) | {"left_out": len(rows)}


def _components(rows: pd.DataFrame, leakage: Leakage) -> np.ndarray:
    """A number for each row; rows that pairs connect, directly or through other rows, have the same number."""
    index = pd.Index(rows["path"])
    ends = np.stack([index.get_indexer(pd.Index(leakage.pairs[name])) for name in ("path", "other")])
    first, second = ends[:, (ends >= 0).all(axis=0)]
    edges = coo_array((np.ones(len(first)), (first, second)), shape=(len(rows), len(rows)))
    return connected_components(edges, directed=False)[1]


def summary(leakage: Leakage) -> dict[str, int | None]:
    """Numbers of pairs across and within splits, per pair of splits, per kind, with conflicting labels; of shared identities."""
    pairs = leakage.pairs
    across = pairs[pairs["split"] != pairs["other_split"]]
    ends = across["split"] + "_" + across["other_split"]
    counts: dict[str, int | None] = {"pairs_across": len(across), "pairs_within": len(pairs) - len(across)}
    counts |= {f"{a}_{b}": int(ends.isin([f"{a}_{b}", f"{b}_{a}"]).sum()) for a, b in SPLIT_PAIRS}
    counts |= {kind.replace(" ", "_").replace("-", "_"): int((pairs["kind"] == kind).sum()) for kind in KINDS}
    counts |= {"conflicts": int(pairs["conflict"].sum()), "conflicts_across": int(across["conflict"].sum())}
    return counts | {"identities_in_two_splits": None if leakage.identities is None else len(leakage.identities)}


def describe(leakage: Leakage) -> str:
    """The summary as one line of text."""
    n, pairs, identities = summary(leakage), leakage.pairs, leakage.identities
    within = int((pairs["split"] == pairs["other_split"]).sum())
    by_splits = ", ".join(f"{n[f'{a}_{b}']:,} {a}–{b}" for a, b in SPLIT_PAIRS if n[f"{a}_{b}"])
    conflicts = f"; {n['conflicts_across']:,} with different labels" if n["conflicts_across"] else ""
    copies = "no copies across splits"
    if by_splits:
        number = counted(len(pairs) - within, "pair of copies", "pairs of copies")
        copies = f"{number} across splits ({by_splits}{conflicts})"
    people = "no identities known"
    if identities is not None:
        people = f"{counted(len(identities), 'identity', 'identities') if len(identities) else 'no identities'} in two splits"
    return f"Leakage: {copies}, {counted(within, 'pair')} within; {people}"
