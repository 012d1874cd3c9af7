"""Where the time of a training step goes: a real `train.py`, its parts timed from outside (inner parts are contained in outer).

    python benchmarks/pieces.py model=cnn7 augment=keras_40 …

Milliseconds by the host's clock: on a CUDA device they are those of launching the work, not of doing it.
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

from faceattr.data import array_cache, augment, batches
from faceattr.models.network import Network
from faceattr.training.module import Classifier

PARTS = [
    (_TrainingEpochLoop, "advance", "step, all of it"),
    (batches.ImageSet, "__getitems__", "· batch gathered"),
    (array_cache.RowArray, "__getitem__", "· · rows read"),
    (Classifier, "training_step", "· training_step"),
    (augment.Augmentation, "draw", "· · augmentation drawn"),
    (augment, "warp_by_opencv", "· · warp"),
    (augment, "relight_by_opencv", "· · light"),
    (Classifier, "scaled", "· · scaling"),
    (Network, "forward", "· · network"),
    (torch.Tensor, "backward", "· backward"),
    (torch.optim.Optimizer, "zero_grad", "· zero_grad"),
]


def timed(owner: Any, name: str, times: list[float]) -> None:
    function = getattr(owner, name)

    def around(*arguments: Any, **named: Any) -> Any:
        began = time.perf_counter()
        result = function(*arguments, **named)
        times.append(time.perf_counter() - began)
        return result

    setattr(owner, name, around)


if __name__ == "__main__":
    found: dict[str, list[float]] = defaultdict(list)
    for owner, name, label in PARTS:
        timed(owner, name, found[label])
    sys.argv[0] = str(Path(__file__).resolve().parents[1] / "train.py")
    sys.path[0] = str(Path(sys.argv[0]).parent)
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    finally:
        print("\nmilliseconds: median, mean (gathering, reading, scaling and the network: validation's too)")
        for _, _, label in PARTS:
            if times := found[label]:
                print(f"{label:26} {1000 * statistics.median(times):8.2f} {1000 * statistics.mean(times):8.2f}")
