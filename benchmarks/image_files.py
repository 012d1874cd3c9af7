"""Image files for the benchmark: generated faces, hard-linked into class folders. Every competitor reads the same files."""

import os
import shutil
from collections import defaultdict
from pathlib import Path

import pandas as pd

from faceattr.data.sources import sample

Picture = tuple[Path, str]  # file, class


def draw_faces(cache: Path, layout: str, n: int, pixels: int = 160) -> list[Picture]:
    """`n` faces in the layout of CelebA (178x218 pixels, by gender) or IMFDB (square, by age class), the classes in turn."""
    folder = cache / f"{layout}_v{sample.VERSION}_n{n}_size{pixels}"
    if not folder.exists():
        sample.write(layout, folder, n=n, image_size=pixels)
    if layout == "imfdb":
        table = pd.read_csv(folder / "train.csv")
        pictures = zip(folder / "Train" / table["ID"], table["Class"].str.lower(), strict=True)
    else:
        table = pd.read_csv(folder / "list_attr_celeba.txt", sep=r"\s+", skiprows=1)
        names = table["Male"].map({1: "male", -1: "female"})
        pictures = zip(folder / "img_align_celeba" / table.index.to_series(), names, strict=True)
    next_number: dict[str, int] = defaultdict(int)
    numbered = []
    for file, label in pictures:
        numbered.append((next_number[label], label, file))
        next_number[label] += 1
    return [(file, label) for _, label, file in sorted(numbered)]


def class_folders(out: Path, pictures: list[Picture], **splits: int) -> Path:
    """Make `out`/<split>/<class>/… with that many images per split. If there are fewer pictures, they repeat under other names."""
    if not (out / "complete").exists():
        shutil.rmtree(out, ignore_errors=True)
        first = 0
        for split, size in splits.items():
            for label in {label for _, label in pictures}:
                (out / split / label).mkdir(parents=True)
            for number in range(first, first + size):
                file, label = pictures[number % len(pictures)]
                _link(file, out / split / label / f"{number:06d}{file.suffix}")
            first += size
        (out / "complete").touch()
    return out


def _link(file: Path, name: Path) -> None:
    try:
        os.link(file, name)
    except OSError:  # another file system, or too many links
        shutil.copyfile(file, name)
