"""Frames of video files, through OpenCV."""

import os
import re
from collections.abc import Iterator
from os import PathLike
from pathlib import Path

import cv2
import numpy as np

from faceattr.data.decode import MAX_PIXELS, UnreadableImage
from faceattr.data.image_files import suffix_of

os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # else OpenCV's decoder prints a line for each damaged frame
VIDEO_SUFFIXES = frozenset({".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm"})
CONTAINERS = re.compile(rb".{4}(ftyp|moov|mdat|free|skip|wide|pnot)|RIFF.{4}AVI |\x1aE\xdf\xa3", re.DOTALL)
"""How files of these formats begin. OpenCV's decoder looks at the content, not the name: a playlist that is named .mp4 would open
the files that it lists."""


def is_video(source: object) -> bool:
    """Whether this is the path of a video file, by its suffix."""
    return suffix_of(str(source)) in VIDEO_SUFFIXES if isinstance(source, str | PathLike) else False


def frames(path: str | Path, every: float) -> Iterator[tuple[float, np.ndarray]]:
    """(seconds, frame) of a video: its first frame, and then one for each `every` seconds; uint8 [H, W, 3], RGB, upright.

    Raises UnreadableImage: not a video, frames of more than `MAX_PIXELS`, or a video that ends before the length in its header.
    """
    file = Path(path)
    if not file.is_file():
        raise UnreadableImage("No such file" if not file.exists() else "no regular file")
    with file.open("rb") as stream:
        if not CONTAINERS.match(stream.read(16)):
            raise UnreadableImage("not a video file (MP4, MOV, AVI, Matroska or WebM)")
    level = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    video = cv2.VideoCapture(str(file), cv2.CAP_FFMPEG)
    cv2.utils.logging.setLogLevel(level)
    try:
        yield from _sampled(video, every)
    finally:
        video.release()


def _sampled(video: cv2.VideoCapture, every: float) -> Iterator[tuple[float, np.ndarray]]:
    if not video.isOpened():
        raise UnreadableImage("not a video file, or damaged")
    width, height = (int(video.get(key)) for key in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
    if width * height > MAX_PIXELS:
        raise UnreadableImage(f"{width}x{height} pixels; the limit is {MAX_PIXELS:,}")
    rate = video.get(cv2.CAP_PROP_FPS) or 25.0
    announced, time, next_sample = video.get(cv2.CAP_PROP_FRAME_COUNT) / rate, 0.0, 0
    while video.grab():
        time = max(time, video.get(cv2.CAP_PROP_POS_MSEC) / 1000)
        if time < next_sample * every - 1e-6:
            continue
        next_sample = int((time + 1e-6) / every) + 1
        read, frame = video.retrieve()
        if read:
            yield time, cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
    if time < min(0.98 * announced, announced - 2 / rate):
        raise UnreadableImage(f"the video breaks off after {time:.1f} of {announced:.1f} seconds")
