"""Frames of videos: which ones are taken, and what is said of a file that is none or breaks off."""

from pathlib import Path

import numpy as np
import pytest
from videos import write_video

from faceattr.data import videos
from faceattr.data.decode import UnreadableImage
from faceattr.data.videos import frames, is_video

RATE = 10


@pytest.fixture(params=[("x.avi", "MJPG"), ("x.mp4", "mp4v")], ids=["avi", "mp4"])
def video(request, tmp_path) -> Path:
    """Three seconds; frame i is grey 8 i."""
    return write_video(
        tmp_path / request.param[0], [np.full((64, 96, 3), 8 * i, np.uint8) for i in range(30)], RATE, request.param[1]
    )


@pytest.mark.parametrize(
    ("every", "expected"), [(1.0, [0, 10, 20]), (0.25, [0, 3, 5, 8, 10, 13, 15, 18, 20, 23, 25, 28]), (60, [0])]
)
def test_frames_gives_the_first_frame_of_each_interval_and_its_time(video, every, expected):
    found = list(frames(video, every))
    assert [round(time, 3) for time, _ in found] == [number / RATE for number in expected]
    assert [frame.shape for _, frame in found] == [(64, 96, 3)] * len(expected)
    assert [float(frame.mean()) for _, frame in found] == pytest.approx([8 * number for number in expected], abs=6)


def test_frames_are_rgb(tmp_path):
    red = np.zeros((64, 64, 3), np.uint8)
    red[..., 0] = 220
    ((_, frame),) = frames(write_video(tmp_path / "x.avi", [red] * 3, RATE, "MJPG"), 1.0)
    assert frame[..., 0].mean() > 180 > 60 > frame[..., 2].mean()


def test_frames_says_that_a_video_breaks_off_after_what_it_has(tmp_path):
    rng = np.random.default_rng(0)
    noise = [rng.integers(0, 255, (64, 64, 3), np.uint8) for _ in range(40)]
    file = write_video(tmp_path / "x.avi", noise, RATE, "MJPG")
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    taken = []
    with pytest.raises(UnreadableImage, match=r"breaks off after 1\.\d of 4\.0 seconds"):
        for time, _ in frames(file, 1.0):
            taken.append(time)
    assert taken == [0, 1]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a video file"),
        (b"#EXTM3U\nhttp://a/b.ts\n", "not a video file"),
        (b"....ftypisom" + bytes(99), "damaged"),
    ],
)
def test_frames_refuses_what_is_no_video(tmp_path, content, message, capfd):
    file = tmp_path / "x.mp4"
    file.write_bytes(content)
    with pytest.raises(UnreadableImage, match=message):
        next(frames(file, 1.0))
    assert capfd.readouterr().err == ""


def test_frames_refuses_absent_files_and_large_frames(tmp_path, monkeypatch):
    with pytest.raises(UnreadableImage, match="No such file"):
        next(frames(tmp_path / "absent.mp4", 1.0))
    monkeypatch.setattr(videos, "MAX_PIXELS", 64 * 96 - 1)
    with pytest.raises(UnreadableImage, match="96x64 pixels"):
        next(frames(write_video(tmp_path / "x.avi", [np.zeros((64, 96, 3), np.uint8)] * 2, RATE, "MJPG"), 1.0))


def test_is_video_goes_by_the_suffix():
    assert is_video("a/B.MP4") and is_video(Path("x.mov"))
    assert not is_video("x.jpg") and not is_video(np.zeros((2, 2, 3)))
