"""What a run and an evaluation do about leaks between splits: `data.on_leak` and `evaluate.leakage`."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from faceattr.data import leaks, training_hashes
from faceattr.data.datamodule import FaceData
from faceattr.errors import FaceattrError, optional
from faceattr.message_text import counted, counted_of

log = logging.getLogger(__name__)


def audit_training(data: FaceData, *, slice_leaks: bool) -> tuple[dict[str, Any], np.ndarray | None]:
    """Looks for leaks and does what `data.on_leak` says. Returns the audit's counts, with the same in words as `text`; and the
    hashes of the remaining training images (`training_hashes`), None where the audit failed.

    `slice_leaks` adds the column `in_train` to the table, which slices the results.
    """
    on_leak = data.settings.on_leak
    if on_leak == "warn":
        with optional("The leakage audit"):
            return _audit(data, on_leak, slice_leaks)
        return {"text": "Leakage: the audit failed, see the log"}, None
    return _audit(data, on_leak, slice_leaks)


def _audit(data: FaceData, on_leak: str, slice_leaks: bool) -> tuple[dict[str, Any], np.ndarray]:
    leakage = leaks.find(data)
    text, across = leaks.describe(leakage), leaks.summary(leakage)["pairs_across"]
    if across and on_leak == "error":
        rows = leaks.leaking_training_rows(data.table, leakage)
        raise FaceattrError(
            f"{text}\nTo see them: faceattr leaks with the same keys. "
            f"data.on_leak=drop leaves out {counted(len(rows), 'training image')} with a copy elsewhere, warn goes on."
        )
    log.log(logging.WARNING if across else logging.INFO, "%s", text)
    paths = pd.Index(data.table["path"])
    counts = leaks.apply_leak_policy(data, leakage, drop=on_leak == "drop", slice_leaks=slice_leaks)
    if left_out := counts["left_out"]:
        log.info("data.on_leak=drop: left out %s with a copy in another split", counted(left_out, "training image"))
    training = paths.get_indexer(pd.Index(data.table["path"].iloc[data.rows("train")]))
    return {"text": text} | counts, leakage.hashes[training]


def audit_evaluation(data: FaceData, *, slice_leaks: bool) -> dict[str, Any]:
    """The same for an evaluation of a run on its own data: what was left out of training is left out; else empty where
    nothing was asked for."""
    drop = data.settings.on_leak == "drop"
    if not (drop or slice_leaks):
        return {}
    leakage = leaks.find(data)
    return {"text": leaks.describe(leakage)} | leaks.apply_leak_policy(
        data, leakage, drop=drop, slice_leaks=slice_leaks
    )


def audit_other_data(data: FaceData, ckpt: Path, *, slice_leaks: bool) -> dict[str, Any]:
    """How many of other data's images the model was trained on, as the hashes beside its checkpoint tell."""
    hashes = training_hashes.read(ckpt)
    if hashes is None:
        text = f"Leakage: not known, since {training_hashes.FILE} does not lie beside the checkpoint"
        if slice_leaks:
            raise FaceattrError(f"evaluate.leakage=true: {ckpt.with_name(training_hashes.FILE)} does not exist.")
        log.info("%s", text)
        return {"text": text}
    seen = None
    with optional("The search for copies of training images"):
        seen = training_hashes.copies(data, hashes)
    if seen is None:
        return {"text": "Leakage: the search for copies of training images failed, see the log"}
    copies, training = counted_of(int(seen.sum()), len(seen), "image", "are"), counted(len(hashes), "training image")
    text = f"Leakage: {copies} also among the {training}"
    log.log(logging.WARNING if seen.any() else logging.INFO, "%s", text)
    if slice_leaks:
        data.table["in_train"] = np.where(seen, "copy in train", "clean")
    return {"text": text, "copies_of_training_images": int(seen.sum())}
