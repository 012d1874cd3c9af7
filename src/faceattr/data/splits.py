"""Splits of a table: a new split (stratified, or by group), and the choice of fewer images, all from one seed."""

import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from faceattr.data.sources.conventions import SPLITS
from faceattr.errors import FaceattrError
from faceattr.message_text import counted, counted_of, listed

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SplitPlan:
    """How a table is split and reduced; `table.prepare` says what each field means. Splits are in the order of SPLITS."""

    split: str | None
    fractions: dict[str, float]
    per_class: dict[str, int]
    max_images: int | None

    @classmethod
    def parse(
        cls,
        split: str | None,
        fractions: Mapping[str, float],
        per_class: Mapping[str, int],
        max_images: int | None,
    ) -> "SplitPlan":
        """Raises FaceattrError: fractions that do not sum to 1 or lack train or val; a count below 1; an unknown split."""
        shares = {name: fractions[name] for name in SPLITS if fractions.get(name)}
        valid = set(fractions) <= set(SPLITS) and {"train", "val"} <= set(shares) and min(shares.values()) > 0
        if not valid or abs(sum(shares.values()) - 1) > 1e-6:
            raise FaceattrError(
                f"data.fractions={dict(fractions)}: train and val need a share, test may be 0, and they must sum to 1 "
                f"(here {sum(shares.values()):g}), e.g. {{train: 0.8, val: 0.2, test: 0}}."
            )
        if not set(per_class) <= set(SPLITS) or any(n < 1 for n in per_class.values()):
            raise FaceattrError(
                f"data.per_class={dict(per_class)}: expected counts by split, e.g. {{train: 1600, val: 800}}."
            )
        return cls(split, shares, {name: per_class[name] for name in SPLITS if name in per_class}, max_images)

    @property
    def new_splits(self) -> list[str]:
        """The splits that a new split consists of."""
        return list(self.per_class or self.fractions)


def split_and_draw(table: pd.DataFrame, plan: SplitPlan, seed: int) -> tuple[pd.DataFrame, set[str]]:
    """The rows that are used, each with its split, in random order; and the splits that must not be empty."""
    rng = np.random.default_rng(seed)
    table = table.iloc[rng.permutation(len(table))]  # from here on, the first n rows of a class are a random draw of n
    required = {"train", "val"} | set(plan.per_class)
    if "split" not in table and (plan.split or plan.per_class):
        required |= set(plan.new_splits)
        table = table.assign(split=_new_split(table, rng, plan))
    elif plan.split == "random" and table["split"].isna().any():
        required |= set(plan.new_splits)
        rows = table[table["split"].isna()]
        new_split = pd.Series(_new_split(rows, rng, plan), rows.index)
        table = table.assign(split=table["split"].fillna(new_split))
    if plan.split == "random" and "identity" in table:
        _warn_about_shared_identities(table)
    table = _draw_per_class(table, plan.per_class) if plan.per_class else table
    table = _draw_stratified(table, plan.max_images) if plan.max_images else table
    return table, required


def _warn_about_shared_identities(table: pd.DataFrame) -> None:
    splits = table.dropna(subset=["identity", "split"]).groupby("identity")["split"].nunique()
    if (splits > 1).any():
        divided = counted_of(int((splits > 1).sum()), len(splits), "identity", "are", "identities")
        log.warning("data.split=random: %s in more than one split; data.split=identity keeps them apart", divided)


def _new_split(table: pd.DataFrame, rng: np.random.Generator, plan: SplitPlan) -> np.ndarray:
    """A split for each row of the shuffled table; None for rows beyond `plan.per_class`."""
    sizes = np.array([*(plan.per_class or plan.fractions).values()])
    if "group" in table:
        index = _split_groups(table, rng, sizes / sizes.sum())
    else:
        by_label = table.groupby("label")["path"]
        scale = np.ones(len(table)) if plan.per_class else by_label.transform("size").to_numpy()
        ends = np.outer(sizes.cumsum().round(9), scale)  # [splits, rows]: where each split ends in the row's class
        index = (by_label.cumcount().to_numpy() + 0.5 > ends).sum(axis=0)
    split = np.array([*plan.new_splits, None], dtype=object)[index]
    counts = ", ".join(f"{name} {(split == name).sum():,}" for name in plan.new_splits)
    log.info("split made by data.%s: %s", "per_class" if plan.per_class else "fractions", counts)
    return split


def _split_groups(table: pd.DataFrame, rng: np.random.Generator, shares: np.ndarray) -> np.ndarray:
    """The index of a split for each row, such that no group is divided. A row without a group is a group by itself.

    Greedy: each group, in random order, goes to the split where it most reduces the chi-square distance between the label
    counts of the splits and their targets (`shares` of the label counts of the table).
    """
    groups = table["group"].astype(object).where(table["group"].notna(), [f"\0{path}" for path in table["path"]])
    counts = pd.crosstab(groups, table["label"])
    sizes = counts.to_numpy(dtype=float)  # [groups, classes]
    target = np.outer(shares, sizes.sum(axis=0))  # [splits, classes]
    missing, index = target.copy(), np.zeros(len(sizes), dtype=int)
    for group in rng.permutation(len(sizes)):
        size = sizes[group]
        index[group] = np.argmax(((2 * missing - size) * size / target).sum(axis=1))
        missing[index[group]] -= size
    return index[counts.index.get_indexer(pd.Index(groups))]


def _draw_per_class(table: pd.DataFrame, per_class: dict[str, int]) -> pd.DataFrame:
    """The first `per_class[split]` rows of each class in each split of the shuffled table."""
    limit = table["split"].map(per_class)  # nan for other splits: no row is below it
    drawn = table[table.groupby(["split", "label"]).cumcount() < limit]
    dropped = [split for split in SPLITS if split in set(table["split"]) - set(per_class)]
    suffix = "".join(f", without the split {split}" for split in dropped)
    log.info("data.per_class: %d of %s used%s", len(drawn), counted(len(table), "image"), suffix)
    sizes = Counter(zip(drawn["split"], drawn["label"], strict=True))
    requested = [(split, label, n) for split, n in per_class.items() for label in sorted(set(table["label"]))]
    short = [
        f"{split} has {sizes[split, label]} of {n} {label}" for split, label, n in requested if sizes[split, label] < n
    ]
    if short:
        log.warning("data.per_class: a class has too few images: %s", listed(short))
    return drawn


def _draw_stratified(table: pd.DataFrame, n: int) -> pd.DataFrame:
    """`n` rows of the shuffled table: the first rows of each stratum (label and split), in proportion to its size."""
    strata = table.groupby([name for name in ("label", "split") if name in table], dropna=False)["path"]
    position = (strata.cumcount() + 0.5) / strata.transform("size")
    log.info("data.max_images: %d of %s used", min(n, len(table)), counted(len(table), "image"))
    return table.loc[position.sort_values(kind="stable").index[:n]]
