"""The parts of a training step and their times, in a real `train.py` (the time of an inner part is contained in the outer one).

    python benchmarks/step_parts.py model=cnn7 augment=keras_40 …

Milliseconds by the host's clock. On a CUDA device they are the times of launching the work, not of doing it.
"""

import runpy
import statistics
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.loops.training_epoch_loop import _TrainingEpochLoop

from faceattr.data import array_file, augment, batches
from faceattr.models.staged_network import Network
from faceattr.training.lightning_module import Classifier

PARTS = [
    (_TrainingEpochLoop, "advance", "the whole step"),
    (batches.ImageSet, "__getitems__", "· gather the batch"),
    (array_file.RowArray, "__getitem__", "· · read rows"),
    (Classifier, "training_step", "· training_step"),
    (augment.Augmentation, "draw", "· · draw augmentation"),
    (augment, "warp_by_opencv", "· · warp"),
    (augment, "relight_by_opencv", "· · light"),
    (Classifier, "scaled", "· · scaling"),
    (Network, "forward", "· · network"),
    (torch.Tensor, "backward", "· backward"),
    (torch.optim.Optimizer, "zero_grad", "· zero_grad"),
]


def time_calls(owner: Any, name: str, times: list[float]) -> None:
    function = getattr(owner, name)

    def measured(*arguments: Any, **named: Any) -> Any:
        started = time.perf_counter()
        result = function(*arguments, **named)
        times.append(time.perf_counter() - started)
        return result

    setattr(owner, name, measured)


if __name__ == "__main__":
    times_by_part: dict[str, list[float]] = defaultdict(list)
    for owner, name, label in PARTS:
        time_calls(owner, name, times_by_part[label])
    sys.argv[0] = str(Path(__file__).resolve().parents[1] / "train.py")
    sys.path[0] = str(Path(sys.argv[0]).parent)
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    finally:
        print("\nmilliseconds: median, mean (gathering, reading, scaling and network: with those of the validation)")
        for _, _, label in PARTS:
            if times := times_by_part[label]:
                print(f"{label:26} {1000 * statistics.median(times):8.2f} {1000 * statistics.mean(times):8.2f}")
