"""How good the model is, in two sentences: from the figures that its run left beside the checkpoint, or from its model card."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from faceattr.files import read_json
from faceattr.training.run_json import read_slices

SPLITS = {"test": "test", "val": "validation"}
"""Where there are figures of both, those of the images that chose nothing."""
LARGEST_CARD = 1_000_000  # bytes
UNKNOWN = "Its figures are not beside the checkpoint: nothing is known here about how often it is right."
RANGE = "The range in brackets holds the true share with 95% confidence."


def read_model_card(ckpt: Path) -> str | None:
    """README.md of an exported model; None of a checkpoint, and where it is a link or no small file: clients can read it."""
    file = ckpt / "README.md"
    if file.is_symlink() or not file.is_file() or file.stat().st_size > LARGEST_CARD:
        return None
    return file.read_text(encoding="utf-8", errors="replace")


def accuracy_summary(ckpt: Path) -> str:
    """`Right on 94.5% (93.5–95.3) of 2,396 validation images; worst for …`, or that nothing is known."""
    if ckpt.is_dir():
        sentence = re.search(r"Right on .*", read_model_card(ckpt) or "")
        return f"{sentence[0].replace(chr(92), '')} {RANGE}" if sentence else UNKNOWN
    folder = ckpt.absolute().parent.parent
    record = read_json(folder / "run.json")
    if f"{ckpt.stem}_epoch" not in record:  # the run's figures are those of its other checkpoint
        return UNKNOWN
    for split, name in SPLITS.items():
        metrics = read_json(folder / f"{split}_metrics.json")
        if metrics.get("n"):
            return _sentence(metrics, name, _worst(folder, split, metrics))
    return UNKNOWN


def _sentence(metrics: Mapping[str, Any], split: str, worst: str) -> str:
    right = f"{_percent(metrics, 'accuracy')} of {metrics['n']:,} {split} images"
    if "labels" in metrics:
        right = f"{_percent(metrics, 'accuracy')} of the attributes (their mean), on {metrics['n']:,} {split} images"
    return f"Right on {right}{worst}. {RANGE}"


def _worst(folder: Path, split: str, metrics: Mapping[str, Any]) -> str:
    """The slice that is worse than the rest beyond chance; else the class, or the attribute, that is recognised least often."""
    slices = read_slices(folder / f"slices_{split}.csv")
    worse = None if slices is None else slices[(slices["p"] < 0.05) & (slices["gap"] < 0)]
    if worse is not None and len(worse):
        row = {str(key): value for key, value in worse.iloc[0].items()}
        name = row["value"] if row["column"] == "true_class" else f"{row['column']} {row['value']}"
        return f"; worst for {name}: {_percent(row, 'accuracy')} of {row['n']:,}"
    prefix = "accuracy_" if "labels" in metrics else "recall_"
    counted = {key.removeprefix("n_") for key, n in metrics.items() if key.startswith("n_") and n}
    names = [name for name in counted if isinstance(metrics.get(f"{prefix}{name}"), float)]
    if not names:
        return ""
    name = min(sorted(names), key=lambda name: metrics[f"{prefix}{name}"])
    return f"; worst for {name}: {_percent(metrics, f'{prefix}{name}')} of {metrics[f'n_{name}']:,}"


def _percent(metrics: Mapping[str, Any], name: str) -> str:
    """`94.5% (93.5–95.3)`."""
    value, low, high = (metrics.get(f"{name}{end}") for end in ("", "_low", "_high"))
    interval = "" if low is None or high is None else f" ({100 * low:.1f}–{100 * high:.1f})"
    return f"{100 * float(value or 0):.1f}%{interval}"
