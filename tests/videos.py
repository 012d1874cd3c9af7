"""Videos for tests, written by OpenCV."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np


def write_video(file: Path, frames: Sequence[np.ndarray], rate: float, codec: str = "MJPG") -> Path:
    """Frames are uint8 [H, W, 3], RGB."""
    height, width = frames[0].shape[:2]
    writer = cv2.VideoWriter(str(file), cv2.VideoWriter.fourcc(*codec), rate, (width, height))
    assert writer.isOpened()
    for frame in frames:
        writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    writer.release()
    return file
