"""From photos and videos to the pixels that a network takes, without a network: decoded, faces found and cropped, in threads.

Prediction from the command line, from Python and from an exported folder read images here; nothing here needs torch.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import numpy as np
from PIL import Image
from tqdm import tqdm

from faceattr.data.decode import MAX_PIXELS, ImageLike, InputSpec, UnreadableImage, cores, decode, fit, open_image
from faceattr.data.faces.crop import crop
from faceattr.data.faces.detect import Detector, Face
from faceattr.data.faces.detector_file import detector_file
from faceattr.data.faces.recipe import FaceRecipe, large_enough, pick, reading_order
from faceattr.data.videos import frames, is_video

PIXELS_IN_FLIGHT = MAX_PIXELS
"""The most pixels that are decoded at a time, by all threads together: memory depends on it, not on the number of images."""
CROP_BYTES = 256_000_000
"""The most bytes of crops that wait for the network."""
NO_FACE = "no face found"

Result = TypeVar("Result")


def create_detector(recipe: FaceRecipe, weights: str | None = None) -> Detector | None:
    """What finds faces, from the file `weights` (`faces.weights`), or as `detector_file` says; None where none are looked for."""
    return Detector(detector_file(weights), recipe.min_score) if recipe.active else None


@dataclass(frozen=True)
class Subject:
    """What gets one answer: a face of a photo or of a video's frame, or the whole picture; or why there is none.

    source: the position of the photo or video among those given. time: seconds from a video's start.
    number: the face's place among those of its picture, from 0, in reading order; None for a whole picture.
    pixels: uint8 [height, width, 3], RGB, what the network takes; None where there is no answer. `reason` says why then.
    """

    source: int
    time: float | None = None
    number: int | None = None
    face: Face | None = None
    pixels: np.ndarray | None = None
    reason: str = ""

    @property
    def unreadable(self) -> bool:
        """The file is at fault."""
        return self.pixels is None and self.reason != NO_FACE


class SubjectReader:
    """The subjects of photos (files, PIL images, arrays) and video files, in their order; iterate to read them.

    spec: the network's input, and how faces are cropped. detector: see `create_detector`.
    all_faces: every face of a picture; else the one that `spec.faces` picks, as in training.
    every: seconds between the frames that are taken of a video.
    label: title of the progress bar; "" for none.
    """

    def __init__(
        self,
        sources: Sequence[ImageLike],
        spec: InputSpec,
        detector: Detector | None = None,
        *,
        all_faces: bool = True,
        every: float = 1.0,
        label: str = "",
    ) -> None:
        assert (detector is not None) == spec.faces.active
        self.sources, self.spec, self.detector = sources, spec, detector
        self.all_faces, self.every, self.label = all_faces, every, label
        self._photo_pixels, self._frame_pixels = PixelBudget(PIXELS_IN_FLIGHT), PixelBudget(PIXELS_IN_FLIGHT // 4)

    def __iter__(self) -> Iterator[Subject]:
        waiting, workers = CROP_BYTES // (3 * self.spec.height * self.spec.width), cores()
        pool = ThreadPoolExecutor(workers, "faceattr-read")
        bar = tqdm(
            desc=self.label, total=len(self.sources), unit="img", disable=None if self.label else True, leave=False
        )
        try:
            for found in in_order(pool, self._tasks(), ahead=max(workers, min(128, waiting))):
                yield from found
                bar.update(found[0].source + 1 - bar.n)
        finally:
            bar.close()
            pool.shutdown(cancel_futures=True)

    def _tasks(self) -> Iterator[Callable[[], list[Subject]]]:
        """What the threads do: a photo each, or a frame, which is decoded here, one after the other."""
        for place, source in enumerate(self.sources):
            if not is_video(source):
                yield partial(self._photo, place, source)
                continue
            try:
                for time, frame in frames(str(source), self.every):
                    release = self._frame_pixels.take(frame.shape[0] * frame.shape[1])
                    yield partial(self._frame, place, time, frame, release)
            except UnreadableImage as error:
                yield partial(list, [Subject(place, reason=str(error))])

    def _photo(self, place: int, source: ImageLike) -> list[Subject]:
        try:
            release = self._photo_pixels.take(_pixels(source))
            try:
                return self._subjects(place, None, decode(source))
            finally:
                release()
        except UnreadableImage as error:
            return [Subject(place, reason=str(error))]

    def _frame(self, place: int, time: float, frame: np.ndarray, release: Callable[[], None]) -> list[Subject]:
        try:
            return self._subjects(place, round(time, 3), Image.fromarray(frame))
        finally:
            release()

    def _subjects(self, place: int, time: float | None, image: Image.Image) -> list[Subject]:
        if self.detector is None:
            return [Subject(place, time, pixels=fit(image, self.spec))]
        pixels, recipe = np.asarray(image), self.spec.faces
        every = self.all_faces or recipe.search[1]
        faces = large_enough(self.detector.find(pixels, every=every), recipe)
        if not self.all_faces:
            faces = [face] if (face := pick(faces, recipe, *image.size)) else []
        if not faces and recipe.on_none == "whole":
            return [Subject(place, time, pixels=fit(image, self.spec), reason=f"{NO_FACE}: the whole picture")]
        size, how = (self.spec.height, self.spec.width), self.spec.interpolation
        return [
            Subject(place, time, number, face, crop(pixels, face, recipe, size, interpolation=how))
            for number, face in enumerate(reading_order(faces))
        ] or [Subject(place, time, reason=NO_FACE)]


def _pixels(source: ImageLike) -> int:
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
    """Lets threads work on at most `most` pixels at a time; one picture may have all of them.

    Photos and frames have one each: a frame takes its share before its task begins, and would wait for ever behind photos
    that wait for the frame's.
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


def in_order(pool: ThreadPoolExecutor, tasks: Iterable[Callable[[], Result]], *, ahead: int) -> Iterator[Result]:
    """What the tasks return, in their order; at most `ahead` of them are begun before their results are taken."""
    begun: deque[Future[Result]] = deque()
    for task in tasks:
        begun.append(pool.submit(task))
        while begun and (len(begun) >= ahead or begun[0].done()):
            yield begun.popleft().result()
    while begun:
        yield begun.popleft().result()
