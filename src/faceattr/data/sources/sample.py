"""Source `sample`: faces drawn by code, for first trials and tests. They need no download and show no real person.

`load` draws them at the first use. `write` writes the same faces in the on-disk layout of another source, for tests and
benchmarks: `python -m faceattr.data.sources.sample layout=celeba n=20000 out=DIR`.
"""

import logging
import sys
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Annotated

import pandas as pd
from filelock import FileLock
from omegaconf import MISSING, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from faceattr.config.key_annotation import Key
from faceattr.config.schema import LARGEST_SEED
from faceattr.data.parallel import run_tasks
from faceattr.data.sources.conventions import Attributes, listed_attributes
from faceattr.data.sources.sample_people import AGES, GENDERS, imagine, imagine_all
from faceattr.data.sources.sample_portraits import draw
from faceattr.errors import FaceattrError
from faceattr.files import folder_atomically
from faceattr.progress import Progress

log = logging.getLogger(__name__)

VERSION = 6  # of the drawing code: increase it when a picture changes, so that old folders are not used again
CLASSES = {"gender": GENDERS, "age": list(AGES)}
LAYOUTS = ["csv", "folders", "celeba", "imfdb"]
SHOWN = ["group", "number", "gender", "age", "age_class", "skin_tone", "hair_length", "beard", "glasses", "smile"]
POOL_FROM = 400  # pictures; to draw fewer takes less time than to start processes
BLOCK = 32  # pictures of a task


def load(
    root: str,
    *,
    n: Annotated[int, Key("Number of images.", minimum=1, maximum=10_000_000)] = 2000,
    attribute: Annotated[
        str,
        Key("The label: female, male; or young < 30 <= middle < 50 <= old.", choices=tuple(CLASSES)),
    ] = "gender",
    attributes: Attributes = None,
    image_size: Annotated[int, Key("Pixels, square.", minimum=16, maximum=4096)] = 128,
    sample_seed: Annotated[
        int, Key("Which faces are drawn; `seed` decides the split.", minimum=0, maximum=LARGEST_SEED)
    ] = 0,
    classes: list[str] | None = None,
) -> pd.DataFrame:
    """The table of `n` generated faces, drawn into a folder of `root` at the first use.

    `attribute` is the label: `gender` (female, male) or `age` (young < 30 <= middle < 50 <= old). `group` is the person; there
    are several pictures of each. `attributes` gives several attributes (multilabel) of those in `attributes_of`, such as
    [Male, Smiling], or all; the names are CelebA's. Further columns describe what was drawn, for slices.
    """
    key = f"v{VERSION}_n{n}_size{image_size}_seed{sample_seed}"
    folder = Path(root) / key
    drawn = (folder / "faces.csv").is_file()
    log.info("data=sample: %d GENERATED faces (by code, no photographs) %s %s", n, "from" if drawn else "into", folder)
    if not drawn:
        _generate("sample", folder, n, image_size, sample_seed)
    table = pd.read_csv(folder / "faces.csv", dtype={"group": str}, keep_default_na=False)
    table.insert(0, "path", f"{key}/" + table.pop("path"))
    available = attributes_of(table)
    if names := listed_attributes(attributes, available.columns.tolist(), "the sample faces"):
        table = table.join(available[names].astype(float))
        table.attrs.update(classes=names, multilabel=True)
        return table
    table.insert(1, "label", table["gender" if attribute == "gender" else "age_class"])
    table.attrs.update(classes=list(classes or CLASSES[attribute]), ordinal=attribute == "age")
    return table


def attributes_of(faces: pd.DataFrame) -> pd.DataFrame:
    """Some of CelebA's attributes (columns, bool) of each drawn face (rows)."""
    attributes = {
        "Eyeglasses": faces["glasses"] != "none",
        "Male": faces["gender"] == "male",
        "No_Beard": faces["beard"] == "none",
        "Smiling": faces["smile"] > 0.35,
        "Young": faces["age"] < 40,
    }
    return pd.DataFrame(attributes)


def write(layout: str, out: str | Path, n: int = 2000, image_size: int = 128, sample_seed: int = 0) -> Path:
    """Writes `n` generated faces in the on-disk layout of another source into the new or empty folder `out`.

    `layout` is csv, folders, celeba or imfdb. celeba's pictures are always 178 pixels wide and 218 high.
    """
    if layout not in LAYOUTS:
        raise FaceattrError(f"layout={layout!r} is unknown; choose one of: {', '.join(LAYOUTS)}")
    out = Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise FaceattrError(f"out={out} is not empty: give a new or an empty folder")
    _generate(layout, out, n, image_size, sample_seed)
    return out


