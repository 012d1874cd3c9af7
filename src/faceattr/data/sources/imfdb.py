"""Source `imfdb`: age classes of IMFDB in the layout of the contest, `train.csv` (ID, Class) and the images in `Train/`."""

from pathlib import Path
from typing import Annotated

import pandas as pd

from faceattr.config.key import Key
from faceattr.data.sources import csv

CLASSES = ["young", "middle", "old"]


def load(
    root: str | Path,
    *,
    file: Annotated[str, Key("The table below data.root, with the columns ID and Class.")] = "train.csv",
    image_dir: Annotated[str | None, Key("The images' folder below data.root.")] = "Train",
) -> pd.DataFrame:
    """A row per line of `root/file`; YOUNG, MIDDLE and OLD become ordered classes, in lower case. No split.

    Raises FaceattrError: root, file, image_dir or a column missing.
    """
    table = csv.load(root, file=file, image_column="ID", label_column="Class", classes=CLASSES, image_dir=image_dir)
    table["label"] = table["label"].str.lower()
    table.attrs["ordinal"] = True
    return table
