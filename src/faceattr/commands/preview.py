"""What a run would train on, seen before it: faceattr preview data=… augment=… (any keys of train.py).

Writes the table with its splits, the images by class and split, sample images of each class, and one image with its
augmented versions, all by the code that training uses. Only the images that are shown are decoded.
"""

import logging
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from faceattr.commands.settings import input_spec, read_table
from faceattr.config.instantiate import group_settings
from faceattr.config.schema import Augment
from faceattr.config.validate import validate
from faceattr.data import table
from faceattr.data.augment import Augmentation
from faceattr.data.decode import UnreadableImage, read
from faceattr.errors import FaceattrError
from faceattr.files import write_csv
from faceattr.report import charts
from faceattr.report.image_grid import Tile, grid

log = logging.getLogger(__name__)

SAMPLES, VERSIONS = 8, 15
"""Images of each class, and augmented versions of one."""


def preview(cfg: DictConfig) -> None:
    """Reads all it needs before it writes anything. What is drawn comes from `seed`: the same pictures again."""
    folder, chosen = Path(HydraConfig.get().runtime.output_dir), HydraConfig.get().runtime.choices
    cfg = validate(cfg)
    prepared = read_table(cfg)
    train = prepared[prepared["split"] == "train"]
    rng, members = np.random.default_rng(cfg.seed), table.members(train)
    samples = [draw(train[rows], name, cfg, rng) for name, rows in members.items()]

    write_csv(folder / "table.csv", prepared)
    truth = table.class_names(prepared) if prepared.attrs["multilabel"] else ["label"]
    np.save(folder / "table.npy", prepared[["path", *truth, "split"]].to_numpy(str))
    counts = table.counts(prepared)
    counts.to_csv(folder / "counts.csv")
    log.info("%s", counts.to_string())
    charts.counts(counts, folder / "counts.png", title=f"{chosen.data}: images by class and split")
    title = f"{chosen.data}: training images, a random draw of each class"
    note = "At the size that the network takes: {} × {} pixels".format(*cfg.model.image_size)
    rows = [[Tile(image) for image in images] for images in samples]
    grid(rows, folder / "samples.png", title=title, note=note, names=list(members))
    write_augmented(
        samples[0][0], group_settings(cfg.augment, Augment), cfg.seed, str(chosen.augment), folder / "augmented.png"
    )
    log.info("Preview: %s", folder)


def draw(rows: pd.DataFrame, name: str, cfg: DictConfig, rng: np.random.Generator) -> list[np.ndarray]:
    """Pixels of up to `SAMPLES` random images of `rows` (those of class `name`), as `data.on_bad_image` says."""
    found: list[np.ndarray] = []
    for path in rng.permutation(rows["path"].to_numpy(object)):
        try:
            found.append(read(Path(cfg.data.root) / path, input_spec(cfg)))
        except UnreadableImage as error:
            if cfg.data.on_bad_image == "error":
                mend = "Mend or remove it, or leave such images out with data.on_bad_image=skip"
                raise FaceattrError(f"{path} cannot be read: {error}\n{mend}") from error
            log.warning("Left out %s (data.on_bad_image=skip): %s", path, error)
        if len(found) == SAMPLES:
            break
    if not found:
        raise FaceattrError(f"None of the training images of {name} can be read.")
    return found


def write_augmented(image: np.ndarray, augment: Augment, seed: int, name: str, path: Path) -> None:
    """The original first, then what training may make of it: each version another draw."""
    augmentation = Augmentation(asdict(augment))
    batch = torch.from_numpy(image[None].repeat(VERSIONS, 0)).permute(0, 3, 1, 2)  # channels last, as training's
    versions = augmentation(batch, torch.Generator().manual_seed(seed)).permute(0, 2, 3, 1).numpy()
    captions = [str(i) if augmentation.active else "unchanged" for i in range(1, VERSIONS + 1)]
    tiles = [Tile(image, "original"), *map(Tile, versions, captions)]
    what = f"{VERSIONS} versions of a training image" if augmentation.active else "training images stay as they are"
    standard = Augment()
    ranges = [f"{key} {value}" for key, value in asdict(augment).items() if value != getattr(standard, str(key))]
    note = ", ".join(text.removesuffix(" True").removesuffix(".0") for text in ranges) or "every range is 0"
    grid([tiles[:8], tiles[8:]], path, title=f"augment={name}: {what}", note=note)
