"""From a checkpoint and images to a table of probabilities; `predict` is what predict.py runs."""

import glob
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from pytorch_lightning.callbacks import Callback
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset
from tqdm import tqdm

from faceattr import classifier, config, devices
from faceattr.classifier import Classifier
from faceattr.data import Batch
from faceattr.errors import FaceattrError
from faceattr.images import InputSpec, read_many
from faceattr.sources import csv
from faceattr.sources.layout import IMAGE_SUFFIXES
from faceattr.targets import Target

log = logging.getLogger(__name__)

SHOWN = 20
"""So many predictions are printed; more only go to the file."""


def probabilities(
    model: Classifier, loader: DataLoader[Any], trainer_cfg: DictConfig, *callbacks: Callback
) -> tuple[Tensor, Tensor]:
    """Float32 [N, classes] and the row [N] of each, in the loader's order, without gradients, on the trainer's device."""
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    found = Collected()
    trainer = devices.trainer(trainer_cfg, single=True, callbacks=[*callbacks, found], **quiet)
    trainer.predict(model, loader, return_predictions=False)
    scores = np.frombuffer(found.scores, np.float32).reshape(-1, len(model.target.classes))
    return torch.from_numpy(scores), torch.from_numpy(np.frombuffer(found.rows, np.int64))


class Collected(Callback):
    """Scores and rows of all batches in one piece of memory each: many small tensors kept between large ones that come and
    go would keep the heap from using those again, several kilobytes an image."""

    def __init__(self) -> None:
        self.scores, self.rows = bytearray(), bytearray()

    def on_predict_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, *_: Any) -> None:
        scores, rows = outputs
        self.scores += scores.numpy().tobytes()
        self.rows += rows.numpy().tobytes()


def to_frame(paths: pd.Series, target: Target, scores: Tensor) -> pd.DataFrame:
    """Columns path, predicted (a class; the attributes that are there, comma-separated), and a probability by each name."""
    if target.multilabel:
        predicted = [
            ", ".join(name for name, has in zip(target.classes, row, strict=True) if has) for row in scores > 0.5
        ]
    else:
        predicted = [target.classes[position] for position in scores.argmax(1).tolist()]
    each = {f"probability_{name}": scores[:, position].numpy() for position, name in enumerate(target.classes)}
    return pd.DataFrame({"path": paths.to_numpy(), "predicted": predicted} | each)


class DecodedBatches(IterableDataset[Batch]):
    """Image files as batches, decoded by threads as they are needed; what cannot be read is put into `bad`."""

    def __init__(self, paths: list[str], spec: InputSpec, batch_size: int) -> None:
        self.paths, self.spec, self.batch_size = paths, spec, batch_size
        self.bad: dict[str, str] = {}

    def __iter__(self) -> Iterator[Batch]:
        starts = range(0, len(self.paths), self.batch_size)
        for start in tqdm(starts, desc="Predicting", unit="batch", disable=None, leave=False):
            paths = self.paths[start : start + self.batch_size]
            pixels = np.zeros((len(paths), self.spec.height, self.spec.width, 3), np.uint8)
            bad = read_many(paths, self.spec, pixels, workers=None, label="", block=4)
            self.bad |= {paths[row]: reason for row, reason in bad.items()}
            good = np.setdiff1d(np.arange(len(paths)), list(bad))
            if len(good):
                images = torch.from_numpy(pixels[good]).permute(0, 3, 1, 2)
                yield images, torch.full((len(good),), -1), torch.from_numpy(good + start)


def image_files(source: str) -> list[str]:
    """The images that `input` names: a file, a folder (recursive), a glob, a list (.txt), or a CSV's path column.

    Raises a FaceattrError where there are none.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        found = sorted(str(p) for p in path.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
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
    cfg = config.validated(cfg)
    files = image_files(cfg.input)
    model, _ = classifier.load(cfg.ckpt)
    if model.temperature != 1:
        log.info(
            "Probabilities are calibrated: temperature %.3f, fitted on the run's validation images", model.temperature
        )
    batches = DecodedBatches(files, classifier.input_spec(model.cfg), cfg.batch_size)
    loader = DataLoader(batches, batch_size=None)
    scores, rows = probabilities(model, loader, cfg.trainer)
    frame = to_frame(pd.Series(files).iloc[rows.numpy()], model.target, scores)
    out = Path(HydraConfig.get().runtime.output_dir) / "predictions.csv"
    frame.to_csv(out, index=False)
    if len(frame) <= SHOWN:
        log.info("%s", frame.to_string(index=False, float_format="%.3f"))
    log.info("%d images → %s", len(frame), out)
    if batches.bad:
        bad = pd.DataFrame({"path": batches.bad.keys(), "reason": batches.bad.values()})
        bad.to_csv(out.with_name("bad_images.csv"), index=False)
        shown = "; ".join(f"{row.path} ({row.reason})" for row in bad.head(5).itertuples())
        more = f", … (all in {out.with_name('bad_images.csv')})" if len(bad) > 5 else ""
        raise FaceattrError(f"{len(bad)} of {len(files)} files could not be read: {shown}{more}")
