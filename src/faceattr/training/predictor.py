"""Predictions for images in memory or in files, from Python: what `faceattr.load` gives, and what serve.py serves.

No torch and no Hydra here, so that an exported model runs without them; pandas is imported for a table only.
"""

from collections.abc import Iterable
from dataclasses import asdict, replace
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from faceattr.config.key_annotation import declared_keys
from faceattr.config.schema import Faces, PredictConfig
from faceattr.data.decode import ImageLike, InputSpec
from faceattr.data.faces.crop_recipe import WHOLE_IMAGE, FaceRecipe
from faceattr.data.faces.detect import Detector
from faceattr.data.out_of_distribution import InputCheck
from faceattr.data.photo_reader import SubjectReader, create_detector
from faceattr.data.videos import is_video
from faceattr.errors import FaceattrError
from faceattr.message_text import counted_of, listed
from faceattr.training.inference_backend import Backend
from faceattr.training.prediction_rows import RowFormat, ScoredSubject, SubjectBatches

if TYPE_CHECKING:
    import pandas as pd

BATCH_SIZE = PredictConfig.batch_size
"""As the command's: with another batch size, some kernels round differently."""
MODES = declared_keys(Faces)["mode"].key.choices


class Predictor:
    """A trained classifier that takes images of any size. `load` makes one.

    It decodes and resizes images as training did. `backend` computes the answers: a checkpoint or an exported model.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend, self._spec = backend, backend.spec
        self._detectors: dict[float, Detector] = {}

    def __repr__(self) -> str:
        return f"Predictor({self._backend.name}: {listed(self.classes)})"

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, or of the attributes, in the order of the probabilities."""
        return self._backend.classes

    @property
    def input_size(self) -> tuple[int, int]:
        """(height, width) of the network's input."""
        return self._spec.height, self._spec.width

    @property
    def metadata(self) -> dict[str, Any]:
        """What the model is, in plain containers: name, classes, what its network takes, how faces are found and cropped, and
        whether it `explain`s."""
        return {
            "name": self._backend.name,
            "classes": list(self.classes),
            "multilabel": self._backend.multilabel,
            "input": {"height": self._spec.height, "width": self._spec.width, "resize": self._spec.resize},
            "faces": asdict(self._spec.faces),
            "temperature": self._backend.temperature,
            "explains": self._backend.explains,
        }

    def predict(
        self,
        images: ImageLike | Iterable[ImageLike],
        *,
        faces: str | FaceRecipe | None = None,
        max_faces: int | None = None,
        mirror: bool = False,
        abstain: float | None = None,
        every: float = 1.0,
        unusual: bool = False,
    ) -> "pd.DataFrame":
        """A row per face; a row per image where the model takes whole images. Images without an answer have a row, too.

        `images` is one image or video file or several, in any mix. Columns: `path` (the file as given, or the image's position
        in `images`), `predicted` (a class; for attributes those above 0.5, comma-separated), `probability_<class>` for each
        class, and `reason`: why an image has no answer, else None. Where faces are looked for: `face` (from 0 in reading order,
        none where no face was found), its box `x`, `y`, `width`, `height` in pixels, its `score` and five points. With videos:
        `time`, the seconds of the frame.

        faces: `none` takes the images whole, `square` or `align` finds and crops faces; None is as in training.
        max_faces: at most this many faces of an image are classified, the largest ones; None: all.
        mirror: the network sees each crop as it is and mirrored; the probabilities are the mean of both.
        abstain: below this probability `predicted` is `uncertain`.
        every: seconds between the frames that are taken of a video.
        unusual: add the column `unusual`: whether what the network gets looks unlike the training images, which otherwise is
            logged for all images together; None where that is not known.

        >>> model = faceattr.load("outputs/example/checkpoints/best.ckpt")
        >>> table = model.predict([np.zeros((32, 32, 3), np.uint8), "absent.jpg"])
        >>> table["path"].tolist()
        [0, 'absent.jpg']
        >>> table["reason"].isna().tolist()
        [True, False]
        """
        import pandas as pd  # 0.3 s

        sources = _as_list(images)
        paths = [
            str(image) if isinstance(image, str | PathLike) else position for position, image in enumerate(sources)
        ]
        spec, times = self._spec_with(faces), any(map(is_video, sources))
        rows = RowFormat(self.classes, self._backend.multilabel, spec.faces.active, times, abstain, reasons=True)
        reader = SubjectReader(sources, spec, self._detector(spec.faces), max_faces=max_faces, every=every)
        inputs = InputCheck(self._backend.usual_inputs)
        scored = self._scored(reader, inputs, mirror=mirror)
        values = [rows.row(paths[subject.source], subject, scores) for subject, scores in scored]
        table = pd.DataFrame(values, columns=rows.columns)
        texts = dict.fromkeys(("path", "predicted", "reason"), object)
        numbers = (
            ({name: float for name in table if name not in texts} | {"face": "Int64"}) if spec.faces.active else {}
        )
        table = table.astype(texts | numbers | dict.fromkeys(rows.probabilities, np.float32))
        if unusual:
            flags = iter(inputs.unusual)
            column = [None if scores is None else next(flags, None) for _, scores in scored]
            return table.assign(unusual=pd.Series(column, dtype=object))
        inputs.warn()
        return table

    def predict_proba(self, images: ImageLike | Iterable[ImageLike]) -> np.ndarray:
        """Float32 [N, classes]: the probability of each class, or of each attribute, in the order of `classes`.

        Of an image with several faces, the one that training would take. Raises FaceattrError where an image cannot be read,
        or shows no face.

        >>> model = faceattr.load("outputs/example/checkpoints/best.ckpt")
        >>> model.predict_proba([np.zeros((32, 32, 3), np.uint8)] * 3).shape
        (3, 2)
        """
        sources = _as_list(images)
        inputs = InputCheck(self._backend.usual_inputs)
        scored = self._scored(self._reader_of_one(sources), inputs)
        inputs.warn()
        reasons = {subject.source: subject.reason for subject, scores in scored if scores is None}
        if reasons:
            first, reason = next(iter(reasons.items()))
            named = str(sources[first]) if isinstance(sources[first], str | PathLike) else f"image {first}"
            raise FaceattrError(
                f"{counted_of(len(reasons), len(sources), 'image', 'have')} no answer; the first: {named} ({reason}).\n"
                "predict() gives such images a row with the reason."
            )
        return np.array([scores for _, scores in scored], np.float32).reshape(len(scored), len(self.classes))

    def explain(
        self,
        image: ImageLike,
        label: str | None = None,
        *,
        face: int | None = None,
        faces: str | FaceRecipe | None = None,
    ) -> np.ndarray:
        """Grad-CAM: the image at the network's size, uint8 [H, W, 3], bright where the evidence for `label` lies.

        `label` is one of `classes`; None is the most probable one. `face` is the number of a face, as in the rows of
        `predict`; None is the one that training would take. `faces` is as for `predict`.
        Raises FaceattrError for an image that cannot be read, or without that face; and for an exported model, which has no
        gradients.

        >>> model = faceattr.load("outputs/example/checkpoints/best.ckpt")
        >>> model.explain(np.zeros((48, 48, 3), np.uint8), "male").shape
        (32, 32, 3)
        """
        if label is not None and label not in self.classes:
            raise FaceattrError(f"label={label}: no such class. Classes: {listed(self.classes)}")
        spec = self._spec_with(faces)
        reader = SubjectReader([image], spec, self._detector(spec.faces), all_faces=face is not None)
        subjects = [subject for subject in reader if face is None or subject.number == face]
        if not subjects or subjects[0].pixels is None:
            raise FaceattrError(
                subjects[0].reason if subjects else f"face={face}: the image has no face of this number."
            )
        pixels = subjects[0].pixels
        if label is None:
            whole = SubjectReader([pixels], replace(spec, faces=WHOLE_IMAGE))
            (scored,) = self._scored(whole, InputCheck(None))
            assert scored[1] is not None, "pixels are readable"
            label = self.classes[int(scored[1].argmax())]
        return self._backend.explain(pixels, self.classes.index(label))

    def _reader_of_one(self, images: list[ImageLike]) -> SubjectReader:
        """One subject of each image, as in training."""
        return SubjectReader(images, self._spec, self._detector(self._spec.faces), all_faces=False)

    def _spec_with(self, faces: str | FaceRecipe | None) -> InputSpec:
        if isinstance(faces, FaceRecipe):
            return replace(self._spec, faces=faces)
        if faces is None or faces == self._spec.faces.mode:
            return self._spec
        if faces not in MODES:
            raise FaceattrError(f"faces={faces}: choose one of {', '.join(MODES)}; None is as in training.")
        return replace(self._spec, faces=FaceRecipe.from_config(Faces(mode=faces)))

    def _detector(self, recipe: FaceRecipe) -> Detector | None:
        """One for all calls."""
        if recipe.min_score not in self._detectors and (detector := create_detector(recipe)):
            self._detectors[recipe.min_score] = detector
        return self._detectors.get(recipe.min_score) if recipe.active else None

    def _scored(self, reader: SubjectReader, inputs: InputCheck, *, mirror: bool = False) -> list[ScoredSubject]:
        """Each subject, without its pixels, and its probabilities, in order. All go through `inputs`."""
        scored: list[ScoredSubject] = []

        def receive(part: list[ScoredSubject]) -> None:
            scored.extend((replace(subject, pixels=None), scores) for subject, scores in part)

        self._backend.predict(SubjectBatches(inputs.passing(reader), BATCH_SIZE, receive, mirror=mirror))
        return scored


def _as_list(images: ImageLike | Iterable[ImageLike]) -> list[ImageLike]:
    if isinstance(images, np.ndarray) and images.ndim < 4 and images.dtype != object:
        return [images]
    if isinstance(images, str | PathLike | bytes | Image.Image):
        return [images]
    try:
        return list(images)
    except TypeError:
        raise FaceattrError(
            f"{images!r:.80} is no image: give a path, a PIL image, a uint8 array, or several."
        ) from None
