"""Does a split leak? Copies of an image in two splits, and people in two. `duplicates` says how copies are found."""

import logging
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from faceattr.data import duplicates, table
from faceattr.data.datamodule import FaceData
from faceattr.data.sources.layout import SPLITS

log = logging.getLogger(__name__)

KINDS = ("same file", "near-duplicate", "mirrored")
BETWEEN = list(combinations(SPLITS, 2))


@dataclass(frozen=True)
class Leakage:
    """`pairs` of copies, those within a split too: path, other, split, other_split, kind (`KINDS`), distance (differing bits),
    similarity (correlation), conflict (their labels differ). `identities` that lie in more than one split: identity, splits,
    images; None where the table names nobody."""

    pairs: pd.DataFrame
    identities: pd.DataFrame | None


def find(data: FaceData) -> Leakage:
    """Compares all images of the table with one another. Pairs across splits come first, then the most similar."""
    found, rows = duplicates.find(data), data.table
    one, other, truth = found["row"].to_numpy(), found["other"].to_numpy(), table.targets(rows)
    differ = (truth[one] != truth[other]) & ~np.isnan(truth[one]) & ~np.isnan(truth[other])
    path = rows["path"].to_numpy(object)
    split = rows["split"].to_numpy(object) if "split" in rows else np.full(len(rows), "none", object)
    ends = {"path": path[one], "other": path[other], "split": split[one], "other_split": split[other]}
    pairs = pd.DataFrame(ends).join(found[["kind", "distance", "similarity"]])
    pairs["conflict"] = differ if differ.ndim == 1 else differ.any(axis=1)
    across_first = np.argsort(split[one] == split[other], kind="stable")
    return Leakage(pairs.iloc[across_first].reset_index(drop=True), _shared_identities(rows))


def _shared_identities(rows: pd.DataFrame) -> pd.DataFrame | None:
    who = table.identities(rows)
    if who is None or "split" not in rows:
        return None
    splits = rows["split"].astype(object).groupby(who.rename("identity"))
    found = splits.agg(splits=lambda found: ", ".join(name for name in SPLITS if name in set(found)), images="size")
    return found[splits.nunique() > 1].reset_index()


def status(rows: pd.DataFrame, leakage: Leakage) -> pd.Series:
    """Of each row outside train: `copy in train`, else `person in train`, else `clean`; nothing of those in train."""
    train, group, who = rows["split"] == "train", _connected(rows, leakage), table.identities(rows)
    copied = np.isin(group, group[train])
    known = np.zeros(len(rows), bool) if who is None else who.isin(who[train].dropna())
    found = np.select([copied, known], ["copy in train", "person in train"], "clean")
    return pd.Series(found, rows.index).where(~train)


def leaking_training_rows(rows: pd.DataFrame, leakage: Leakage) -> np.ndarray:
    """Positions of the training images that have a copy in val or test, or a copy's copy."""
    train, group = (rows["split"] == "train").to_numpy(), _connected(rows, leakage)
    return np.flatnonzero(train & np.isin(group, group[~train]))


def apply_leak_policy(data: FaceData, leakage: Leakage, *, drop: bool, cut: bool) -> dict[str, int | None]:
    """Leaves out the training images that have a copy elsewhere (`drop`), then adds to the table what of the rest leaks, as
    `in_train` (`cut`). Returns the summary with how many were `left_out`."""
    rows = leaking_training_rows(data.table, leakage) if drop else np.zeros(0, int)
    if len(rows):
        data.leave_out(rows)
    if cut:
        data.table["in_train"] = status(data.table, leakage)
    return summary(leakage) | {"left_out": len(rows)}


def _connected(rows: pd.DataFrame, leakage: Leakage) -> np.ndarray:
    """A number for each row, the same for all images that pairs connect."""
    index = pd.Index(rows["path"])
    ends = np.stack([index.get_indexer(pd.Index(leakage.pairs[name])) for name in ("path", "other")])
    one, other = ends[:, (ends >= 0).all(axis=0)]
    edges = coo_array((np.ones(len(one)), (one, other)), shape=(len(rows), len(rows)))
    return connected_components(edges, directed=False)[1]


def summary(leakage: Leakage) -> dict[str, int | None]:
    """Counts, flat: pairs across and within splits, by splits and by kind, with conflicting labels; identities in two splits."""
    pairs = leakage.pairs
    across = pairs[pairs["split"] != pairs["other_split"]]
    ends = across["split"] + "_" + across["other_split"]
    counts: dict[str, int | None] = {"pairs_across": len(across), "pairs_within": len(pairs) - len(across)}
    counts |= {f"{a}_{b}": int(ends.isin([f"{a}_{b}", f"{b}_{a}"]).sum()) for a, b in BETWEEN}
    counts |= {kind.replace(" ", "_").replace("-", "_"): int((pairs["kind"] == kind).sum()) for kind in KINDS}
    counts |= {"conflicts": int(pairs["conflict"].sum()), "conflicts_across": int(across["conflict"].sum())}
    return counts | {"identities_in_two_splits": None if leakage.identities is None else len(leakage.identities)}


def describe(leakage: Leakage) -> str:
    """One line."""
    n = summary(leakage)
    where = ", ".join(f"{n[f'{a}_{b}']:,} {a}–{b}" for a, b in BETWEEN if n[f"{a}_{b}"])
    conflicts = f"; {n['conflicts_across']:,} with different labels" if n["conflicts_across"] else ""
    across = (
        f"{n['pairs_across']:,} pairs of copies across splits ({where}{conflicts})"
        if where
        else "no copies across splits"
    )
    people = (
        "no identities known"
        if leakage.identities is None
        else f"{len(leakage.identities) or 'no'} identities in two splits"
    )
    return f"Leakage: {across}, {n['pairs_within']:,} pairs within; {people}"
