"""Image files for the benchmark: faces drawn by code once, hard-linked into class folders, the same files for every competitor."""

import os
import shutil
from collections import defaultdict
from pathlib import Path

import pandas as pd

from faceattr.data.sources import sample

Picture = tuple[Path, str]  # and its class


def drawn(cache: Path, layout: str, n: int, pixels: int = 160) -> list[Picture]:
    """`n` faces in the layout of CelebA (178x218 pixels, by gender) or IMFDB (square, by age class), each class in turn."""
    folder = cache / f"{layout}_v{sample.VERSION}_n{n}_size{pixels}"
    if not folder.exists():
        sample.write(layout, folder, n=n, image_size=pixels)
    if layout == "imfdb":
        table = pd.read_csv(folder / "train.csv")
        found = zip(folder / "Train" / table["ID"], table["Class"].str.lower(), strict=True)
    else:
        table = pd.read_csv(folder / "list_attr_celeba.txt", sep=r"\s+", skiprows=1)
        names = table["Male"].map({1: "male", -1: "female"})
        found = zip(folder / "img_align_celeba" / table.index.to_series(), names, strict=True)
    numbered: dict[str, int] = defaultdict(int)
    ranked = []
    for file, label in found:
        ranked.append((numbered[label], label, file))
        numbered[label] += 1
    return [(file, label) for _, label, file in sorted(ranked)]


def class_folders(out: Path, pictures: list[Picture], **splits: int) -> Path:
    """`out`/<split>/<class>/…, so many images a split; where there are fewer pictures, they come again under other names."""
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