def _generate(layout: str, folder: Path, n: int, image_size: int, seed: int) -> None:
    """Draws into a temporary folder, which is renamed to `folder` when complete. If another process was faster, its folder
    is kept. What a process left that was killed is removed."""
    for name, value, minimum in (("n", n, 1), ("image_size", image_size, 16), ("sample_seed", seed, 0)):
        if value < minimum:
            raise FaceattrError(f"{name}={value} is too small for the sample source: at least {minimum}")
    faces = pd.DataFrame([{name: getattr(face, name) for name in SHOWN} for face in islice(imagine_all(seed), n)])
    lock = folder.parent / f".{folder.name}.lock"
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(lock):  # of two processes, one draws and one waits
            try:
                if not folder.is_dir() or not any(folder.iterdir()):
                    with folder_atomically(folder) as draft:
                        files = [draft / path for path in _write_index(layout, faces.round(3), draft)]
                        draw_faces(faces, files, (178, 218) if layout == "celeba" else (image_size, image_size), seed)
            finally:
                with suppress(OSError):
                    lock.unlink()
    except OSError as error:
        raise FaceattrError(f"the sample faces could not be written to {folder}: {error.strerror or error}") from error


def draw_faces(faces: pd.DataFrame, files: list[Path], size: tuple[int, int], seed: int) -> None:
    """Draws each row of `faces` into its file; `size` is (width, height). Many faces are drawn in several processes."""
    for folder in {file.parent for file in files}:
        folder.mkdir(parents=True, exist_ok=True)
    jobs = [*zip(faces["group"].astype(int), faces["number"], files, strict=True)]
    tasks = (partial(_draw_block, jobs[start : start + BLOCK], size, seed) for start in range(0, len(jobs), BLOCK))
    with Progress("Drawing sample faces", len(jobs)) as progress:
        for drawn in run_tasks(tasks, processes=len(jobs) >= POOL_FROM):
            progress.update(drawn)


def _draw_block(jobs: list[tuple[int, int, Path]], size: tuple[int, int], seed: int) -> int:
    for identity, number, file in jobs:
        draw(imagine(identity, number, seed), *size).save(file, quality=92)
    return len(jobs)


def _write_index(layout: str, faces: pd.DataFrame, root: Path) -> pd.Series:
    """Writes the index files of a layout into `root`. Returns the path of each picture in it."""
    name, identity = pd.Series([f"{i:06d}.jpg" for i in range(1, len(faces) + 1)]), faces["group"].astype(int)
    part = (identity // 2 % 7).map(lambda pair: pair if pair in (1, 2) else 0)  # 0 train, 1 val, 2 test; by identity
    if layout == "sample":
        faces.assign(path="images/" + name).to_csv(root / "faces.csv", index=False)
        return "images/" + name
    if layout == "csv":
        index = {"Filename": name, "Gender": (faces["gender"] == "female").astype(int), "Age": faces["age"]}
        pd.DataFrame(index).to_csv(root / "results.csv", index=False)
        return "images/" + name
    if layout == "folders":
        return part.map({0: "Train", 1: "Validation", 2: "Test"}) + "/" + faces["gender"].str.title() + "/" + name
    if layout == "imfdb":
        pd.DataFrame({"ID": name, "Class": faces["age_class"].str.upper()}).to_csv(root / "train.csv", index=False)
        return "Train/" + name
    attributes = attributes_of(faces)
    signs = attributes.map(lambda yes: " 1" if yes else "-1").agg(" ".join, axis=1)
    for file, header, values in (
        ("list_attr_celeba.txt", f"{len(faces)}\n{' '.join(map(str, attributes))}\n", signs),
        ("list_eval_partition.txt", "", part.astype(str)),
        ("identity_CelebA.txt", "", (identity + 1).astype(str)),
    ):
        (root / file).write_text(header + "\n".join(name + " " + values) + "\n", encoding="utf-8")
    return "img_align_celeba/" + name


@dataclass
class Request:
    """The arguments of the command line."""

    layout: str = MISSING
    out: str = MISSING
    n: int = 2000
    image_size: int = 128
    sample_seed: int = 0


def main(arguments: list[str]) -> int:
    """`layout=… out=… [n=…] [image_size=…] [sample_seed=…]`: writes a layout. Returns 0, or 1 after a message of one line."""
    try:
        request = OmegaConf.merge(OmegaConf.structured(Request), OmegaConf.from_cli(arguments))
        out = write(**{str(key): value for key, value in request.items()})
    except (FaceattrError, OmegaConfBaseException) as error:
        print(f"{str(error).splitlines()[0]}. Usage: layout=… out=… n=… image_size=… sample_seed=…", file=sys.stderr)
        return 1
    print(f"{request.n} generated faces (drawn by code) in the layout of data={request.layout}: {out}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
