"""Seconds from launch to the end of the first optimizer step of a real `train.py`, which is stopped there.

python first_step.py [override …]
"""

import os
import runpy
import sys
from pathlib import Path
from typing import Any

from clock import Clock
from torch.optim.optimizer import register_optimizer_step_post_hook


def stop(*_: Any) -> None:
    clock.begin()
    clock.step(0)
    clock.report()
    os._exit(0)


if __name__ == "__main__":
    clock = Clock()
    register_optimizer_step_post_hook(stop)
    sys.argv[0] = str(Path(__file__).resolve().parents[1] / "train.py")
    sys.path[0] = str(Path(sys.argv[0]).parent)
    runpy.run_path(sys.argv[0], run_name="__main__")
