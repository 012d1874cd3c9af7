"""CelebA: any of its attributes as the label, or several at once, the official partition as split, the identity as group. Reads the
official text files and Kaggle's CSV variant of them, in root or a folder of the archives' or torchvision's there."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import pandas as pd

from faceattr.config.key import Key
from faceattr.data.sources.layout import SPLITS, Attributes, existing_root, file_names, listed_attributes
from faceattr.errors import FaceattrError

log = logging.getLogger(__name__)

FOLDERS = ("", "celeba", "Anno", "Eval", "Img")
LAYOUT = (
    "img_align_celeba/*.jpg, list_attr_celeba.txt, list_eval_partition.txt and, for identities, identity_CelebA.txt"
)
SITE = "https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html"


def load(
    root: str | Path,
    *,
    attribute: Annotated[
        str,
        Key("The attribute that is the label: Male gives female and male; another, Smiling, not_smiling and smiling."),
    ] = "Male",
    attributes: Attributes = None,
    allow_missing: Annotated[bool, Key("Go on without the images that are missing.")] = False,
    download: Annotated[bool, Key("Download CelebA through torchvision, into data.root/celeba.")] = False,
    first_per_class: Annotated[
        int | None, Key("Only the first rows of each class, without the official partition (study S2).", minimum=1)
    ] = None,
    last_per_class: Annotated[
        int | None, Key("With first_per_class: the last rows of each class are the test.", minimum=1)
    ] = None,
) -> pd.DataFrame:
    """A row per line of the attribute file; the other attributes are bool columns. 0 in the file is not known.

    Raises FaceattrError: root or a file missing, an unknown attribute, missing images, a download that failed.
    """
    if download and root and not (_find(Path(root), "list_attr_celeba") and _image_folder(Path(root))):
        _download(Path(root))
    root = existing_root(root, LAYOUT)
    source, folder = _find(root, "list_attr_celeba"), _image_folder(root)
    if source is None or folder is None:
        lacking = "no folder img_align_celeba" if source else "no list_attr_celeba.txt (or .csv)"
        raise FaceattrError(f"data.root={root} has {lacking}. Expected there: {LAYOUT}.")
    frame = _read(source)
    wanted = listed_attributes(attributes, list(map(str, frame)), str(source))
    if not wanted and attribute not in frame:
        raise FaceattrError(
            f"data.attribute={attribute} is not in {source}. Its attributes: {', '.join(map(str, frame))}."
        )
    if last_per_class and not first_per_class:
        raise FaceattrError(f"data.last_per_class={last_per_class} needs data.first_per_class too.")
    if wanted and first_per_class:
        raise FaceattrError("data.first_per_class draws classes; data.attributes has none. Use data.max_images.")
    there = frame.index.isin(list(file_names(folder)))
    if not there.all():
        missing = f"{(~there).sum():,} of the {len(frame):,} images of {source} are missing in {folder}"
        if not allow_missing or not there.any():
            example = f"e.g. {frame.index[~there][0]}"
            raise FaceattrError(f"{missing}, {example}.\ndata.allow_missing=true goes on with those that are there.")
        log.warning("data.allow_missing: %s: left out", missing)
    frame = frame[there]

    table = pd.DataFrame({"path": f"{folder.relative_to(root).as_posix()}/" + frame.index}, index=frame.index)
    if wanted:
        names = wanted
        table = table.join((frame[wanted] > 0).astype(float).where(frame[wanted] != 0))
    else:
        names = ["female", "male"] if attribute == "Male" else [f"not_{attribute.lower()}", attribute.lower()]
        table["label"] = (frame[attribute] > 0).map({False: names[0], True: names[1]})
    partition, identity = _find(root, "list_eval_partition"), _find(root, "identity_CelebA")
    if first_per_class:
        table["split"] = _first_and_last(table["label"], first_per_class, last_per_class or 0)
    elif partition:
        table["split"] = _read(partition).iloc[:, 0].map(dict(enumerate(SPLITS)))
    if identity:
        table["group"] = _read(identity).iloc[:, 0].astype(str)
    table = table.join(frame.drop(columns=wanted or attribute) > 0)
    if first_per_class:
        table = table[table["split"] != "left out"]
    table = table.reset_index(drop=True)
    table.attrs.update(classes=names, **({"multilabel": True} if wanted else {"ordinal": False}))
    return table


def _first_and_last(labels: pd.Series, first: int, last: int) -> pd.Series:
    """None for the first rows of each class, test for the last ones, and `left out` for those between."""
    by_class = labels.groupby(labels)
    fewest = int(by_class.size().min())
    if first + last > fewest:
        raise FaceattrError(
            f"data.first_per_class={first} and data.last_per_class={last} ask for {first + last:,} rows of each class; "
            f"one has {fewest:,}."
        )
    split = pd.Series("left out", labels.index, dtype=object)
    split[by_class.cumcount() < first] = None
    split[by_class.cumcount(ascending=False) < last] = "test"
    return split


def _find(root: Path, name: str, suffixes: Sequence[str] = (".txt", ".csv")) -> Path | None:
    places = (root / folder / f"{name}{suffix}" for folder in FOLDERS for suffix in suffixes)
    return next((place for place in places if place.exists()), None)


def _image_folder(root: Path) -> Path | None:
    return _find(root, "img_align_celeba", ("/img_align_celeba", ""))  # Kaggle's archive has it twice


def _read(path: Path) -> pd.DataFrame:
    """Columns of numbers, indexed by the image's name. The official attribute file has a line with the count, then the
    attributes' names without one for the image; the other official files have no header."""
    try:
        if path.suffix == ".csv":
            frame = pd.read_csv(path, index_col=0)
        elif path.stem == "list_attr_celeba":
            frame = pd.read_csv(path, sep=r"\s+", skiprows=1)
        else:
            frame = pd.read_csv(path, sep=r"\s+", header=None, index_col=0)
        return frame.apply(pd.to_numeric)
    except ValueError as error:  # the parser's errors, no number, no text
        raise FaceattrError(f"{path} is not in CelebA's format: {error}") from error


def _download(root: Path) -> None:
    from torchvision.datasets import CelebA  # slow, and rarely needed

    try:
        CelebA(root, split="all", download=True)
    except Exception as error:  # whatever the network, Google Drive's quota or a missing gdown raise
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise FaceattrError(
            f"data.download: torchvision could not fetch CelebA: {reason}\n"
            f"Get img_align_celeba.zip, list_attr_celeba.txt, list_eval_partition.txt and identity_CelebA.txt from\n"
            f"{SITE} into {root / 'celeba'} and unpack the zip there (it makes img_align_celeba/)."
        ) from error
