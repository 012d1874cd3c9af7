"""Sample faces, drawn by code: data to try everything on, with no download and nobody's likeness.

`load` draws them once and finds them again later. `write` puts the same faces into the true on-disk layouts of the
other sources, at any size, for tests and benchmarks: `python -m faceattr.sources.sample layout=celeba n=20000 out=DIR`.
"""

import logging
import os
import shutil
import sys
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pandas as pd
from omegaconf import MISSING, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from tqdm import tqdm

from faceattr.errors import FaceattrError
from faceattr.sources.portraits.drawing import draw_to
from faceattr.sources.portraits.people import AGES, GENDERS, images_of, invent, pose

log = logging.getLogger(__name__)

VERSION = 1  # of the drawing code: raise it whenever a picture changes, and old folders are not used again
ATTRIBUTES = {"gender": GENDERS, "age": list(AGES)}
POOL_FROM = 600  # pictures; fewer are drawn before a pool has started


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
            faces = _faces(n, sample_seed)
            faces.insert(0, "path", [f"{key}/images/{i:06d}.jpg" for i in range(1, n + 1)])
            (draft / "images").mkdir()
            _draw_all(faces, [draft / "images" / Path(p).name for p in faces["path"]], (image_size,) * 2, sample_seed)
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
        faces = _faces(n, sample_seed)
        faces["split"] = _split(faces)
        files = LAYOUTS[layout](faces, draft)
        for folder in {file.parent for file in files}:
            folder.mkdir(parents=True, exist_ok=True)
        _draw_all(faces, files, (178, 218) if layout == "celeba" else (image_size,) * 2, sample_seed)
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
    _lines(root / "identity_CelebA.txt", [f"{name} {g}" for name, g in zip(names, faces["group"], strict=True)])
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


def _faces(n: int, seed: int) -> pd.DataFrame:
    """A row per picture: whose it is (`group`, `number`) and what it shows."""
    rows: list[dict[str, Any]] = []
    for identity in count():
        if len(rows) >= n:
            return pd.DataFrame(rows[:n])
        one = invent(identity, seed)
        for number in range(images_of(identity, seed)):
            taken = pose(one, identity, number, seed)
            rows.append(
                {
                    "group": str(identity),
                    "number": number,
                    "gender": one.gender,
                    "age": one.age,
                    "age_class": one.age_class,
                    "skin_tone": one.skin_tone,
                    "hair_length": one.hair_length,
                    "grey": round(one.grey, 3),
                    "beard": one.beard,
                    "earrings": one.earrings,
                    "glasses": one.glasses if taken.glasses else "none",
                    "smile": round(taken.smile, 3),
                    "yaw": round(taken.yaw, 3),
                    "blur": round(taken.blur, 3),
                    "noise": round(taken.noise, 3),
                }
            )
    raise AssertionError("unreachable")


def _split(faces: pd.DataFrame) -> pd.Series:
    """About 70 / 15 / 15 by identity; runs of six identities, which hold every class, stay together."""
    run = faces["group"].astype(int) // 6 % 7
    return run.map(lambda r: {1: "val", 2: "test"}.get(r, "train"))


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


def _draw_all(faces: pd.DataFrame, files: list[Path], size: tuple[int, int], seed: int) -> None:
    whose = zip(faces["group"].astype(int), faces["number"], files, strict=True)
    jobs = [(int(identity), int(number), seed, *size, str(file)) for identity, number, file in whose]
    with tqdm(total=len(jobs), desc="drawing sample faces", unit="image", disable=len(jobs) <= 500) as bar:
        workers = min(os.cpu_count() or 1, 8)
        if len(jobs) < POOL_FROM or workers == 1:
            for job in jobs:
                draw_to(*job)
                bar.update()
            return
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            for _ in pool.map(draw_to, *zip(*jobs, strict=True), chunksize=32):
                bar.update()


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
        out = write(**OmegaConf.to_container(request))
    except FaceattrError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{request.n} generated faces (drawn by code) in the layout of data={request.layout}: {out}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
