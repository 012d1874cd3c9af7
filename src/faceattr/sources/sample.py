"""Sample faces, drawn by code: data to try everything on, with no download and nobody's likeness.

`load` draws them once and finds them again later. `write` puts the same faces into the true on-disk layouts of the
other sources, at any size, for tests and benchmarks: `python -m faceattr.sources.sample layout=celeba n=20000 out=DIR`.
"""

import logging
import shutil
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from omegaconf import MISSING, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from faceattr.errors import FaceattrError
from faceattr.sources.portraits.album import draw_faces, list_faces
from faceattr.sources.portraits.people import AGES, GENDERS

log = logging.getLogger(__name__)

VERSION = 1  # of the drawing code: raise it whenever a picture changes, and old folders are not used again
ATTRIBUTES = {"gender": GENDERS, "age": list(AGES)}


def load(
    root: str,
    *,
    n: int = 2000,
    attribute: str = "gender",
    image_size: int = 128,
    sample_seed: int = 0,
    classes: list[str] | None = None,
) -> pd.DataFrame:
    """The table of `n` generated faces, `image_size` pixels square, drawn into a folder of `root` at first use.

    `attribute` is `gender` (female, male) or `age` (young < 30 <= middle < 50 <= old). Several pictures share a
    person, who is their `group`. The further columns say what was drawn, for slicing results.
    """
    if attribute not in ATTRIBUTES:
        raise FaceattrError(f"data.attribute={attribute!r} is not drawn; choose one of: {', '.join(ATTRIBUTES)}")
    _check_size(n, image_size, sample_seed)
    key = f"v{VERSION}_n{n}_size{image_size}_seed{sample_seed}"
    folder = Path(root) / key
    if not (folder / "faces.csv").is_file():
        log.info("data=sample: drawing %d GENERATED faces (drawn by code, no photographs) into %s", n, folder)
        with _complete(folder) as draft:
            faces = list_faces(n, sample_seed)
            faces.insert(0, "path", [f"{key}/images/{i:06d}.jpg" for i in range(1, n + 1)])
            (draft / "images").mkdir()
            draw_faces(faces, [draft / "images" / Path(p).name for p in faces["path"]], (image_size,) * 2, sample_seed)
            faces.to_csv(draft / "faces.csv", index=False)
    else:
        log.info("data=sample: %d GENERATED faces (drawn by code, no photographs) from %s", n, folder)
    table = pd.read_csv(folder / "faces.csv", dtype={"group": str}, keep_default_na=False)
    table.insert(1, "label", table["gender" if attribute == "gender" else "age_class"])
    table.attrs["classes"] = list(classes or ATTRIBUTES[attribute])
    table.attrs["ordinal"] = attribute == "age"
    return table


def write(layout: str, out: str | Path, n: int = 2000, image_size: int = 128, sample_seed: int = 0) -> Path:
    """Writes `n` generated faces in another source's on-disk layout into the new or empty folder `out`.

    `layout` is one of csv, folders, celeba (its pictures are 178 wide and 218 high, whatever `image_size`), imfdb.
    """
    if layout not in LAYOUTS:
        raise FaceattrError(f"layout={layout!r} is unknown; choose one of: {', '.join(LAYOUTS)}")
    _check_size(n, image_size, sample_seed)
    out = Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise FaceattrError(f"out={out} is not empty: give a new or an empty folder")
    with _complete(out) as draft:
        faces = list_faces(n, sample_seed)
        faces["split"] = _split(faces)
        files = LAYOUTS[layout](faces, draft)
        for folder in {file.parent for file in files}:
            folder.mkdir(parents=True, exist_ok=True)
        draw_faces(faces, files, (178, 218) if layout == "celeba" else (image_size,) * 2, sample_seed)
    return out


def _csv(faces: pd.DataFrame, root: Path) -> list[Path]:
    names = [f"{i:06d}.jpg" for i in range(1, len(faces) + 1)]
    gender = (faces["gender"] == "female").astype(int)
    pd.DataFrame({"Filename": names, "Gender": gender, "Age": faces["age"]}).to_csv(root / "results.csv", index=False)
    return [root / "images" / name for name in names]


def _folders(faces: pd.DataFrame, root: Path) -> list[Path]:
    split = faces["split"].map({"train": "Train", "val": "Validation", "test": "Test"})
    places = zip(split, faces["gender"].str.title(), range(1, len(faces) + 1), strict=True)
    return [root / part / gender / f"{i:06d}.jpg" for part, gender, i in places]


