"""The proof of an export: what ONNX Runtime answers beside what the checkpoint answers, on the run's own images."""

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd
import torch

from faceattr.commands.evaluate_split import people
from faceattr.data import table
from faceattr.data.datamodule import FaceData
from faceattr.errors import FaceattrError
from faceattr.message_text import counted
from faceattr.metrics.intervals import paired_difference, wilson
from faceattr.models.task import Task
from faceattr.training.lightning_module import Classifier

log = logging.getLogger(__name__)

ENOUGH, MOST = 200, 2000
"""Images of the proof: test images are added where there are fewer validation images than the first; at most the second, drawn by
`seed`, are used."""
CALIBRATION = 256
"""Training images on which int8's ranges are measured."""
BATCH_SIZES = (1, 2, 37)
BATCH = 32
TIMED_BATCH, SECONDS = 16, 2.0
"""The rate is measured with batches of so many images, for at least so long."""

PredictFunction = Callable[[np.ndarray], np.ndarray]
"""Pixels, uint8 [B, H, W, 3] → probabilities, float32 [B, classes]."""


@dataclass(frozen=True)
class ReferencePredictions:
    """Images that both models answer for: rows of `data.table`, and the checkpoint's probabilities [N, classes] of them."""

    data: FaceData
    task: Task
    rows: np.ndarray
    expected: np.ndarray

    @property
    def splits(self) -> str:
        """As `300 val and 12 test images`."""
        splits = self.data.table["split"].iloc[self.rows].tolist()
        counts = " and ".join(f"{splits.count(name):,} {name}" for name in ("val", "test") if name in splits)
        return f"{counts} image{'' if len(splits) == 1 else 's'}"

    def correct(self, scores: np.ndarray) -> np.ndarray:
        """Float64 [N]: whether each answer is right; of attributes the share."""
        truth = torch.from_numpy(table.targets(self.data.table.iloc[self.rows]))
        return self.task.correct(torch.from_numpy(scores), truth).numpy()

    def answers(self, scores: np.ndarray) -> np.ndarray:
        """Bool [N, classes]: which classes are the answer."""
        return scores > 0.5 if self.task.multilabel else scores == scores.max(1, keepdims=True)


def proof_rows(prepared: pd.DataFrame, seed: int, *, calibration: bool) -> pd.DataFrame:
    """The rows of the run's table that an export needs: images of the proof and, for int8, training images.

    Raises FaceattrError where the run has neither validation nor test images.
    """
    rng = np.random.default_rng(seed)
    val, test, train = (np.flatnonzero(prepared["split"] == split) for split in ("val", "test", "train"))
    chosen = val if len(val) >= ENOUGH else np.concatenate([val, test])
    if not len(chosen):
        raise FaceattrError("The run has no validation and no test images, on which the export could be proved.")
    rows = [np.sort(rng.permutation(chosen)[:MOST]), np.sort(rng.permutation(train)[: CALIBRATION * calibration])]
    selected = prepared.iloc[np.concatenate(rows)].reset_index(drop=True)
    selected.attrs = prepared.attrs
    return selected


def reference_predictions(model: Classifier, data: FaceData) -> ReferencePredictions:
    """The images of the proof with the checkpoint's answers, in float32 on the CPU."""
    rows = np.flatnonzero(data.table["split"] != "train")
    if len(rows) < ENOUGH:
        log.warning("The run has only %s for validation and test: the proof has no more", counted(len(rows), "image"))
    parts = []
    with torch.inference_mode():
        for batch in data.pixel_batches(rows):
            parts.append(model.eval().predict_step(batch, 0)[0].float().numpy())
    return ReferencePredictions(data, model.task, rows, np.concatenate(parts))


def pixels(data: FaceData, rows: np.ndarray, size: int = BATCH) -> Iterator[np.ndarray]:
    """Batches of at most `size` images, uint8 [B, H, W, 3]."""
    waiting = np.empty((0, data.spec.height, data.spec.width, 3), np.uint8)
    for batch in data.pixel_batches(rows):
        waiting = np.concatenate([waiting, batch.inputs.permute(0, 2, 3, 1).numpy()])
        while len(waiting) >= size:
            yield np.ascontiguousarray(waiting[:size])
            waiting = waiting[size:]
    if len(waiting):
        yield np.ascontiguousarray(waiting)


