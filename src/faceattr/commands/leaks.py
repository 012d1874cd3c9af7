"""faceattr leaks: copies of an image in two splits, and people in two, on the table and pixels that training would use."""

import logging
from pathlib import Path

import numpy as np
import pandas as pd
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from PIL import Image

from faceattr.commands.build_from_config import create_data, read_table
from faceattr.config.validate_keys import validate
from faceattr.data import duplicates, perceptual_hash
from faceattr.data.datamodule import FaceData
from faceattr.data.leaks import Leakage, describe, find, summary
from faceattr.files import write_csv, write_json
from faceattr.message_text import counted
from faceattr.report.image_grid import TILE, Tile, grid

log = logging.getLogger(__name__)

METHOD = (
    f"pHash of 256 bits, at most {perceptual_hash.MAX_DISTANCE} different; then, aligned, the correlation of detail, at least "
    f"{duplicates.MIN_DETAIL_CORRELATION}, and of the whole, at least {duplicates.MIN_CORRELATION}"
)
SHOWN = 24
"""Pairs in the picture."""


def leaks(cfg: DictConfig) -> None:
    """Writes what was found into the folder of the run."""
    folder, chosen = Path(HydraConfig.get().runtime.output_dir), HydraConfig.get().runtime.choices
    cfg = validate(cfg)
    data = create_data(cfg, read_table(cfg))
    leakage = find(data)
    nobody = pd.DataFrame(columns=["identity", "splits", "images"])
    write_csv(folder / "duplicates.csv", leakage.pairs)
    write_csv(folder / "identities.csv", nobody if leakage.identities is None else leakage.identities)
    write_json(folder / "audit.json", {"images": len(data.table), **summary(leakage), "method": METHOD})
    if len(leakage.pairs):
        draw(leakage, data, folder / "pairs.png", title=f"data={chosen.data}: images that have a copy")
    log.info("%s", describe(leakage))
    log.info("Results: %s", folder)


def draw(leakage: Leakage, data: FaceData, path: Path, *, title: str) -> None:
    """The first pairs side by side, those with different labels framed."""
    row_of = {path: row for row, path in enumerate(data.table["path"])}
    shown = leakage.pairs.head(SHOWN)
    pixels = data.pixels({row_of[path] for name in ("path", "other") for path in shown[name]})
    label = data.table.set_index("path")["label"].to_dict() if "label" in data.table else {}
    tiles = []
    for pair in shown.to_dict("records"):
        for name, split in ((pair["path"], pair["split"]), (pair["other"], pair["other_split"])):
            image = Image.fromarray(pixels[row_of[name]])
            image.thumbnail((TILE, TILE))
            caption = f"{split} {label.get(name, '')}\n{pair['kind']}\n{pair['similarity']:.3f}"
            tiles.append(Tile(np.asarray(image), caption, framed=pair["conflict"]))
    note = f"{min(SHOWN, len(leakage.pairs))} of {counted(len(leakage.pairs), 'pair')}, side by side; framed: their labels differ"
    grid([tiles[start : start + 6] for start in range(0, len(tiles), 6)], path, title=title, note=note)
