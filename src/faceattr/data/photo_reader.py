"""Reads photos and videos for prediction: decodes them, finds and crops faces, in threads.

A subject is what gets one answer: a face, or a whole picture. The command and `faceattr.load(…).predict` both read images
here; nothing here needs torch.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
from PIL import Image

from faceattr.data.decode import MAX_PIXELS, ImageLike, InputSpec, UnreadableImage, decode, fit, open_image
from faceattr.data.faces.crop import crop
from faceattr.data.faces.crop_recipe import FaceRecipe, large_enough, pick, reading_order
from faceattr.data.faces.detect import Detector, Face
from faceattr.data.faces.detector_file import detector_file
from faceattr.data.parallel import default_workers, in_order
from faceattr.data.videos import frames, is_video
from faceattr.progress import Progress

PIXELS_IN_FLIGHT = MAX_PIXELS
"""The most pixels that all threads together decode at a time: memory depends on it, not on the number of images."""
CROP_BYTES = 256_000_000
"""The most bytes of crops that wait for the network."""
NO_FACE = "no face found"


def create_detector(recipe: FaceRecipe, weights: str | None = None) -> Detector | None:
    """The face detector; None if the recipe looks for no faces. `weights` is `faces.weights`; see `detector_file`."""
    return Detector(detector_file(weights), recipe.min_score) if recipe.active else None


@dataclass(frozen=True)
class Subject:
    """What gets one answer: a face of a photo or of a video's frame, or the whole picture; or why there is none.

    source: the position of the photo or video among those given. time: seconds from a video's start.
    number: number of the face in its picture, from 0 in reading order; None for a whole picture.
    pixels: what the network takes, uint8 [height, width, 3], RGB; None where there is no answer: `reason` says why.
    """

    source: int
    time: float | None = None
    number: int | None = None
    face: Face | None = None
    pixels: np.ndarray | None = None
    reason: str = ""

    @property
    def unreadable(self) -> bool:
        """Whether the file could not be read."""
        return self.pixels is None and self.face is None and self.reason != NO_FACE


class SubjectReader:
    """The subjects of photos (files, PIL images, arrays) and video files, in their order; iterate to read them.

    spec: the network's input, and how faces are cropped. detector: see `create_detector`.
    all_faces: read every face of a picture; False: only the one that `spec.faces` picks, as in training.
    max_faces: the most faces of a picture that are cropped, the largest; the others have a reason. None: all.
    every: seconds between the frames that are taken of a video.
    label: title of the progress; "" shows none.
    """

    def __init__(
        self,
        sources: Sequence[ImageLike],
        spec: InputSpec,
        detector: Detector | None = None,
        *,
        all_faces: bool = True,
        max_faces: int | None = None,
        every: float = 1.0,
        label: str = "",
    ) -> None:
        assert (detector is not None) == spec.faces.active
        self.sources, self.spec, self.detector = sources, spec, detector
        self.all_faces, self.max_faces, self.every, self.label = all_faces, max_faces, every, label
        self._photo_pixels, self._frame_pixels = PixelBudget(PIXELS_IN_FLIGHT), PixelBudget(PIXELS_IN_FLIGHT // 4)

    def __iter__(self) -> Iterator[Subject]:
        most_crops, workers = CROP_BYTES // (3 * self.spec.height * self.spec.width), default_workers()
        pool = ThreadPoolExecutor(workers, "faceattr-read")
        try:
            with Progress(self.label, len(self.sources)) as progress:
                for subjects in in_order(pool, self._tasks(), ahead=max(workers, min(128, most_crops))):
                    yield from subjects
                    progress.update(subjects[0].source + 1 - progress.done)
        finally:
            pool.shutdown(cancel_futures=True)

    def _tasks(self) -> Iterator[Callable[[], list[Subject]]]:
        """What the threads do: each task is one photo, or one frame of a video. Frames are decoded here, one after the other."""
        for source_index, source in enumerate(self.sources):
            if not is_video(source):
                yield partial(self._photo, source_index, source)
                continue
            try:
                for time, frame in frames(str(source), self.every):
                    release = self._frame_pixels.take(frame.shape[0] * frame.shape[1])
                    yield partial(self._frame, source_index, time, frame, release)
            except UnreadableImage as error:
                yield partial(list, [Subject(source_index, reason=str(error))])

    def _photo(self, source_index: int, source: ImageLike) -> list[Subject]:
        try:
            release = self._photo_pixels.take(_pixel_count(source))
            try:
                return self._subjects(source_index, None, decode(source))
            finally:
                release()
        except UnreadableImage as error:
            return [Subject(source_index, reason=str(error))]

    def _frame(self, source_index: int, time: float, frame: np.ndarray, release: Callable[[], None]) -> list[Subject]:
        try:
            return self._subjects(source_index, round(time, 3), Image.fromarray(frame))
        finally:
            release()

    def _subjects(self, source_index: int, time: float | None, image: Image.Image) -> list[Subject]:
        if self.detector is None:
            return [Subject(source_index, time, pixels=fit(image, self.spec))]
        pixels, recipe = np.asarray(image), self.spec.faces
        every = self.all_faces or recipe.every_face
        faces = large_enough(self.detector.find(pixels, every=every), recipe)
        if not self.all_faces:
            faces = [face] if (face := pick(faces, recipe, *image.size)) else []
        if not faces and recipe.on_none == "whole":
            return [Subject(source_index, time, pixels=fit(image, self.spec), reason=f"{NO_FACE}: the whole picture")]
        size, interpolation = (self.spec.height, self.spec.width), self.spec.interpolation
        cropped = faces[: self.max_faces]  # the largest come first
        reason = f"{len(faces)} faces in the picture; at most {self.max_faces} get an answer, the largest"
        return [
            Subject(source_index, time, number, face, crop(pixels, face, recipe, size, interpolation=interpolation))
            if face in cropped
            else Subject(source_index, time, number, face, reason=reason)
            for number, face in enumerate(reading_order(faces))
        ] or [Subject(source_index, time, reason=NO_FACE)]


def _pixel_count(source: ImageLike) -> int:
    """Number of pixels of a picture, without decoding it; 0 where `decode` will say what is wrong."""
    if isinstance(source, np.ndarray):
        return source.shape[0] * source.shape[1] if source.ndim > 1 else 0
    if isinstance(source, Image.Image):
        return source.width * source.height
    try:
        with open_image(source) as image:
            return image.width * image.height
    except Exception:  # many kinds, as in `decode`
        return 0


class PixelBudget:
    """Lets threads work on at most `most` pixels at a time. A larger picture waits until it is alone.

    Photos and frames each have a budget of their own. With a common one there would be a deadlock: a frame takes its share
    before its task starts, and that task may be queued behind photos that wait for this share.
    """

    def __init__(self, most: int) -> None:
        self._most = self._free = most
        self._changed = threading.Condition()

    def take(self, pixels: int) -> Callable[[], None]:
        """Waits until so many pixels are free. Returns the function that gives them back."""
        taken = min(pixels, self._most)
        with self._changed:
            self._changed.wait_for(lambda: self._free >= taken)
            self._free -= taken
        return partial(self._give_back, taken)

    def _give_back(self, pixels: int) -> None:
        with self._changed:
            self._free += pixels
            self._changed.notify_all()