def answers(run: PredictFunction, reference: ReferencePredictions) -> np.ndarray:
    """Float32 [N, classes] of every image."""
    return np.concatenate([run(batch) for batch in pixels(reference.data, reference.rows)])


def prove(
    run: PredictFunction, reference: ReferencePredictions, tolerance: float
) -> tuple[np.ndarray, dict[str, object]]:
    """The answers of model.onnx in float32, and what validation.json says of them.

    Raises FaceattrError where one of them, at any batch size, differs from the checkpoint's by more than `tolerance`.
    """
    scores = answers(run, reference)
    largest, row = _difference(scores, reference.expected)
    by_size = {}
    for size in BATCH_SIZES:
        few = reference.rows[: 2 * max(BATCH_SIZES) + 1 if size > 1 else 8]
        again = np.concatenate([run(batch) for batch in pixels(reference.data, few, size)])
        by_size[size] = _difference(again, reference.expected[: len(few)])[0]
    worst = max(largest, *by_size.values())
    if not worst <= tolerance:
        path = reference.data.table["path"].iloc[reference.rows[row]]
        raise FaceattrError(
            f"Not exported: a probability of model.onnx differs from the checkpoint's by {worst:.2g} (export.tolerance is "
            f"{tolerance:g}), the most on {path}."
        )
    proof = {"tolerance": tolerance, "largest_difference_by_batch_size": by_size}
    return scores, proof


def _difference(scores: np.ndarray, expected: np.ndarray) -> tuple[float, int]:
    """The largest difference of a probability, infinite where one is not finite, and the position of its image."""
    difference = np.nan_to_num(np.abs(scores - expected).max(1), nan=np.inf)
    return float(difference.max()), int(difference.argmax())


def compare(reference: ReferencePredictions, scores: np.ndarray) -> dict[str, object]:
    """A model's answers beside the checkpoint's: largest difference, agreement, both accuracies with 95% intervals."""
    comparison: dict[str, object] = {"images": len(scores), "splits": reference.splits}
    comparison["largest_difference"] = _difference(scores, reference.expected)[0]
    same = (reference.answers(scores) == reference.answers(reference.expected)).all(1)
    comparison |= {"same_answers": int(same.sum()), "agreement": float(same.mean())}
    for name, values in (("checkpoint", reference.expected), ("onnx", scores)):
        right = float(np.nanmean(reference.correct(values)))
        low, high = wilson(right, len(values))
        comparison |= {f"accuracy_{name}": right, f"accuracy_{name}_low": low, f"accuracy_{name}_high": high}
    return comparison


def check_drop(
    reference: ReferencePredictions, reduced: np.ndarray, scores: np.ndarray, max_drop: float, key: str
) -> dict[str, object]:
    """The paired difference in accuracy between the reduced model and the one in float32.

    Raises FaceattrError where the reduced one is less accurate by more than `max_drop`; `key` is what asked for it.
    """
    rows = reference.data.table.iloc[reference.rows]
    pair = paired_difference(reference.correct(reduced)[None], reference.correct(scores)[None], people(rows))
    if pair.difference < -max_drop:
        raise FaceattrError(
            f"Not exported: with {key} the accuracy on {reference.splits} falls by {-pair.difference:.4f} (95% "
            f"{-pair.high:+.4f} to {-pair.low:+.4f}); export.max_drop is {max_drop:g}."
        )
    return {"max_drop": max_drop, **asdict(pair)}


def images_per_second(run: PredictFunction, reference: ReferencePredictions) -> float:
    """Of a model that computes in one thread: images for each second of this process's time, so that others do not count."""
    batch = next(pixels(reference.data, reference.rows, TIMED_BATCH))
    run(batch)
    count, start = 0, time.process_time()
    while (seconds := time.process_time() - start) < SECONDS:
        run(batch)
        count += len(batch)
    return round(count / seconds, 1)
