"""How messages list things and count them; the sentence that stands wherever answers are shown."""

import difflib
import os
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Literal

PERCEIVED = (
    "Labels such as gender are what annotators perceived in a picture, in two classes; no decision about a person should depend "
    "on them."
)

MOST_LISTED = 10
"""Where lists of classes, columns and files stop."""
MOST_READ = 2000
"""Files of a folder among which a near name is looked for."""


def listed(items: Iterable[object], most: int = MOST_LISTED, *, separator: str = ", ") -> str:
    """The first `most` items, and … if there are others.

    >>> listed("abc", 2)
    'a, b, …'
    """
    first = [str(item) for item in islice(items, most + 1)]
    return separator.join([*first[:most], *["…"][: len(first) > most]])


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """A number with its noun, in the plural unless it is one.

    >>> counted(1, "image"), counted(2000, "image"), counted(2, "identity", "identities")
    ('1 image', '2,000 images', '2 identities')
    """
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"


def counted_of(
    number: int, total: int, noun: str, verb: Literal["are", "have", "do"], plural: str | None = None
) -> str:
    """A part of a total, with the verb for the part.

    >>> counted_of(1, 1, "image", "are"), counted_of(1, 20, "image", "have"), counted_of(2, 20, "image", "do")
    ('1 of 1 image is', '1 of 20 images has', '2 of 20 images do')
    """
    singular = {"are": "is", "have": "has", "do": "does"}[verb]
    return f"{number:,} of {counted(total, noun, plural)} {singular if number == 1 else verb}"


def did_you_mean(name: str, choices: Iterable[str], prefix: str = "") -> str:
    """` Did you mean …?` with the choice, after `prefix`, that begins with `name` or is spelled most like it, whatever its case; ""
    where none is near.

    >>> did_you_mean("smilng", ["Male", "Smiling"])
    ' Did you mean Smiling?'
    >>> did_you_mean("val_acc", ["val_auroc", "val_accuracy"])
    ' Did you mean val_accuracy?'
    """
    spelled = {choice.casefold(): choice for choice in choices}
    begin_alike = [choice for choice in spelled if len(name) > 2 and choice.startswith(name.casefold())]
    near = begin_alike[:1] or difflib.get_close_matches(name.casefold(), spelled, n=1)
    return f" Did you mean {prefix}{spelled[near[0]]}?" if near else ""


def instead_of(path: Path) -> str:
    """What there is instead of a file or folder that does not exist: the name that is nearest to its own; else the first names
    beside it. Where a folder of its path does not exist, the same for that folder.

    >>> instead_of(Path("/nowhere/photos"))[:24]
    ' /nowhere does not exist'
    """
    missing = path.absolute()
    while missing != missing.parent and not missing.parent.exists():
        missing = missing.parent
    start = "" if missing == path.absolute() else f" {missing} does not exist."
    try:
        with os.scandir(missing.parent) as entries:
            names = sorted(entry.name for entry in islice(entries, MOST_READ) if not entry.name.startswith("."))
    except OSError:
        names = []
    near = did_you_mean(missing.name, names, f"{missing.parent}/".replace("//", "/"))
    return start + (near or f" {missing.parent} holds {listed(names) or 'nothing'}.")


def is_class_name(name: str) -> bool:
    """Whether a text can be shown as the name of a class: a line that can be printed, of at most 200 characters."""
    return 0 < len(name) <= 200 and name.isprintable()


def shortened(text: str) -> str:
    """A text for a message: of a long one, its beginning and its length."""
    return text if len(text) <= 200 else f"{text[:100]}… ({len(text):,} characters)"
