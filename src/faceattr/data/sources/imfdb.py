"""Source `imfdb`: classes of IMFDB, in the layout of the contest or in the folders of the data set itself.

The contest (age classes): `train.csv` (ID, Class) and the images in `Train/`. The data set: `<actor>/<movie>/images/*.jpg`, and in
each movie's folder a text file with a line for each image, whose words say gender, age and more.
"""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import pandas as pd

from faceattr.config.key_annotation import Key
from faceattr.data.image_files import is_image, is_leftover
from faceattr.data.sources import csv
from faceattr.data.sources.conventions import existing_root, file_names
from faceattr.data.sources.text_table import decoded
from faceattr.errors import FaceattrError
from faceattr.message_text import counted

log = logging.getLogger(__name__)

CLASSES = ["young", "middle", "old"]
LAYOUT = (
    "train.csv and Train/ (the contest), or <actor>/<movie>/images/ and a .txt in each movie's folder (the data set)"
)
WORDS = {"gender": ["female", "male"], "age": ["child", *CLASSES]}
"""What the data set says of an image, in capitals."""


def load(
    root: str | Path,
    *,
    file: Annotated[str, Key("The contest's table below data.root, with the columns ID and Class.")] = "train.csv",
    image_dir: Annotated[str | None, Key("The contest's images, a folder below data.root.")] = "Train",
    attribute: Annotated[
        str, Key("The label; the contest has age only, the data set both.", choices=("age", "gender"))
    ] = "age",
) -> pd.DataFrame:
    """A row per image, no split. The contest: YOUNG, MIDDLE and OLD become ordered classes, in lower case. The data set: `group` is
    the actor; `movie` and the attribute that is not the label are further columns; child is a class where it occurs.

    Raises FaceattrError: root, file, image_dir or a column missing; gender of the contest's images.
    """
    root = existing_root(root, LAYOUT)
    notes = [] if (root / file).is_file() else sorted(root.glob("*/*/*.txt"))
    notes = [note for note in notes if not any(map(is_leftover, note.relative_to(root).parts))]
    if notes:
        return _data_set(root, notes, attribute)
    if attribute != "age":
        raise FaceattrError(f"data.attribute={attribute}: the contest's {file} has age classes only.")
    table = csv.load(root, file=file, image_column="ID", label_column="Class", classes=CLASSES, image_dir=image_dir)
    table["label"] = table["label"].str.lower()
    table.attrs["ordinal"] = True
    return table


def _data_set(root: Path, notes: list[Path], attribute: str) -> pd.DataFrame:
    rows = [row for note in notes for row in _rows(root, note)]
    if not rows:
        raise FaceattrError(
            f"data.root={root}: no line of {counted(len(notes), 'text file')}, such as {notes[0]}, names an image."
        )
    table = pd.DataFrame(rows).drop_duplicates(ignore_index=True)
    table.insert(1, "label", table.pop(attribute))
    present = set(table["label"])
    classes = [name for name in WORDS[attribute] if name in present or name in CLASSES or attribute == "gender"]
    numbers = (len(table), "image"), (table["group"].nunique(), "actor"), (len(notes), "text file")
    log.info("%s: %s of %s, from %s", root, *(counted(number, noun) for number, noun in numbers))
    table.attrs.update(classes=classes, ordinal=attribute == "age")
    return table


def _rows(root: Path, note: Path) -> Iterator[dict[str, str | None]]:
    """The images that a movie's text file names; None where it does not say an attribute. The columns differ between movies, so
    words in capitals are looked for, from the end of the line: names come before them."""
    folder = note.parent / "images"
    images = file_names(folder)
    for line in decoded(note).splitlines():
        words = line.split()
        named = [word for word in words if is_image(word)]
        if not named:
            continue
        image = next((word for word in named if word in images), named[-1])
        last = {
            name: next((w for w in reversed(words) if w.lower() in WORDS[name] and w.isupper()), None) for name in WORDS
        }
        yield {
            "path": (folder / image).relative_to(root).as_posix(),
            "group": note.relative_to(root).parts[0],
            "movie": note.parent.name,
            **{name: word and word.lower() for name, word in last.items()},
        }
