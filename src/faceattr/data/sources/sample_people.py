"""People for the sample faces: random features of a person and of each picture. `sample_portraits` draws them.

Gender and age change only the probabilities of the features. Every feature overlaps between the classes, so no single
feature decides the class. A picture depends on the seed, its identity and its number only, not on the number of pictures.
"""

from collections.abc import Iterator
from functools import lru_cache
from itertools import count
from types import SimpleNamespace

import numpy as np

GENDERS = ["female", "male"]
AGES = {"young": (18, 30), "middle": (30, 50), "old": (50, 86)}  # years: first, and first of the next class
SKIN_TONES = ["light", "medium", "dark"]

# fmt: off
CHOICES: dict[str, dict[str, tuple[float, float]]] = {  # the probability of each option for women and for men
    "hair_length": {"none": (0.01, 0.13), "short": (0.22, 0.64), "medium": (0.34, 0.15), "long": (0.43, 0.08)},
    "beard": {"none": (0.99, 0.42), "stubble": (0.01, 0.30), "full": (0.0, 0.28)},
    "glasses": {"none": (0.74, 0.74), "thin": (0.13, 0.13), "bold": (0.13, 0.13)},
}
TRAITS = {  # mean for women, for men; added in old age; spread. At least 0; sizes are near 1
    "length": (0.98, 1.03, 0.00, 0.05), "jaw": (0.85, 1.13, 0.00, 0.08), "build": (0.86, 1.18, 0.00, 0.10),
    "brow": (0.74, 1.43, -0.12, 0.22), "brow_height": (1.09, 0.89, 0.00, 0.08), "eye": (1.12, 1.00, -0.14, 0.07),
    "nose": (0.93, 1.10, 0.08, 0.10), "lips": (1.18, 0.84, -0.20, 0.16), "lipstick": (0.30, -0.40, 0.00, 0.35),
    "lash": (0.80, 0.12, 0.00, 0.20), "curl": (0.25, 0.25, 0.00, 0.30), "fringe": (0.42, 0.25, 0.00, 0.25),
    "receding": (-0.10, 0.05, 0.35, 0.15), "wrinkles": (-0.25, -0.25, 1.50, 0.10), "grey": (-1.00, -0.80, 2.60, 0.25),
}
PICTURE = {  # of a picture: mean, spread; angles in radians, blur in 1/128 of the width, noise in grey levels
    "yaw": (0.0, 0.17), "pitch": (0.0, 0.09), "tilt": (0.0, 0.10), "right": (0.0, 0.19), "down": (0.0, 0.15),
    "zoom": (1.0, 0.10), "light": (0.0, 0.5), "exposure": (1.02, 0.13), "warmth": (0.0, 0.06),
    "smile": (0.35, 0.4), "blur": (0.22, 0.42), "noise": (4.4, 3.0),
}
# fmt: on
SKIN = np.array([[244, 208, 184], [228, 182, 148], [196, 144, 104], [146, 98, 68], [94, 62, 46]])
HAIR = np.array([[32, 26, 24], [62, 42, 30], [104, 68, 42], [150, 78, 42], [176, 132, 78], [214, 178, 118]])
IRIS = np.array([[58, 38, 26], [92, 62, 36], [88, 98, 58], [74, 108, 132]])
GREY, RED = np.array([[194] * 3, [172, 44, 62]])


def imagine(identity: int, number: int, seed: int) -> SimpleNamespace:
    """The features of picture `number` (from 0) of an identity: those of the person and those of the picture."""
    rng = np.random.default_rng((seed, identity, number + 1))
    background = rng.uniform(30, 230) + rng.normal(0, 18, 3) + rng.normal(0, 20, (3, 3, 1))
    scene = {"number": number, "background": background, "clothes": rng.uniform(20, 225) + rng.normal(0, 40, 3)}
    return SimpleNamespace(**_person(identity, seed), **_vary(PICTURE, rng), **scene, rng=rng)  # rng: hair and noise


def imagine_all(seed: int) -> Iterator[SimpleNamespace]:
    """All pictures, without end: 3 to 6 of each identity, one identity after another."""
    for identity in count():
        for number in range(_person(identity, seed)["pictures"]):
            yield imagine(identity, number, seed)


@lru_cache(maxsize=16)  # the pictures of an identity are drawn one after another
def _person(identity: int, seed: int) -> dict:
    """The features of a person. Six identities in a row have each combination of gender and age class once."""
    rng = np.random.default_rng((seed, identity))
    male, age_class = identity % 2, list(AGES)[identity // 2 % 3]
    age = int(rng.integers(*AGES[age_class]))
    means = {name: (row[male] + row[2] * (age - 18) / 67, row[3]) for name, row in TRAITS.items()}
    person: dict = {name: max(value, 0.0) for name, value in _vary(means, rng).items()}
    person |= {name: str(rng.choice(list(odds), p=[p[male] for p in odds.values()])) for name, odds in CHOICES.items()}
    tone, pictures = rng.random(), int(rng.integers(3, 7))
    skin, hair = blend(SKIN, tone) * rng.normal(1, 0.025, 3), blend(HAIR, rng.random() ** (1 + 4 * tone))
    person |= {"skin": skin, "hair": blend([hair, GREY], person["grey"]), "pictures": pictures, "age": age}
    person |= {"brows": blend([hair * 0.85, GREY], 0.6 * person["grey"]), "skin_tone": SKIN_TONES[int(tone * 3)]}
    person["lip_colour"] = blend([skin * [0.86, 0.62, 0.62], RED], 0.7 * person["lipstick"])
    person["iris"] = blend(IRIS, rng.random() ** (1 + 4 * tone))
    return person | {"group": str(identity), "gender": GENDERS[male], "age_class": age_class}


def _vary(table: dict[str, tuple], rng: np.random.Generator) -> dict[str, float]:
    """A value for each (mean, spread): normal, at most 2.2 spreads from the mean."""
    mean, spread = np.array(list(table.values())).T
    return dict(zip(table, (mean + spread * rng.standard_normal(len(mean)).clip(-2.2, 2.2)).tolist(), strict=True))


def blend(palette: list | np.ndarray, position: float) -> np.ndarray:
    """The colour at `position` (0 to 1) of a palette, interpolated."""
    channels = np.transpose(palette)
    return np.array([np.interp(position, np.linspace(0, 1, len(channel)), channel) for channel in channels])
