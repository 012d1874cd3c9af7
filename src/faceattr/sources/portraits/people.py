"""Who the sample source draws: invented people, and the pictures taken of them.

Gender and age change only how *likely* each feature is: every feature's distribution overlaps between the classes, so
no single one decides. A `Person` is what stays the same in all pictures of an identity, a `Shot` what differs between
them. Both come from the seed and their own number alone, so that no picture depends on how many others there are.
"""

from bisect import bisect
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from typing import TypeVar

import numpy as np

GENDERS = ["female", "male"]
AGES = {"young": (18, 30), "middle": (30, 50), "old": (50, 86)}  # years: from, and up to but not with
HAIR_LENGTHS = ["none", "short", "medium", "long"]
BEARDS = ["none", "stubble", "moustache", "goatee", "full"]
GLASSES = ["none", "thin", "bold"]
SKIN_TONES = ["light", "medium", "dark"]

SKIN = np.array([[244, 208, 184], [228, 182, 148], [196, 144, 104], [146, 98, 68], [94, 62, 46]], float)
HAIR = np.array([[32, 26, 24], [62, 42, 30], [104, 68, 42], [164, 122, 72], [212, 176, 118], [150, 70, 36]], float)
GREY = np.array([196, 194, 190], float)
IRIS = np.array([[58, 38, 26], [92, 62, 36], [88, 98, 58], [74, 108, 132], [98, 118, 128]], float)


T = TypeVar("T")


@dataclass(frozen=True)
class Person:
    """Lengths are in units of half a head's width; `fullness`-like values are near 1 for an average face."""

    gender: str
    age: int
    tone: float  # of the skin: 0 light … 1 dark
    skin: np.ndarray  # RGB
    hair: np.ndarray
    brow_colour: np.ndarray
    iris: np.ndarray
    lip_colour: np.ndarray
    grey: float
    hair_length: str
    parting: float  # -1 left … 1 right
    fringe: float  # how far hair covers the forehead, 0 … 1
    hairline: float  # how far it has receded, 0 … 1
    volume: float
    curl: float
    length: float  # of the face
    jaw: float
    chin: float
    cheek: float
    brow: float
    brow_arch: float
    brow_height: float
    eye: float
    lash: float
    nose: float
    lips: float
    mouth: float
    neck: float
    shoulders: float
    beard: str
    wrinkles: float
    bags: float
    sag: float
    glasses: str
    earrings: bool

    @property
    def age_class(self) -> str:
        return next(name for name, (_, end) in AGES.items() if self.age < end)

    @property
    def skin_tone(self) -> str:
        return SKIN_TONES[min(int(self.tone * 3), 2)]


@dataclass(frozen=True)
class Shot:
    """Angles in radians; `light` is where it comes from, left/right and above/below, each about -1 … 1."""

    yaw: float
    pitch: float
    tilt: float
    shift: tuple[float, float]
    zoom: float
    light: tuple[float, float]
    contrast: float
    exposure: float
    warmth: float
    smile: float
    open: float
    gaze: float
    glasses: bool
    tied: bool
    background: np.ndarray  # 3x3 RGB patches, smoothed when drawn
    clothes: np.ndarray
    neckline: float
    blur: float  # radius in 1/128 of the picture's width
    noise: float  # standard deviation in grey levels
    texture: int  # seed of hair, skin and sensor noise


def images_of(identity: int, seed: int) -> int:
    """How many pictures there are of one identity: 3 to 6."""
    return int(_rng(seed, identity, 0).integers(3, 7))


