"""What predict.py runs: photos and videos in, a table of answers out, with a row for each face or picture."""

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from faceattr.commands.annotated_and_crops import Pictures
from faceattr.commands.build_from_config import spec_from_checkpoint, trainer_settings
from faceattr.commands.predict_input import input_files
from faceattr.config.instantiate import group_settings
from faceattr.config.schema import InputTable
from faceattr.config.validate_keys import validate
from faceattr.data.decode import InputSpec
from faceattr.data.out_of_distribution import InputCheck
from faceattr.data.photo_reader import NO_FACE, SubjectReader, create_detector
from faceattr.data.videos import is_video
from faceattr.errors import FaceattrError
from faceattr.files import CsvRows, write_csv
from faceattr.message_text import MOST_LISTED, counted, listed
from faceattr.training.inference_backend import open_backend
from faceattr.training.prediction_rows import RowFormat, ScoredSubject, SubjectBatches

log = logging.getLogger(__name__)

SHOWN = 20
"""Up to this many rows are printed. If there are more, none is printed: they are in the file."""


def predict(cfg: DictConfig) -> None:
    """Writes predictions.csv for the photos and videos of `input`, as the answers come. Goes on after an unreadable file; the
    exit code is then 1."""
    if not cfg.input:
        raise FaceattrError("input is not given: input=photo.jpg, a folder, a glob, a .txt list or a table")
    cfg = validate(cfg)
    model = open_backend(Path(cfg.ckpt), trainer_settings(cfg))
    files = input_files(cfg.input, group_settings(cfg.data, InputTable), model.data)
    spec = spec_from_checkpoint(cfg, model.spec)
    detector = create_detector(spec.faces, cfg.faces.weights)
    reader = SubjectReader(files, spec, detector, all_faces=every_face(spec), every=cfg.every, label="Predicting")
    times = any(map(is_video, files))
    rows = RowFormat(model.classes, model.multilabel, spec.faces.active, times, cfg.abstain, reasons=spec.faces.active)
    if model.temperature != 1:
        log.info(
            "Probabilities are calibrated: temperature %.3f, fitted on the run's validation images", model.temperature
        )
    folder, inputs = Path(HydraConfig.get().runtime.output_dir), InputCheck(model.usual_inputs)
    with Predictions(
        folder, files, rows, Pictures.create(folder, reader, annotated=cfg.annotate, crops=cfg.crops)
    ) as out:
        model.predict(SubjectBatches(inputs.passing(reader), cfg.batch_size, out.receive, mirror=cfg.predict.mirror))
    inputs.warn()
    out.log_and_check()


def every_face(spec: InputSpec) -> bool:
    """Whether all faces of a picture get an answer: unless the command line picks one. The checkpoint's pick is for training."""
    picked = any(text.startswith("faces.pick=") for text in HydraConfig.get().overrides.task)
    return not picked or spec.faces.pick == "all"


class Predictions:
    """Writes what predict.py leaves: predictions.csv as the answers come, the pictures, and bad_images.csv at the end.

    Interrupted, it leaves what is done.
    """

    def __init__(self, folder: Path, files: list[str], rows: RowFormat, pictures: Pictures | None) -> None:
        self._files, self._row_format, self._pictures = files, rows, pictures
        self._path, self._bad_path = folder / "predictions.csv", folder / "bad_images.csv"
        self._csv = CsvRows(self._path, rows.columns)
        self._count = self._faceless = 0
        self._unreadable: dict[str, str] = {}
        self._first_rows: list[list[Any]] = []

    def __enter__(self) -> "Predictions":
        return self

    def receive(self, subjects: Iterable[ScoredSubject]) -> None:
        """Writes the next subjects, in order. An unreadable file has a row only if rows have the column `reason`."""
        rows = []
        for subject, scores in subjects:
            file = self._files[subject.source]
            if subject.unreadable:
                self._unreadable[file] = subject.reason
            self._faceless += subject.reason == NO_FACE
            if self._row_format.reasons or not subject.unreadable:
                rows.append(self._row_format.row(file, subject, scores))
            if self._pictures:
                self._pictures.add(file, subject, "" if scores is None else self._row_format.caption(scores))
        self._csv.write(rows)
        self._count += len(rows)
        self._first_rows += rows[: SHOWN + 1 - len(self._first_rows)]

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._csv.close()
        if self._pictures:
            self._pictures.close(finish=kind is None)
        if self._unreadable:
            write_csv(
                self._bad_path, pd.DataFrame({"path": self._unreadable.keys(), "reason": self._unreadable.values()})
            )
        if kind is not None and self._count:
            log.warning("Ended before all was done: %s in %s", counted(self._count, "row"), self._path)

    def log_and_check(self) -> None:
        """Logs the rows, or how many there are. Raises FaceattrError where files could not be read."""
        if 0 < len(self._first_rows) <= SHOWN:
            table = pd.DataFrame(self._first_rows, columns=self._row_format.columns)
            probabilities = self._row_format.probabilities
            if len(probabilities) > MOST_LISTED and not self._row_format.multilabel:
                table, probabilities = table.assign(probability=table[probabilities].max(axis=1)), ["probability"]
            columns = ("path", "time", "face", "predicted", *probabilities[:MOST_LISTED], "reason")
            table = table[[name for name in columns if name in table]]
            for name in table.select_dtypes(exclude="number"):
                table[name] = table[name].fillna("")  # else None is printed
            log.info("%s", table.to_string(index=False, float_format="%.3f", na_rep=""))
        if self._pictures and (folders := self._pictures.folders()):
            log.info("Pictures: %s", folders)
        if self._faceless:
            log.info("No face was found in %s", counted(self._faceless, "picture"))
        log.info("%s → %s", counted(self._count, "row" if self._row_format.reasons else "image"), self._path)
        if self._unreadable:
            shown = listed((f"{path} ({reason})" for path, reason in self._unreadable.items()), 5, separator="; ")
            more = f" (all in {self._bad_path})" if len(self._unreadable) > 5 else ""
            raise FaceattrError(
                f"{len(self._unreadable)} of {counted(len(self._files), 'file')} could not be read: {shown}{more}"
            )
