"""How messages list things and count them; the sentence that stands wherever answers are shown."""

from collections.abc import Iterable
from itertools import islice

PERCEIVED = (
    "Labels such as gender are what annotators perceived in a picture, in two classes; no decision about a person should depend "
    "on them."
)


def listed(items: Iterable[object], most: int = 10, *, separator: str = ", ") -> str:
    """The first `most` items, and … if there are others.

    >>> listed("abc", 2)
    'a, b, …'
    """
    first = [str(item) for item in islice(items, most + 1)]
    return separator.join([*first[:most], *["…"][: len(first) > most]])


def counted(number: int, noun: str) -> str:
    """A number with its noun, in the plural unless it is one.

    >>> counted(1, "image"), counted(2000, "image")
    ('1 image', '2,000 images')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