@lru_cache(maxsize=16)  # an identity's pictures are drawn one after the other
def invent(identity: int, seed: int) -> Person:
    """The identity's features. Any six that follow each other hold every pair of gender and age class once."""
    rng = _rng(seed, identity, 1)
    gender = GENDERS[identity % 2]
    low, high = list(AGES.values())[identity // 2 % 3]
    age = int(rng.integers(low, high))
    male = gender == "male"

    def near(female_mean: float, male_mean: float, sd: float) -> float:
        mean = male_mean if male else female_mean
        return float(mean + sd * _clip(rng.standard_normal(), -2.2, 2.2))

    tone = float(rng.beta(1.1, 1.3))
    skin = _mix(SKIN, tone) * rng.normal(1, 0.025, 3)
    grey = _grey(age, rng)
    hair, natural = _hair_colour(tone, grey if male else grey * _pick(rng, [0.3, 1.0], [1, 1]), rng)
    length = _hair_length(male, age, rng)
    lipstick = rng.random() < (0.03 if male else 0.58)
    lips = skin * [0.86, 0.62, 0.62]
    lip_colour = lips * (1 - lipstick * 0.6) + np.array([172, 44, 62]) * lipstick * 0.6
    decay = (age - 18) / 67
    return Person(
        gender=gender,
        age=age,
        tone=tone,
        skin=np.clip(skin, 0, 255),
        hair=hair,
        brow_colour=natural * 0.8 + skin * 0.08,
        iris=IRIS[_pick(rng, range(5), [0.3, 0.25, 0.15, 0.15, 0.15] if tone < 0.4 else [0.7, 0.25, 0.05, 0, 0])],
        lip_colour=np.clip(lip_colour, 0, 255),
        grey=grey,
        hair_length=length,
        parting=float(rng.uniform(-1, 1)),
        fringe=_clip(near(0.42, 0.25, 0.25), 0, 1) if length != "none" else 0.0,
        hairline=_clip(near(0.0, 0.55 * decay, 0.12), 0, 1),
        volume=near(1.05, 0.92, 0.12) - 0.1 * decay,
        curl=_clip(rng.normal(0.15 + 0.5 * (tone > 0.7), 0.2), 0, 1),
        length=near(0.98, 1.03, 0.045),
        jaw=near(0.86, 1.07, 0.085),
        chin=near(0.9, 1.12, 0.13),
        cheek=near(1.02, 0.98, 0.03),
        brow=near(0.74, 1.34, 0.22) - 0.15 * decay,
        brow_arch=near(1.2, 0.7, 0.35),
        brow_height=near(1.06, 0.94, 0.07),
        eye=near(1.12, 1.0, 0.07) - 0.14 * decay,
        lash=_clip(near(0.72, 0.14, 0.22), 0, 1),
        nose=near(0.93, 1.1, 0.1) + 0.08 * decay,
        lips=near(1.16, 0.86, 0.16) - 0.22 * decay,
        mouth=near(0.97, 1.03, 0.07),
        neck=near(0.86, 1.13, 0.09),
        shoulders=near(0.9, 1.14, 0.1),
        beard=_pick(rng, BEARDS, [0.44, 0.24, 0.07, 0.09, 0.16] if male else [0.98, 0.015, 0.005, 0, 0]),
        wrinkles=_clip((age - 33) / 32 + 0.13 * rng.standard_normal(), 0, 1),
        bags=_clip((age - 22) / 40 + 0.15 * rng.standard_normal(), 0, 1),
        sag=_clip((age - 36) / 36 + 0.12 * rng.standard_normal(), 0, 1),
        glasses=_pick(rng, GLASSES, [0.82, 0.08, 0.1] if age < 45 else [0.55, 0.25, 0.2]),
        earrings=bool(rng.random() < (0.05 if male else 0.4)),
    )


def pose(one: Person, identity: int, number: int, seed: int) -> Shot:
    """Picture `number` (from 0) of an identity."""
    rng = _rng(seed, identity, 2, number)
    base = rng.uniform(30, 230) + rng.normal(0, 18, 3)
    return Shot(
        yaw=_clip(rng.normal(0, 0.17), -0.42, 0.42),
        pitch=_clip(rng.normal(0, 0.09), -0.22, 0.22),
        tilt=_clip(rng.normal(0, 0.09), -0.25, 0.25),
        shift=(float(rng.normal(0, 0.16)), float(rng.normal(0, 0.13))),
        zoom=_clip(rng.normal(1, 0.09), 0.8, 1.25),
        light=(float(rng.uniform(-1, 1)), float(rng.normal(-0.45, 0.3))),
        contrast=float(rng.uniform(0.2, 0.6)),
        exposure=_clip(rng.normal(1.02, 0.13), 0.7, 1.3),
        warmth=float(rng.normal(0, 0.06)),
        smile=_clip(rng.normal(0.35, 0.45), -0.3, 1),
        open=_clip(rng.normal(-0.1, 0.45), 0, 1),
        gaze=float(rng.normal(0, 0.25)),
        glasses=one.glasses != "none" and bool(rng.random() < 0.85),
        tied=bool(rng.random() < 0.3),
        background=np.clip(base + rng.normal(0, 22, (3, 3, 1)) + rng.normal(0, 7, (3, 3, 3)), 0, 255),
        clothes=np.clip(rng.uniform(20, 225) + rng.normal(0, 40, 3), 5, 250),
        neckline=float(rng.uniform(0, 1)),
        blur=float(max(0.0, rng.normal(0.22, 0.42))),
        noise=float(rng.gamma(2.0, 2.2)),
        texture=int(rng.integers(2**31)),
    )


def _rng(seed: int, *key: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))


def _clip(value: float, low: float, high: float) -> float:
    return float(min(max(value, low), high))  # numpy's takes ten times as long for one number


def _pick(rng: np.random.Generator, options: Sequence[T], odds: Sequence[float]) -> T:
    return options[min(bisect(list(accumulate(odds)), rng.random() * sum(odds)), len(options) - 1)]


def _mix(palette: np.ndarray, position: float) -> np.ndarray:
    """The colour at `position` (0 … 1) along a palette."""
    steps = np.linspace(0, 1, len(palette))
    return np.array([np.interp(position, steps, palette[:, channel]) for channel in range(3)])


def _grey(age: int, rng: np.random.Generator) -> float:
    return _clip((age - 42) / 24 + 0.25 * rng.standard_normal(), 0, 1) if age > 28 else 0.0


def _hair_colour(tone: float, grey: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """The colour of the hair, and of brows and beard (which go grey later)."""
    light = _clip(1 - 1.6 * tone, 0, 1)
    odds = [0.7 - 0.4 * light, 0.25, 0.2 * light, 0.12 * light, 0.12 * light, 0.06 * light]
    natural = HAIR[_pick(rng, range(6), odds)] * rng.uniform(0.85, 1.15)
    return natural * (1 - grey) + GREY * grey, natural * (1 - 0.6 * grey) + GREY * 0.6 * grey


def _hair_length(male: bool, age: int, rng: np.random.Generator) -> str:
    bald = _clip((age - 25) / 200, 0.02, 0.25)
    odds = [bald, 0.72 - bald, 0.18, 0.1] if male else [0.01, 0.27, 0.32, 0.4]
    return _pick(rng, HAIR_LENGTHS, odds)
