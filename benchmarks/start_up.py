"""Start-up: seconds from launch to the end of the first optimizer step of a real `train.py`, which is stopped there.

python benchmarks/start_up.py [override …]
"""

import os
import runpy
import sys
from pathlib import Path
from typing import Any

from epoch_timer import EpochTimer
from torch.optim.optimizer import register_optimizer_step_post_hook


def stop(*_: Any) -> None:
    """Called by torch after the first step: print the time and leave without any cleaning up."""
    timer.start_epoch()
    timer.step(0)
    timer.print_json()
    os._exit(0)


if __name__ == "__main__":
    timer = EpochTimer()
    register_optimizer_step_post_hook(stop)
    sys.argv[0] = str(Path(__file__).resolve().parents[1] / "train.py")
    sys.path[0] = str(Path(sys.argv[0]).parent)
    runpy.run_path(sys.argv[0], run_name="__main__")
