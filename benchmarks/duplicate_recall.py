"""Recall of the search for duplicates: the share of copies that it finds, by kind of copy, and how many false pairs it reports.

    python benchmarks/duplicate_recall.py FOLDER N             recall and false pairs, on N images of FOLDER
    python benchmarks/duplicate_recall.py FOLDER N hashes      the same by hashes alone, as an evaluation on other data decides
    python benchmarks/duplicate_recall.py FOLDER N seconds     time and memory of each stage with N images

With `seconds` the N images are made from those of FOLDER: a blend of two, rotated, shifted and cropped at random, at 128x128. Each
is made when it is asked for; that time is not counted. Times are CPU seconds.
"""

import io
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import torch
from bare_loop import compose_config
from PIL import Image, ImageEnhance
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from faceattr.commands.build_from_config import create_data, input_spec
from faceattr.data import duplicates, perceptual_hash, training_hashes
from faceattr.data.batches import Batch
from faceattr.data.datamodule import FaceData
from faceattr.data.decode import read
from faceattr.data.table import prepare

Change = Callable[[Image.Image], Image.Image]
rng = np.random.default_rng(0)


def encoded(format: str, quality: int) -> Change:
    def change(image: Image.Image) -> Image.Image:
        image.save(file := io.BytesIO(), format, quality=quality)
        return Image.open(file).convert("RGB")

    return change


def scaled(factor: float) -> Change:
    return lambda image: image.resize([round(side * factor) for side in image.size], Image.Resampling.BICUBIC)


def cropped(side: float, central: bool) -> Change:
    """Crop and resize to the old size. Not `central`: the crop lies anywhere in the image."""

    def change(image: Image.Image) -> Image.Image:
        size = np.array(image.size)
        left, top = (size * (1 - side) * (0.5 if central else rng.uniform(0, 1, 2))).tolist()
        box = (left, top, left + size[0] * side, top + size[1] * side)
        return image.resize(image.size, Image.Resampling.BICUBIC, box)

    return change


def brighter(factor: float) -> Change:
    return lambda image: ImageEnhance.Brightness(image).enhance(factor)


def rotated(degrees: float) -> Change:
    return lambda image: image.rotate(degrees, Image.Resampling.BICUBIC)


def mirrored(image: Image.Image) -> Image.Image:
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


def grey(image: Image.Image) -> Image.Image:
    return image.convert("L").convert("RGB")


def chain(*changes: Change) -> Change:
    def change(image: Image.Image) -> Image.Image:
        for each in changes:
            image = each(image)
        return image

    return change


CHANGES: dict[str, Change] = {
    **{f"JPEG {q}": encoded("JPEG", q) for q in (75, 50, 30, 15)},
    "WebP 50": encoded("WEBP", 50),
    **{f"resized {f:.0%}": scaled(f) for f in (2, 0.5, 0.25)},
    **{f"brightness {f:.0%}": brighter(f) for f in (1.15, 0.85)},
    "grey": grey,
    "mirrored": mirrored,
    **{f"central crop {side:.0%}": cropped(side, True) for side in (0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.65, 0.6)},
    **{f"crop anywhere {side:.0%}": cropped(side, False) for side in (0.95, 0.9, 0.85, 0.8, 0.7)},
    **{f"rotated by {d}°": rotated(d) for d in (2, 5, 10)},
    "resized 50%, central crop 90%, mirrored, JPEG 50": chain(
        scaled(0.5), cropped(0.9, True), mirrored, encoded("JPEG", 50)
    ),
    "crop anywhere 95%, brightness 85%, JPEG 30": chain(cropped(0.95, False), brighter(0.85), encoded("JPEG", 30)),
    "central crop 80%, resized 50%, WebP 50": chain(cropped(0.8, True), scaled(0.5), encoded("WEBP", 50)),
}


def data_of(root: Path, files: list[str], **more: Any) -> FaceData:
    """A table needs two splits and two classes; the search for duplicates does not use them."""
    rows = pd.DataFrame({"path": files, "label": np.resize(["a", "b"], len(files))})
    rows.attrs.update(classes=["a", "b"], ordinal=False)
    cfg = compose_config(["data=csv", f"data.root={root}", *(f"data.{key}={value}" for key, value in more.items())])
    return create_data(cfg, prepare(rows, root, split=None))


def find_pairs(root: Path, files: list[str]) -> pd.DataFrame:
    """The pairs that are found, by file name without `.png`."""
    data = data_of(root, files, pack="ram")
    (pairs, _), names = duplicates.find(data), data.table["path"].str.removesuffix(".png").to_numpy(object)
    return pairs.assign(row=names[pairs["row"]], other=names[pairs["other"]])


def connected(pairs: pd.DataFrame) -> dict[str, int]:
    """Each image that has a copy → the number of its connected group of copies."""
    codes, names = pd.factorize(pd.concat([pairs["row"], pairs["other"]]))
    edges = coo_array((np.ones(len(pairs)), codes.reshape(2, -1)), (len(names), len(names)))
    return dict(zip(names, connected_components(edges, directed=False)[1], strict=True))