def _celeba(faces: pd.DataFrame, root: Path) -> list[Path]:
    names = [f"{i:06d}.jpg" for i in range(1, len(faces) + 1)]
    has = {
        "Bald": faces["hair_length"] == "none",
        "Blurry": faces["blur"] > 0.8,
        "Eyeglasses": faces["glasses"] != "none",
        "Goatee": faces["beard"] == "goatee",
        "Gray_Hair": faces["grey"] > 0.6,
        "Male": faces["gender"] == "male",
        "Mustache": faces["beard"] == "moustache",
        "No_Beard": faces["beard"] == "none",
        "Smiling": faces["smile"] > 0.35,
        "Wearing_Earrings": faces["earrings"],
        "Young": faces["age"] < 40,
    }
    signs = pd.DataFrame(has).map(lambda yes: " 1" if yes else "-1")
    lines = [f"{name} {' '.join(row)}" for name, row in zip(names, signs.to_numpy(), strict=True)]
    _lines(root / "list_attr_celeba.txt", [str(len(faces)), " ".join(has), *lines])
    part = faces["split"].map({"train": 0, "val": 1, "test": 2})
    _lines(root / "list_eval_partition.txt", [f"{name} {p}" for name, p in zip(names, part, strict=True)])
    _lines(
        root / "identity_CelebA.txt",
        [f"{name} {g}" for name, g in zip(names, faces["group"].astype(int) + 1, strict=True)],
    )
    return [root / "img_align_celeba" / name for name in names]


def _imfdb(faces: pd.DataFrame, root: Path) -> list[Path]:
    names = [f"{i:06d}.jpg" for i in range(1, len(faces) + 1)]
    pd.DataFrame({"ID": names, "Class": faces["age_class"].str.upper()}).to_csv(root / "train.csv", index=False)
    return [root / "Train" / name for name in names]


LAYOUTS: dict[str, Callable[[pd.DataFrame, Path], list[Path]]] = {
    "csv": _csv,
    "folders": _folders,
    "celeba": _celeba,
    "imfdb": _imfdb,
}


def _check_size(n: int, image_size: int, sample_seed: int) -> None:
    for name, value, least in (("n", n, 1), ("image_size", image_size, 16), ("sample_seed", sample_seed, 0)):
        if value < least:
            raise FaceattrError(f"{name}={value} is too small for the sample source: at least {least}")


def _lines(file: Path, lines: list[str]) -> None:
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _split(faces: pd.DataFrame) -> pd.Series:
    """About 70 / 15 / 15 by identity; two that follow each other, a woman and a man, stay together."""
    pair = faces["group"].astype(int) // 2 % 7
    return pair.map(lambda p: {1: "val", 2: "test"}.get(p, "train"))


@contextmanager
def _complete(folder: Path) -> Iterator[Path]:
    """A draft beside `folder` that becomes it, whole, at the end. Who finishes second keeps what the first made."""
    draft = folder.parent / f".{folder.name}.{uuid.uuid4().hex[:8]}"
    try:
        draft.mkdir(parents=True)
        yield draft
        try:
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()
            draft.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise
    except OSError as error:
        raise FaceattrError(f"the sample faces could not be written to {folder}: {error}") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


@dataclass
class Request:
    """What the command line takes."""

    layout: str = MISSING
    out: str = MISSING
    n: int = 2000
    image_size: int = 128
    sample_seed: int = 0


def main(arguments: list[str]) -> int:
    """`layout=… out=… [n=…] [image_size=…] [sample_seed=…]`: writes a layout; 1 and one line where it cannot."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        try:
            request = OmegaConf.merge(OmegaConf.structured(Request), OmegaConf.from_cli(arguments))
        except OmegaConfBaseException as error:
            keys = ", ".join(f"{key}=…" for key in Request.__dataclass_fields__)
            raise FaceattrError(f"{str(error).splitlines()[0]}; the arguments are: {keys}") from error
        missing = [f"{key}=…" for key in OmegaConf.missing_keys(request)]
        if missing:
            raise FaceattrError(f"{' and '.join(sorted(missing))} must be given; layouts: {', '.join(LAYOUTS)}")
        out = write(request.layout, request.out, request.n, request.image_size, request.sample_seed)
    except FaceattrError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{request.n} generated faces (drawn by code) in the layout of data={request.layout}: {out}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
