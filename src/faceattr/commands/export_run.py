"""What a run's files say about the checkpoint that is exported: for its model card."""

import logging
from pathlib import Path
from typing import Any

from faceattr.files import read_json
from faceattr.report.model_card import RunFigures
from faceattr.training.run_record import RunRecord, read_metrics, read_slices

log = logging.getLogger(__name__)


def run_figures(ckpt: Path, description: dict[str, Any]) -> RunFigures:
    """The figures of the run that the checkpoint lies in.

    Empty, with a warning, where the run evaluated another checkpoint.
    """
    folder, config = ckpt.parent.parent, description["config"]
    record = read_json(folder / RunRecord.FILE) if ckpt.parent.name == "checkpoints" else {}
    judged = record.get(f"{ckpt.stem}_epoch") == description["epoch"] and record.get("status") == "finished"
    if record.get("fingerprint") != description["fingerprint"] or not judged:
        log.warning(
            "The run's files beside %s do not judge this checkpoint: the model card has only the proof's figures", ckpt
        )
        return RunFigures(config, description["weights"])
    metrics = read_metrics(folder)
    return RunFigures(
        config,
        description["weights"],
        record=record,
        metrics={split: values for split, values in metrics.items() if values.get("n")},
        slices={
            split: table for split in metrics if (table := read_slices(folder / f"slices_{split}.csv")) is not None
        },
    )
