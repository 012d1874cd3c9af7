"""How good the model is, in two sentences: from the figures that its run left beside the checkpoint, or from its model card."""

import re
from pathlib import Path

from faceattr.files import read_json
from faceattr.report.accuracy_sentence import EVALUATED, accuracy_sentence
from faceattr.training.run_json import read_slices

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
        sentence = re.search(r"Right on \d.*", read_model_card(ckpt) or "")
        return f"{_without_escapes(sentence[0])} {RANGE}" if sentence else UNKNOWN
    folder = ckpt.absolute().parent.parent
    record = read_json(folder / "run.json")
    if f"{ckpt.stem}_epoch" not in record:  # the run's figures are those of its other checkpoint
        return UNKNOWN
    for split in EVALUATED:
        metrics = read_json(folder / f"{split}_metrics.json")
        if metrics.get("n"):
            slices = read_slices(folder / f"slices_{split}.csv")
            return f"{accuracy_sentence(metrics, split, slices)} {RANGE}"
    return UNKNOWN


def _without_escapes(markdown: str) -> str:
    return re.sub(r"\\(.)", r"\1", markdown)
