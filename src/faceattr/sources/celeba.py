"""CelebA: any of its attributes as the label, the official partition as split, the identity as group. Reads the
official text files and Kaggle's CSV variant of them, flat in root, in the archives' folders (Anno, Eval, Img) or in
torchvision's (celeba).
"""

import logging
from pathlib import Path

import pandas as pd

from faceattr.errors import FaceattrError
from faceattr.sources.layout import SPLITS, existing_root, file_names

log = logging.getLogger(__name__)

FOLDERS = ("", "celeba", "Anno", "Eval", "Img")
LAYOUT = (
    "img_align_celeba/*.jpg, list_attr_celeba.txt, list_eval_partition.txt and, for identities, identity_CelebA.txt"
)
SITE = "https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html"


def load(
    root: str | Path, *, attribute: str = "Male", allow_missing: bool = False, download: bool = False
) -> pd.DataFrame:
    """A row per line of the attribute file; the other attributes are kept as bool columns.

    attribute: Male gives the classes female, male; any other, e.g. Smiling, not_smiling and smiling.
    allow_missing: go on with the images that are there; without it a partial set is an error.
    download: through torchvision, into root/celeba, unless the set is there already.

    Raises FaceattrError: root or a file missing, an unknown attribute, missing images, a download that failed.
    """
    if download and root and not _complete(Path(root)):
        _download(Path(root))
    root = existing_root(root, LAYOUT)
    source = _find(root, "list_attr_celeba.txt", "list_attr_celeba.csv")
    if source is None:
        raise FaceattrError(f"data.root={root} has no list_attr_celeba.txt (or .csv). Expected there: {LAYOUT}.")
    frame = _read(source, attributes=True)
    if attribute not in frame:
        raise FaceattrError(
            f"data.attribute={attribute} is not in {source}. Its attributes: {', '.join(map(str, frame))}."
        )
    folder, frame = _present(root, source, frame, allow_missing)

    names = ["female", "male"] if attribute == "Male" else [f"not_{attribute.lower()}", attribute.lower()]
    table = pd.DataFrame({"path": f"{folder.relative_to(root).as_posix()}/" + frame.index})
    table["label"] = frame[attribute].map({-1: names[0], 0: names[0], 1: names[1]}).to_numpy()
    partition = _find(root, "list_eval_partition.txt", "list_eval_partition.csv")
    if partition is None:
        log.info("%s has no list_eval_partition.txt: the official split is not known", root)
    else:
        table["split"] = _column(partition, frame.index).map(dict(enumerate(SPLITS))).to_numpy()
    identity = _find(root, "identity_CelebA.txt", "identity_CelebA.csv")
    if identity is not None:
        table["group"] = _column(identity, frame.index).astype("Int64").astype("string").astype(object).to_numpy()
    table = table.join((frame.drop(columns=attribute) > 0).reset_index(drop=True))
    table.attrs["classes"] = names
    table.attrs["ordinal"] = False
    return table


def _find(root: Path, *names: str) -> Path | None:
    places = (root / folder / name for folder in FOLDERS for name in names)
    return next((place for place in places if place.exists()), None)


def _image_folder(root: Path) -> Path | None:
    return _find(root, "img_align_celeba/img_align_celeba", "img_align_celeba")  # Kaggle's archive has it twice


def _complete(root: Path) -> bool:
    return bool(_find(root, "list_attr_celeba.txt", "list_attr_celeba.csv") and _image_folder(root))


def _read(path: Path, attributes: bool = False) -> pd.DataFrame:
    """Columns of numbers, indexed by the image's name. The official attribute file has a line with the count, then the
    attributes' names without one for the image; the other official files have no header."""
    count = None
    try:
        if path.suffix == ".csv":
            frame = pd.read_csv(path, index_col=0, skipinitialspace=True)
        elif attributes:
            frame = pd.read_csv(path, sep=r"\s+", skiprows=1)
            with path.open() as lines:
                count = int(lines.readline())
        else:
            frame = pd.read_csv(path, sep=r"\s+", header=None, index_col=0)
        frame = frame.apply(pd.to_numeric)
    except ValueError as error:  # the parser's errors, no number, no text
        raise FaceattrError(f"{path} is not in CelebA's format: {error}") from error
    if count is not None and count != len(frame):
        log.warning("%s announces %d rows and has %d: is it cut off?", path, count, len(frame))
    return frame


def _column(path: Path, images: pd.Index) -> pd.Series:
    column = _read(path).iloc[:, 0]
    return column[~column.index.duplicated()].reindex(images)


def _present(root: Path, source: Path, frame: pd.DataFrame, allow_missing: bool) -> tuple[Path, pd.DataFrame]:
    """The folder of the images, and the rows to use: all, or with `allow_missing` those whose image is there."""
    folder = _image_folder(root)
    if folder is None:
        archive = _find(root, "img_align_celeba.zip")
        what = f"unpack {archive}" if archive else f"expected there: {LAYOUT}"
        raise FaceattrError(f"data.root={root} has no folder img_align_celeba: {what}.")
    there = frame.index.isin(list(file_names(folder)))
    missing = int((~there).sum())
    if missing and (not allow_missing or not there.any()):
        raise FaceattrError(
            f"{missing:,} of the {len(frame):,} images of {source} are missing in {folder}, "
            f"e.g. {frame.index[~there][0]}.\n"
            "data.allow_missing=true goes on with those that are there."
        )
    if missing:
        log.warning("data.allow_missing: %d of %d images are not in %s: left out", missing, len(frame), folder)
    return folder, frame[there]


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
