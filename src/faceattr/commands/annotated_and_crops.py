"""The pictures that predict.py writes beside its table: those with boxes and answers, and the crops that the network took."""

import os
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path

from PIL import Image

from faceattr.data.decode import UnreadableImage, decode
from faceattr.data.parallel import default_workers
from faceattr.data.photo_reader import Subject, SubjectReader
from faceattr.data.videos import frames, is_video
from faceattr.files import named_in_errors
from faceattr.report.draw_answers import Note, annotate

ANNOTATED, CROPS = "annotated", "crops"
"""Folders beside predictions.csv. In them, pictures lie in the same subfolders as below the folder that all inputs share."""
AHEAD = 8
"""The most pictures that wait to be written."""


class Pictures:
    """Writes pictures in threads, while the network works. `add` takes the subjects in their order."""

    def __init__(self, folder: Path, reader: SubjectReader, *, annotated: bool, crops: bool) -> None:
        self._folder, self._every = folder, reader.every
        self._annotated, self._crops = annotated, crops
        self._common = os.path.commonpath([Path(str(file)).absolute().parent for file in reader.sources])
        self._pool = ThreadPoolExecutor(default_workers(), "faceattr-write")
        self._pending: deque[Future[None]] = deque()
        self._file = ""
        self._notes: dict[float | None, list[Note]] = {}

    @classmethod
    def create(cls, folder: Path, reader: SubjectReader, *, annotated: bool, crops: bool) -> "Pictures | None":
        """None where no pictures are asked for."""
        return cls(folder, reader, annotated=annotated, crops=crops) if annotated or crops else None

    def add(self, file: str, subject: Subject, answer: str) -> None:
        """Takes the next subject, which is from `file`. A picture is drawn once all its faces are here."""
        if file != self._file:
            self._draw()
            self._file = file
        if subject.unreadable:
            return
        if self._annotated:
            self._notes.setdefault(subject.time, []).append(Note(subject.face, answer or subject.reason))
        if self._crops and subject.pixels is not None:
            number = "" if subject.number is None else f".face{subject.number}"
            target = self._target(CROPS, file, subject.time, f"{number}.png")
            self._submit(partial(save, Image.fromarray(subject.pixels), target))

    def folders(self) -> str:
        """Where they are; "" where none was written."""
        return " and ".join(str(self._folder / name) for name in (ANNOTATED, CROPS) if (self._folder / name).exists())

    def close(self, *, finish: bool) -> None:
        """Ends the threads. finish: first draws the last picture, waits until all are written, and raises what went wrong."""
        try:
            if finish:
                self._draw()
                while self._pending:
                    self._pending.popleft().result()
        finally:
            self._pool.shutdown(cancel_futures=True)

    def _draw(self) -> None:
        if self._notes:
            draw = self._draw_video if is_video(self._file) else self._draw_photo
            self._submit(partial(draw, self._file, self._notes))
        self._notes = {}

    def _draw_photo(self, file: str, notes: dict[float | None, list[Note]]) -> None:
        save(annotate(decode(file), notes[None]), self._target(ANNOTATED, file, None))

    def _draw_video(self, file: str, notes: dict[float | None, list[Note]]) -> None:
        try:
            for time, frame in frames(file, self._every):
                if (seconds := round(time, 3)) in notes:
                    target = self._target(ANNOTATED, file, seconds, ".jpg")
                    save(annotate(Image.fromarray(frame), notes[seconds]), target)
        except UnreadableImage:  # it breaks off; its row says so
            return

    def _target(self, folder: str, file: str, time: float | None, ending: str = "") -> Path:
        name = os.path.relpath(Path(file).absolute(), self._common) + ("" if time is None else f".{time:.3f}s") + ending
        writable = name.lower().endswith((".jpg", ".jpeg", ".png"))
        return self._folder / folder / (name if writable else f"{name}.jpg")

    def _submit(self, task: "partial[None]") -> None:
        self._pending.append(self._pool.submit(task))
        while len(self._pending) > AHEAD:
            self._pending.popleft().result()


def save(image: Image.Image, file: Path) -> None:
    """As JPEG of good quality or PNG, as the suffix says."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with named_in_errors(file):
        image.save(file, quality=92)
