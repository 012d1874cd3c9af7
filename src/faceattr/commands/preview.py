"""What a run would train on, seen before it: faceattr preview data=… augment=… (any keys of train.py).

Writes the table with its splits, the images by class and split, sample images of each class, the faces found in some, and one
image with its augmented versions, all by the code that training uses. Only the images that are shown are decoded.
"""

import logging
from collections.abc import Mapping
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from faceattr.commands.build_from_config import input_spec, read_table
from faceattr.config.instantiate import group_settings
from faceattr.config.schema import Augment
from faceattr.config.validate_keys import validate
from faceattr.data import table
from faceattr.data.augment import Augmentation
from faceattr.data.decode import InputSpec, UnreadableImage, decode, read
from faceattr.data.faces.crop_recipe import check_one_face, pick
from faceattr.data.faces.detect import Detector
from faceattr.data.photo_reader import create_detector
from faceattr.errors import FaceattrError
from faceattr.files import write_array, write_atomically, write_csv
from faceattr.message_text import MOST_LISTED
from faceattr.report import charts
from faceattr.report.draw_detections import enlarge, mark
from faceattr.report.image_grid import Tile, grid

log = logging.getLogger(__name__)

SAMPLES, VERSIONS = 8, 15
"""Images of each class, and augmented versions of one."""
FACE_SAMPLES = 4
"""Images of each class in faces.png."""


class Sample(NamedTuple):
    """What the network gets of an image, uint8 [H, W, 3]; and where faces are cropped, the image with the faces in it."""

    pixels: np.ndarray
    marked: np.ndarray | None


def preview(cfg: DictConfig) -> None:
    """Reads all it needs before it writes anything. What is drawn comes from `seed`: the same pictures again."""
    folder, chosen = Path(HydraConfig.get().runtime.output_dir), HydraConfig.get().runtime.choices
    cfg = validate(cfg)
    prepared = read_table(cfg)
    train = prepared[prepared["split"] == "train"]
    rng, members = np.random.default_rng(cfg.seed), table.members(train)
    if len(members) > MOST_LISTED:
        log.info("Pictures of the first %d of %d classes", MOST_LISTED, len(members))
    samples = {name: draw(train[rows], name, cfg, rng) for name, rows in islice(members.items(), MOST_LISTED)}

    write_csv(folder / "table.csv", prepared)
    truth = table.class_names(prepared) if prepared.attrs["multilabel"] else ["label"]
    write_array(folder / "table.npy", prepared[["path", *truth, "split"]].to_numpy(str))
    counts = table.counts(prepared)
    with write_atomically(folder / "counts.csv") as stream:
        counts.to_csv(stream)
    log.info("%s", table.shortened(counts).to_string())
    charts.counts(table.shortened(counts), folder / "counts.png", title=f"{chosen.data}: images by class and split")
    title = f"{chosen.data}: training images, a random draw of each class"
    note = "At the size that the network takes: {} × {} pixels".format(*cfg.model.image_size)
    rows = [[Tile(sample.pixels) for sample in of_class] for of_class in samples.values()]
    grid(rows, folder / "samples.png", title=title, note=note, names=list(samples))
    if cfg.faces.mode != "none":
        write_faces(samples, folder / "faces.png", title=f"faces={chosen.faces}: training images and their crops")
    first = next(iter(samples.values()))[0].pixels
    write_augmented(
        first, group_settings(cfg.augment, Augment), cfg.seed, str(chosen.augment), folder / "augmented.png"
    )
    log.info("Preview: %s", folder)


def draw(rows: pd.DataFrame, name: str, cfg: DictConfig, rng: np.random.Generator) -> list[Sample]:
    """Up to `SAMPLES` random images of `rows` (those of class `name`), as `data.on_bad_image` and `faces.on_none` say."""
    spec, samples = input_spec(cfg), list[Sample]()
    check_one_face(spec.faces)
    detector = create_detector(spec.faces, cfg.faces.weights)
    for path in rng.permutation(rows["path"].to_numpy(object)):
        try:
            sample = _sample(Path(cfg.data.root) / path, spec, detector)
        except UnreadableImage as error:
            if cfg.data.on_bad_image == "error":
                mend = "Mend or remove it, or leave such images out with data.on_bad_image=skip"
                raise FaceattrError(f"{path} cannot be read: {error}\n{mend}") from error
            log.warning("Left out %s (data.on_bad_image=skip): %s", path, error)
            continue
        if sample is None and spec.faces.on_none == "error":
            raise FaceattrError(
                f"{path} has no face. Leave such images out with faces.on_none=skip, or take them whole with faces.on_none=whole"
            )
        if sample is None:
            log.warning("Left out %s (faces.on_none=skip): no face", path)
            continue
        samples.append(sample)
        if len(samples) == SAMPLES:
            break
    if not samples:
        raise FaceattrError(f"None of the training images of {name} can be used.")
    return samples


def _sample(path: Path, spec: InputSpec, detector: Detector | None) -> Sample | None:
    """None where no face is found and the image is not taken whole."""
    if detector is None:
        return Sample(read(path, spec), None)
    image = decode(path)
    faces = detector.find(np.asarray(image), every=spec.faces.every_face)
    face = pick(faces, spec.faces, *image.size)
    if face is None and spec.faces.on_none != "whole":
        return None
    return Sample(read(image, spec, face), mark(image, faces, face, spec))


def write_faces(samples: Mapping[str, list[Sample]], path: Path, *, title: str) -> None:
    """faces.png: each image with its faces, the crop beside it; a row for each class."""
    rows = [
        [
            Tile(tile)
            for sample in of_class[:FACE_SAMPLES]
            if sample.marked is not None
            for tile in (sample.marked, enlarge(sample.pixels))
        ]
        for of_class in samples.values()
    ]
    note = "White: the faces that were found. Yellow: the crop, and the points of the face that stands for the image."
    grid(rows, path, title=title, note=note, names=list(samples))


def write_augmented(image: np.ndarray, augment: Augment, seed: int, name: str, path: Path) -> None:
    """The original first, then what training may make of it: each version another draw."""
    augmentation = Augmentation(asdict(augment))
    batch = torch.from_numpy(image[None].repeat(VERSIONS, 0)).permute(0, 3, 1, 2)  # channels last, as training's
    versions = augmentation(batch, torch.Generator().manual_seed(seed)).permute(0, 2, 3, 1).numpy()
    captions = [str(i) if augmentation.active else "unchanged" for i in range(1, VERSIONS + 1)]
    tiles = [Tile(image, "original"), *map(Tile, versions, captions)]
    summary = f"{VERSIONS} versions of a training image" if augmentation.active else "training images stay as they are"
    standard = Augment()
    ranges = [f"{key} {value}" for key, value in asdict(augment).items() if value != getattr(standard, str(key))]
    note = ", ".join(text.removesuffix(" True").removesuffix(".0") for text in ranges) or "every range is 0"
    grid([tiles[:8], tiles[8:]], path, title=f"augment={name}: {summary}", note=note)
