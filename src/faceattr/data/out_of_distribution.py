"""Out-of-distribution images: do images look like those that a model was trained on? Its checkpoint has statistics of those.

The statistics are cheap: arrangement of light and dark, brightness, contrast, colour and sharpness of what the network gets. They
show whole photos given to a model of face crops, swapped colours, and turned, dark or blurred images; they say nothing about
people. An image is also compared with changed versions of itself (`CHANGES`), which must not look more usual.
"""

import logging
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from faceattr.data.photo_reader import Subject
from faceattr.errors import FaceattrError
from faceattr.message_text import counted_of

if TYPE_CHECKING:
    from faceattr.data.datamodule import FaceData

log = logging.getLogger(__name__)

SIDE = 6
"""Rows and columns of the arrangement of light and dark."""
NAMED = ("brightness", "contrast", "colour", "red over blue", "sharpness")
LENGTH = SIDE * SIDE + len(NAMED)
CHANGES = ("upside down", "turned by a quarter", "turned by a quarter", "negative", "red and blue swapped")
"""The changed versions of an image that it is compared with; see `changed_statistics`."""
NO_LIMIT = 1e9
"""For checkpoints that were written before there was a threshold: nothing exceeds it."""
MOST_IMAGES = 2000
"""The most images whose statistics are computed; more do not change the answer."""
LEAST_HELD_OUT = 30
"""With fewer held-out images no thresholds are set."""
UNUSUAL_SHARE, SHIFT = 0.1, 1.5
"""A warning needs this share of unusual images, or a mean of the images that is so many standard deviations off."""


def image_statistics(pixels: np.ndarray) -> np.ndarray:
    """The statistics of an image, uint8 [H, W, 3]: float64 [LENGTH]; the arrangement is without brightness and contrast."""
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, (SIDE, SIDE), interpolation=cv2.INTER_AREA).astype(np.float64).ravel()
    red, _, blue, _ = cv2.mean(pixels)
    coarse = cv2.resize(pixels, (32, 32), interpolation=cv2.INTER_AREA)
    colour = float((coarse.max(2).astype(int) - coarse.min(2)).mean())
    sharpness = math.log1p(float(cv2.Laplacian(grey, cv2.CV_32F).var()))
    named = [*(float(value[0, 0]) for value in cv2.meanStdDev(grey)), colour, red - blue, sharpness]
    return np.concatenate([(small - small.mean()) / (small.std() + 4), named])


def statistics_of_all(batches: Iterable[np.ndarray]) -> np.ndarray:
    """float64 [N, LENGTH] of the images of batches, uint8 [B, H, W, 3]."""
    rows = [image_statistics(pixels) for batch in batches for pixels in batch]
    return np.array(rows).reshape(-1, LENGTH)


