"""Source `filenames`: labels in the names of image files, such as UTKFace's `25_0_1_20170116.jpg` or LFW's `Ann_Lee_0001.jpg`."""

import logging
import re
from pathlib import Path
from typing import Annotated

import pandas as pd

from faceattr.config.key_annotation import Key
from faceattr.data.image_files import walk
from faceattr.data.sources import csv
from faceattr.data.sources.conventions import Attributes, existing_root
from faceattr.errors import FaceattrError
from faceattr.message_text import counted, counted_of

log = logging.getLogger(__name__)


def load(
    root: str | Path,
    *,
    pattern: Annotated[
        str,
        Key(
            "Regular expression with a named group for each column, searched in an image's path below data.root, such as "
            r"'(?P<age>\d+)_(?P<gender>[01])_'."
        ),
    ],
    label_column: Annotated[str, Key("The group that holds the label.")] = "label",
    attributes: Attributes = None,
    label_map: Annotated[
        dict | None, Key("value: class, such as {0: male, 1: female}; null: the values are the classes.")
    ] = None,
    bins: Annotated[
        list | None, Key("Right-open thresholds for numbers, such as [30,50] with data.classes=[young,middle,old].")
    ] = None,
    classes: list[str] | None = None,
    split_column: Annotated[str | None, Key("The group that holds the split; null: split by data.fractions.")] = None,
    group_column: Annotated[
        str | None, Key("The group that holds the person; one person's images stay in one split.")
    ] = None,
) -> pd.DataFrame:
    """A row per image below `root`; each named group of `pattern` is a column, read as in a CSV (`csv.load`).

    A group that matched nothing is an empty cell. An image whose path does not match has no label; `data.on_bad_label` says
    what happens to it.

    Raises FaceattrError: root missing or without images; a pattern that is no regular expression, has no named groups, or
    matches no image; a key that names another group.
    """
    root = existing_root(root, "image files with labels in their names")
    regex = _compiled(pattern)
    listing = walk(root)
    if left_out := listing.left_out():
        log.info("%s: left out: %s", root, left_out)
    path_matches = [regex.search(path) for path in listing.files]
    if not any(path_matches):
        example = f", such as {listing.files[0]}" if listing.files else ""
        raise FaceattrError(
            f"data.pattern={pattern} matches none of {counted(len(path_matches), 'image')} in {root}{example}."
        )
    cells = [match.groupdict("") if match else dict.fromkeys(regex.groupindex, "") for match in path_matches]
    index = pd.Index(range(1, len(cells) + 1), name="image")
    frame = pd.DataFrame(cells, index=index, dtype=object).assign(**{IMAGE: listing.files})
    frame.attrs["repeated"] = []
    if unmatched := len(path_matches) - sum(map(bool, path_matches)):
        example = next(path for path, match in zip(listing.files, path_matches, strict=True) if not match)
        log.warning(
            "%s not match data.pattern: no label. The first: %s",
            counted_of(unmatched, len(path_matches), "image", "do"),
            example,
        )
    columns = csv.Columns(IMAGE, label_column, split_column, group_column)
    return csv.to_table(
        frame, root, root, columns, attributes=attributes, label_map=label_map, bins=bins, classes=classes
    )


IMAGE = "image file"
"""The column of paths. No group of a regular expression can have this name, because of the blank."""


def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        regex = re.compile(pattern)
    except re.error as error:
        raise FaceattrError(f"data.pattern={pattern} is no regular expression: {error}.") from error
    if not regex.groupindex:
        raise FaceattrError(
            f"data.pattern={pattern} names no group. A group is (?P<label>…), such as (?P<label>[01])_."
        )
    return regex
