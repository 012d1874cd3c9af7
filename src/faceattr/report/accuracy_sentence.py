"""How often a model is right, and for whom least often, in one sentence: for its model card and for serve.py's page.

serve.py runs without torch and SciPy, so nothing here needs them.
"""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from faceattr.message_text import counted

SPLITS = {"train": "training images", "val": "validation images", "test": "test images", "all": "images"}
EVALUATED = ("test", "val")
"""In order of preference: test images chose no epoch."""


def accuracy_sentence(metrics: Mapping[str, Any], split: str, slices: pd.DataFrame | None) -> str:
    """`Right on 94.5% (93.5–95.3) of 2,396 validation images; worst for female: 92.1% (90.4–93.6) of 1,096.`

    metrics: as in <split>_metrics.json; slices: as in slices_<split>.csv.
    """
    of_what = "of the attributes (their mean), on" if "labels" in metrics else "of"
    images = counted(metrics["n"], SPLITS[split].removesuffix("s"))
    return f"Right on {_percent(metrics, 'accuracy')} {of_what} {images}{_worst(metrics, slices)}."


def _worst(metrics: Mapping[str, Any], slices: pd.DataFrame | None) -> str:
    """The slice that is worse than the rest beyond chance; else the class, or the attribute, that is recognised least often."""
    worse = None if slices is None else slices[(slices["p"] < 0.05) & (slices["gap"] < 0)]
    if worse is not None and len(worse):
        row = {str(key): value for key, value in worse.sort_values("gap", kind="stable").iloc[0].items()}
        name = str(row["value"]) if row["column"] == "true_class" else f"{row['column']} {row['value']}"
        return f"; worst for {' '.join(name.split())[:200]}: {_percent(row, 'accuracy')} of {row['n']:,}"
    prefix = "accuracy_" if "labels" in metrics else "recall_"
    named = {key.removeprefix("n_") for key, n in metrics.items() if key.startswith("n_") and n}
    names = [name for name in named if isinstance(metrics.get(f"{prefix}{name}"), float)]
    if not names:
        return ""
    name = min(sorted(names), key=lambda name: metrics[f"{prefix}{name}"])
    return f"; worst for {name}: {_percent(metrics, f'{prefix}{name}')} of {metrics[f'n_{name}']:,}"


def _percent(metrics: Mapping[str, Any], name: str) -> str:
    """`94.5% (93.5–95.3)`."""
    value, low, high = (metrics.get(f"{name}{end}") for end in ("", "_low", "_high"))
    interval = "" if low is None or high is None else f" ({100 * low:.1f}–{100 * high:.1f})"
    return f"{100 * float(value or 0):.1f}%{interval}"