@dataclass(frozen=True)
class UsualInputs:
    """Statistics of the training images, and thresholds from held-out images.

    mean, scale: mean and standard deviation of the training images' statistics [LENGTH].
    precision: the inverse of their covariance [LENGTH, LENGTH].
    centre, spread: mean and standard deviation of the logarithm of the held-out images' squared Mahalanobis distances.
    most_distant: the distance, in spreads from the centre, that 1 in 400 held-out images exceeds.
    most_shifted: the standard deviations from the mean that a named statistic of 1 in 400 exceeds.
    most_gained: for each of `CHANGES`, the decrease in distance, in spreads, that the changed version of 1 in 200 exceeds.
    """

    mean: np.ndarray
    scale: np.ndarray
    precision: np.ndarray
    centre: float = 0.0
    spread: float = 1.0
    most_distant: float = 0.0
    most_shifted: float = 0.0
    most_gained: np.ndarray = field(default_factory=lambda: np.full(len(CHANGES), NO_LIMIT))

    @classmethod
    def fit(cls, training: np.ndarray, held_out: np.ndarray) -> "UsualInputs | None":
        """From statistics [N, LENGTH] of training images and of others like them; None where there are too few."""
        if len(training) < 2 or len(held_out) < LEAST_HELD_OUT:
            return None
        mean, scale = training.mean(0), training.std(0) + 1e-3
        shrunk = LENGTH / (len(training) + LENGTH)
        covariance = (1 - shrunk) * np.cov(training.T) + shrunk * np.diag(scale**2)
        usual = cls(mean, scale, np.linalg.inv(covariance + 1e-6 * np.diag(scale**2)))
        distances = usual._distances(held_out)
        usual = replace(usual, centre=float(distances.mean()), spread=float(distances.std() + 1e-3))
        distant, shifted = usual._distances(held_out), usual._largest_shifts(held_out)
        gained = [_rarely_exceeded(gains, quantile=0.995, deviations=2.75) for gains in usual._gains(held_out).T]
        return replace(
            usual,
            most_distant=_rarely_exceeded(distant),
            most_shifted=_rarely_exceeded(shifted),
            most_gained=np.maximum(gained, 0),
        )

    def unusual(self, statistics: np.ndarray) -> np.ndarray:
        """Which images exceed a threshold, bool [N]; about 1 in 100 held-out images does."""
        distant, shifted = (
            self._distances(statistics) > self.most_distant,
            self._largest_shifts(statistics) > self.most_shifted,
        )
        return distant | shifted | self._more_usual_changed(statistics).any(1)

    def difference(self, statistics: np.ndarray) -> str:
        """A sentence that says how images [N, LENGTH] differ from the training images; "" where they do not."""
        if not len(statistics):
            return ""
        n, unusual = len(statistics), int(self.unusual(statistics).sum())
        shift, limit = self._shifts(statistics).mean(0), max(SHIFT, 3.5 / math.sqrt(n))
        shifted, distant = np.abs(shift) > limit, float(self._distances(statistics).mean()) > limit
        if unusual < max(_least_unusual(n), UNUSUAL_SHARE * n) and not shifted.any() and not distant:
            return ""
        change = self._commonest_change(statistics)  # it explains all the rest
        reasons = [change] if change else [text for text in map(_reason, NAMED, shift, shifted) if text]
        if not reasons or (distant and not change):
            reasons.append("other crops (whole photos instead of faces?) or turned images")
        count = counted_of(unusual, n, "image", "are")
        return (
            f"These images look unlike the training images. Likely: {', '.join(reasons)}. Taken one by one, {count} unusual "
            "(of validation images at most 1 in 100). Is this what the model was trained on?"
        )

    def _more_usual_changed(self, statistics: np.ndarray) -> np.ndarray:
        """Which images would be more usual with which change, bool [N, len(CHANGES)]."""
        return self._gains(statistics) > self.most_gained

    def _commonest_change(self, statistics: np.ndarray) -> str:
        """The change that would make most of the unusual images usual; "" where there is none."""
        gains = self._gains(statistics)
        usual = self._distances(statistics)[:, None] - gains < 2  # spreads from the centre
        possible = np.where(usual & (gains > self.most_gained), gains, 0)
        best = np.bincount(possible[possible.any(1)].argmax(1), minlength=len(CHANGES))
        enough = max(UNUSUAL_SHARE * len(statistics), self.unusual(statistics).sum() / 2)
        return CHANGES[int(best.argmax())] if best.max() > enough else ""

    def _gains(self, statistics: np.ndarray) -> np.ndarray:
        """How much less distant each image would be with each change, in spreads: [N, len(CHANGES)]."""
        changed = np.stack([self._distances(other) for other in changed_statistics(statistics)], axis=1)
        return self._distances(statistics)[:, None] - changed

    def _largest_shifts(self, statistics: np.ndarray) -> np.ndarray:
        """The most unusual named statistic of each image [N], in standard deviations."""
        return np.abs(self._shifts(statistics)).max(1)

    def _shifts(self, statistics: np.ndarray) -> np.ndarray:
        """The named statistics [N, len(NAMED)], in standard deviations from their mean."""
        return ((statistics - self.mean) / self.scale)[:, -len(NAMED) :]

    def _distances(self, statistics: np.ndarray) -> np.ndarray:
        """Logarithm of the squared Mahalanobis distance [N], in spreads from its centre."""
        offset = statistics - self.mean
        squared = np.einsum("ij,jk,ik->i", offset, self.precision, offset).clip(1e-9)
        return (np.log(squared) - self.centre) / self.spread

    def stored(self) -> dict[str, Any]:
        """In plain containers, as a checkpoint has it."""
        return {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in vars(self).items()}

    @classmethod
    def from_stored(cls, stored: Any, source: str) -> "UsualInputs | None":
        """The inverse of `stored`; None of None. Raises FaceattrError: damaged."""
        if stored is None:
            return None
        try:
            stored = {"most_gained": [NO_LIMIT] * len(CHANGES)} | stored
            values = {field.name: np.array(stored[field.name], np.float64) for field in fields(cls)}
        except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
            raise FaceattrError(f"{source}: its statistics of the training images are damaged.") from error
        shapes = [(LENGTH,), (LENGTH,), (LENGTH, LENGTH), *[()] * (len(values) - 4), (len(CHANGES),)]
        finite = all(bool(np.isfinite(value).all()) for value in values.values())
        if [value.shape for value in values.values()] != shapes or not finite or values["scale"].min() <= 0:
            raise FaceattrError(f"{source}: its statistics of the training images are damaged.")
        plain: dict[str, Any] = {name: value if value.ndim else float(value) for name, value in values.items()}
        return cls(**plain)


