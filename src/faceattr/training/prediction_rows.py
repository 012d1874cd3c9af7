"""Makes batches of subjects, and rows of answers from the scores of a network. The order of the subjects stays.

The rows are those of predictions.csv and of `Predictor.predict`. No torch here: anything may run the network.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from faceattr.data.faces.detect import POINTS, Face
from faceattr.data.photo_reader import Subject
from faceattr.errors import FaceattrError

UNCERTAIN = "uncertain"
"""The answer if no class has at least the probability `abstain`."""

ScoredSubject = tuple[Subject, np.ndarray | None]
"""A subject and its probabilities, float32 [classes]; None where it has no pixels."""


class SubjectBatches:
    """Makes batches of `subjects` (`batches`), takes the scores of each batch (`add`), and passes every subject with its scores
    to `receive`, in the order in which the subjects were read.

    mirror: a batch holds each crop and its mirror image; the scores of a subject are the mean of both.
    """

    def __init__(
        self,
        subjects: Iterable[Subject],
        batch_size: int,
        receive: Callable[[list[ScoredSubject]], None],
        *,
        mirror: bool = False,
    ) -> None:
        self._subjects, self._batch_size, self._receive, self._mirror = subjects, batch_size, receive, mirror
        self._waiting: deque[Subject] = deque()
        self._scores: deque[np.ndarray] = deque()

    def batches(self) -> Generator[np.ndarray]:
        """Pixels, uint8 [B, height, width, 3], of at most `batch_size` subjects; mirrored ones come after all others."""
        pixels: list[np.ndarray] = []
        subjects = iter(self._subjects)
        try:
            for subject in subjects:
                self._waiting.append(subject)
                if subject.pixels is not None:
                    pixels.append(subject.pixels)
                if len(pixels) == self._batch_size:
                    yield self._batch(pixels)
                    pixels = []
            if pixels:
                yield self._batch(pixels)
        finally:
            if isinstance(subjects, Generator):  # a reader's threads end, even while the traceback of an error holds it
                subjects.close()

    def _batch(self, pixels: list[np.ndarray]) -> np.ndarray:
        batch = np.stack(pixels)
        return np.concatenate([batch, batch[:, :, ::-1]]) if self._mirror else batch

    def add(self, scores: np.ndarray) -> None:
        """The scores, float32 [B, classes], of the next batch."""
        self._scores.extend(scores.reshape(2, -1, scores.shape[1]).mean(0) if self._mirror else scores)
        scored: list[ScoredSubject] = []
        while self._waiting and (self._scores or self._waiting[0].pixels is None):
            subject = self._waiting.popleft()
            scored.append((subject, None if subject.pixels is None else self._scores.popleft()))
        if scored:
            self._receive(scored)

    def finish(self) -> None:
        """Call it after the last batch: passes on the last subjects, which have no pixels."""
        assert all(subject.pixels is None for subject in self._waiting)
        if self._waiting:
            self._receive([(subject, None) for subject in self._waiting])
            self._waiting.clear()


@dataclass(frozen=True)
class RowFormat:
    """Which columns a row of answers has.

    faces: a row is a face, with its number, box and points. times: with the seconds from a video's start.
    abstain: below this probability the answer is `UNCERTAIN`; None: there is always an answer.
    reasons: with the column `reason`.
    """

    classes: Sequence[str]
    multilabel: bool
    faces: bool = False
    times: bool = False
    abstain: float | None = None
    reasons: bool = False

    def __post_init__(self) -> None:
        if self.abstain is not None and self.multilabel:
            raise FaceattrError(
                f"abstain={self.abstain}: attributes are not one answer; their probabilities say how certain each is."
            )
        if self.abstain is not None and UNCERTAIN in self.classes:
            raise FaceattrError(f"abstain={self.abstain}: this model has a class named {UNCERTAIN}.")

    @property
    def probabilities(self) -> list[str]:
        """The columns of the probabilities."""
        return [f"probability_{name}" for name in self.classes]

    @property
    def columns(self) -> list[str]:
        points = [f"{name}_{axis}" for name in POINTS for axis in "xy"]
        return [
            *("path", *(["time"] if self.times else []), *(["face"] if self.faces else []), "predicted"),
            *self.probabilities,
            *(["x", "y", "width", "height", "score", *points] if self.faces else []),
            *(["reason"] if self.reasons else []),
        ]

    def row(self, path: Any, subject: Subject, scores: np.ndarray | None) -> list[Any]:
        """In the order of `columns`; None where there is no value. Positions are in pixels of the picture."""
        values: list[Any] = [path]
        values += [subject.time] if self.times else []
        values += [subject.number] if self.faces else []
        values += [None] * (1 + len(self.classes)) if scores is None else [self.predicted(scores), *scores]
        values += _face_values(subject.face) if self.faces else []
        return values + ([subject.reason or None] if self.reasons else [])

    def predicted(self, scores: np.ndarray) -> str:
        """The most probable class; of attributes those above 0.5, comma-separated."""
        if self.multilabel:
            return ", ".join(name for name, score in zip(self.classes, scores, strict=True) if score > 0.5)
        best = int(scores.argmax())
        return UNCERTAIN if self.abstain is not None and scores[best] < self.abstain else self.classes[best]

    def caption(self, scores: np.ndarray) -> str:
        """The answer as it is written into a picture."""
        if self.multilabel:
            return self.predicted(scores) or "none"
        return f"{self.predicted(scores)} {scores.max():.2f}"


def _face_values(face: Face | None) -> list[float | None]:
    """Box, score and points, to hundredths of a pixel."""
    if face is None:
        return [None] * (5 + 2 * len(POINTS))
    box, points = (face.x, face.y, face.width, face.height), (value for point in face.points for value in point)
    return [*(round(value, 2) for value in box), round(face.score, 4), *(round(value, 2) for value in points)]