def recall(folder: Path, n: int) -> None:
    files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in (".jpg", ".jpeg", ".png"))
    files = [files[i] for i in sorted(rng.choice(len(files), n, replace=False))]
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        for i, file in enumerate(files):
            (root / f"{i}.png").symlink_to(file.resolve())
        originals = [f"{i}.png" for i in range(n)]
        pairs = find_pairs(root, originals)
        known = {frozenset(pair) for pair in zip(pairs["row"], pairs["other"], strict=True)}
        print(f"{len(known)} pairs among the {n} images themselves: look at them; they are not counted below\n")
        print("| copy | found | least similarity | false pairs |\n|---|---|---|---|")
        for name, change in CHANGES.items():
            for i, file in enumerate(files):
                change(Image.open(file).convert("RGB")).save(root / f"{i}c.png")
            pairs = find_pairs(root, [*originals, *(f"{i}c.png" for i in range(n))])
            print(recall_row(name, pairs, known, n), flush=True)


def hashes(folder: Path, n: int) -> None:
    files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in (".jpg", ".jpeg", ".png"))
    files = [files[i] for i in rng.choice(len(files), n, replace=False)]
    with tempfile.TemporaryDirectory() as temporary:
        root, names = Path(temporary), [f"{i}.png" for i in range(n)]
        for name, file in zip(names, files, strict=True):
            (root / name).symlink_to(file.resolve())
        originals = data_of(root, names, pack="ram")
        (pairs, stored), half = duplicates.find(originals), n // 2
        with_pair = set(pairs[["row", "other"]].to_numpy().ravel().tolist())
        flagged = np.flatnonzero(training_hashes.copies(originals, stored[:half])[half:]) + half
        false = [row for row in flagged if row not in with_pair]
        print(f"{len(false)} of {n - half} images are taken for a copy of {half} other photographs\n")
        print("| copy | found |\n|---|---|")
        for name, change in CHANGES.items():
            for i, file in enumerate(files):
                change(Image.open(file).convert("RGB")).save(root / f"{i}c.png")
            copies = data_of(root, [f"{i}c.png" for i in range(n)], pack="ram")
            print(f"| {name} | {training_hashes.copies(copies, stored).mean():.3f} |", flush=True)


def recall_row(name: str, pairs: pd.DataFrame, known: set[frozenset[str]], n: int) -> str:
    """Image i and its copy `ic` belong together; any other pair that is not `known` is false."""
    one, other = pairs["row"].str.removesuffix("c"), pairs["other"].str.removesuffix("c")
    correct = one == other
    false = sum(frozenset(pair) not in known for pair in zip(one[~correct], other[~correct], strict=True))
    group = connected(pairs)
    share = np.mean([f"{i}" in group and group[f"{i}"] == group.get(f"{i}c") for i in range(n)])
    return f"| {name} | {share:.3f} | {pairs['similarity'][correct].min():.3f} | {false} |"


class RandomImages:
    """Stands in for a FaceData with any number of images: they are made when they are asked for, not stored."""

    def __init__(self, folder: Path, n: int) -> None:
        cfg = compose_config(["data=csv", f"data.root={folder}", "model.image_size=[128,128]"])
        files, self.spec = sorted(map(str, folder.rglob("*.jpg"))), input_spec(cfg)
        self.pixels = np.stack([read(file, self.spec) for file in files])
        self.seconds = 0.0
        self.table, self.paths = pd.DataFrame(index=range(n)), [files[i % len(files)] for i in range(n)]

    def pixel_batches(self, rows: np.ndarray) -> Iterator[Batch]:
        for start in range(0, len(rows), 32):
            started = time.process_time()
            chosen = rows[start : start + 32]
            images = torch.from_numpy(np.stack([self.image(row) for row in chosen]))
            self.seconds += time.process_time() - started
            no_targets = torch.full((len(chosen),), -1)
            yield Batch(images.permute(0, 3, 1, 2), no_targets, torch.from_numpy(chosen))

    def image(self, row: int) -> np.ndarray:
        draw = np.random.default_rng(int(row))
        one, other = self.pixels[draw.integers(len(self.pixels), size=2)]
        image = cv2.addWeighted(one, 0.7, other, 0.3, 0)
        turn = cv2.getRotationMatrix2D((64, 64), draw.uniform(-10, 10), draw.uniform(1, 1.25))
        turn[:, 2] += draw.uniform(-8, 8, 2)
        return cv2.warpAffine(image, turn, (128, 128), borderMode=cv2.BORDER_REPLICATE)


def seconds(folder: Path, n: int) -> None:
    data: Any = RandomImages(folder, n)
    base, stages = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, {}

    def timed(name: str, stage: Callable[..., Any], *arguments: Any) -> Any:
        started, clock, making = time.process_time(), time.perf_counter(), data.seconds
        result = stage(*arguments)
        stages[name] = time.process_time() - started - (data.seconds - making)
        wall = f"{time.perf_counter() - clock:.1f} s wall time, the making of the images included"
        print(f"{name}: {stages[name]:.1f} CPU seconds, {wall}", flush=True)
        return result

    hashes = timed("hashing", duplicates.compute_hashes, data)
    candidates = timed("comparing hashes", perceptual_hash.candidates, hashes)
    similarity = timed("comparing images", duplicates.similarities, data, candidates)
    print(f"all stages: {sum(stages.values()):.1f} CPU seconds")
    print(
        f"{n:,} images, {len(candidates):,} candidates, {(similarity >= duplicates.MIN_DETAIL_CORRELATION).sum():,} pairs"
    )
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"peak memory {most / 1e6:.2f} GB, {base / 1e6:.2f} of it before (torch, and {len(data.pixels)} images)")


if __name__ == "__main__":
    measure = {"": recall, "hashes": hashes, "seconds": seconds}["".join(sys.argv[3:])]
    measure(Path(sys.argv[1]), int(sys.argv[2]))