def changed_statistics(statistics: np.ndarray) -> list[np.ndarray]:
    """The statistics [N, LENGTH] that images would have after each of `CHANGES`, from those that they have."""
    squares, named = statistics[:, : -len(NAMED)].reshape(-1, SIDE, SIDE), statistics[:, -len(NAMED) :]
    swapped = named * [1, 1, 1, -1, 1]
    negative = swapped * [-1, 1, 1, 1, 1] + [255, 0, 0, 0, 0]
    changed = [(np.rot90(squares, turns, (1, 2)), named) for turns in (2, 1, 3)] + [
        (-squares, negative),
        (squares, swapped),
    ]
    return [np.concatenate([square.reshape(-1, SIDE**2), row], axis=1) for square, row in changed]


def _rarely_exceeded(values: np.ndarray, *, quantile: float = 0.9975, deviations: float = 2.8) -> float:
    """What 1 in 400 values (or another `quantile`) exceeds, and at least what a normal distribution gives, with a margin."""
    normal = values.mean() + deviations * (1 + 1.5 / math.sqrt(len(values))) * values.std()
    return float(max(np.quantile(values, quantile, method="higher"), normal))


def _least_unusual(n: int) -> int:
    """The fewest unusual images among `n` that images like the training images reach in at most 1 of 100 cases (binomial)."""
    share, below, k = 0.01, 0.0, 0
    while below < 0.99 and k <= n:
        below += math.comb(n, k) * share**k * (1 - share) ** (n - k)
        k += 1
    return k


def _reason(name: str, shift: float, shifted: bool) -> str:
    """What a shift of a named statistic means; "" where there is none."""
    if not shifted:
        return ""
    if name == "red over blue":
        return "red and blue swapped" if shift < -3 else "bluer" if shift < 0 else "redder"
    words = {
        "brightness": ("darker", "brighter"),
        "contrast": ("less contrast", "more contrast"),
        "colour": ("grey or pale", "more colourful"),
        "sharpness": ("blurred or enlarged", "sharper or noisy"),
    }
    return words[name][int(shift > 0)]


def fit_to(data: "FaceData") -> UsualInputs | None:
    """From training and validation images of a run; None where there are too few."""
    return UsualInputs.fit(*(statistics_of_split(data, split) for split in ("train", "val")))


def statistics_of_split(data: "FaceData", split: str) -> np.ndarray:
    """float64 [N, LENGTH] of at most `MOST_IMAGES` images of a split, evenly drawn."""
    rows = data.rows(split)
    chosen = rows[np.unique(np.linspace(0, len(rows) - 1, min(MOST_IMAGES, len(rows))).astype(int))]
    return statistics_of_all(batch.inputs.permute(0, 2, 3, 1).numpy() for batch in data.pixel_batches(chosen))


class InputCheck:
    """Looks at what goes through it: `for subject in check.passing(reader)`, then `check.warn()` or `check.unusual`."""

    def __init__(self, usual: UsualInputs | None) -> None:
        self._usual = usual
        self._statistics: list[np.ndarray] = []

    def passing(self, subjects: Iterable[Subject]) -> Iterator[Subject]:
        """Passes the subjects on; computes the statistics of the first `MOST_IMAGES`."""
        for subject in subjects:
            if self._usual and subject.pixels is not None and len(self._statistics) < MOST_IMAGES:
                self._statistics.append(image_statistics(subject.pixels))
            yield subject

    @property
    def unusual(self) -> list[bool]:
        """Of each subject whose statistics were computed, whether it is unusual."""
        return self._usual.unusual(self._rows()).tolist() if self._usual else []

    @property
    def difference(self) -> str:
        """See `UsualInputs.difference`."""
        return self._usual.difference(self._rows()) if self._usual else ""

    def warn(self) -> None:
        """Logs how the subjects differ from the training images, where they do."""
        if difference := self.difference:
            log.warning("%s", difference)

    def _rows(self) -> np.ndarray:
        return np.array(self._statistics).reshape(-1, LENGTH)
