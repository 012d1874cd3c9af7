"""What predict.py runs: from images to a table of probabilities."""

import glob
import logging
from pathlib import Path

import pandas as pd
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from torch.utils.data import DataLoader

from faceattr.commands.settings import trainer_settings
from faceattr.config.validate import validate
from faceattr.data.image_files import IMAGE_SUFFIXES, walk
from faceattr.data.sources import csv
from faceattr.errors import FaceattrError
from faceattr.files import write_csv
from faceattr.training.checkpoint import load
from faceattr.training.inference import DecodedBatches, probabilities, to_frame

log = logging.getLogger(__name__)


SHOWN = 20
"""So many predictions are printed; more only go to the file."""


def image_files(source: str) -> list[str]:
    """The images that `input` names: a file, a folder (recursive), a glob, a list (.txt), or a CSV's path column.

    Raises a FaceattrError where there are none.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        listing = walk(path)
        found = [str(path / file) for file in listing.files]
        if left_out := listing.left_out():
            log.info("%s: left out: %s", path, left_out)
    elif path.is_file() and path.suffix.lower() in (".txt", ".csv"):
        names = _listed(path)
        found = [str(p if (p := Path(name)).is_absolute() or p.exists() else path.parent / name) for name in names]
    elif path.is_file():
        found = [str(path)]
    elif glob.has_magic(source):
        found = sorted(p for p in glob.glob(str(path), recursive=True) if Path(p).is_file())  # noqa: PTH207
    else:
        raise FaceattrError(f"input={source}: there is no such file or folder.")
    if not found:
        raise FaceattrError(f"input={source}: no images there (looked for {', '.join(sorted(IMAGE_SUFFIXES))}).")
    return found


def _listed(path: Path) -> list[str]:
    if path.suffix.lower() == ".txt":
        return [line.strip() for line in csv.decoded(path).splitlines() if line.strip()]
    table = csv.read(path)
    known = ("path", "file", "filename", "image", "image_id", "id")
    columns = [column for name in known for column in table if str(column).strip().lower() == name]
    if not columns:
        raise FaceattrError(
            f"input={path}: no column named {', '.join(known)}. Columns there: {', '.join(map(str, table.columns))}"
        )
    return table[columns[0]][table[columns[0]] != ""].tolist()


def predict(cfg: DictConfig) -> None:
    """Classify the images of `input`; writes predictions.csv, and goes on past unreadable files (exit code 1 at the end)."""
    if not cfg.input:
        raise FaceattrError("input is not given: input=photo.jpg, a folder, a glob, a .txt list or a .csv")
    cfg = validate(cfg)
    files = image_files(cfg.input)
    model, _ = load(cfg.ckpt)
    if model.temperature != 1:
        log.info(
            "Probabilities are calibrated: temperature %.3f, fitted on the run's validation images", model.temperature
        )
    batches = DecodedBatches(files, model.spec, cfg.batch_size)
    loader = DataLoader(batches, batch_size=None)
    scores, rows = probabilities(model, loader, trainer_settings(cfg))
    frame = to_frame(pd.Series(files).iloc[rows.numpy()], model.task, scores)
    out = Path(HydraConfig.get().runtime.output_dir) / "predictions.csv"
    write_csv(out, frame)
    if len(frame) <= SHOWN:
        log.info("%s", frame.to_string(index=False, float_format="%.3f"))
    log.info("%d images → %s", len(frame), out)
    if batches.bad:
        bad = pd.DataFrame({"path": [files[row] for row in batches.bad], "reason": batches.bad.values()})
        write_csv(out.with_name("bad_images.csv"), bad)
        shown = "; ".join(f"{row.path} ({row.reason})" for row in bad.head(5).itertuples())
        more = f", … (all in {out.with_name('bad_images.csv')})" if len(bad) > 5 else ""
        raise FaceattrError(f"{len(bad)} of {len(files)} files could not be read: {shown}{more}")
