"""The exported folder: what its config.json holds, how it is read and checked, and how ONNX Runtime answers from it.

The folder may come from a stranger, so what it says is data: fixed names, bounded sizes, checked values, and a model that refers
to no other file. No torch and no Hydra here.
"""

import hashlib
import json
import math
import re
import stat
from collections.abc import Mapping
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from faceattr.config.key import Key, parameters
from faceattr.config.schema import Faces, Model
from faceattr.data.decode import InputSpec
from faceattr.data.faces.recipe import FaceRecipe
from faceattr.data.unusual_inputs import UsualInputs
from faceattr.errors import FaceattrError
from faceattr.training.prediction_rows import SubjectBatches
from faceattr.wording import is_class_name

FORMAT = 1
"""Rises when config.json changes so that older code would read it wrong."""
KEY = "faceattr"
"""Of what is ours in config.json; timm's keys stand beside it."""
CONFIG, ONNX, WEIGHTS = "config.json", "model.onnx", "model.safetensors"
INPUT, OUTPUT = "images", "probabilities"
MOST_CONFIG_BYTES, MOST_ONNX_BYTES = 1_000_000, 2**31
"""The second is the limit of ONNX's file format."""
LOCATION, BEFORE_IT = b"location", re.compile(rb"(?:\x0a|\x8a\x80*\x00)(?:\x08|\x88\x80*\x00)\Z")
"""A tensor whose values lie in another file, as protobuf writes that (with any length of its two integers): ONNX Runtime would
read the file, whatever it is."""
LARGE = 20_000_000
"""Bytes. Convolutions of smaller models are laid out anew when they are loaded: a small CNN is a quarter faster then; VGG16 is not,
and would take 0.2 s longer to load."""


@dataclass(frozen=True)
class Exported:
    """An exported model, as its config.json describes it. `sha256` and `size` (bytes) are those of model.onnx."""

    name: str
    classes: tuple[str, ...]
    multilabel: bool
    temperature: float
    spec: InputSpec
    usual_inputs: UsualInputs | None
    sha256: str
    size: int


def is_exported(path: Path) -> bool:
    """Whether this is a folder that `export` wrote, or says so."""
    return path.is_dir() and (path / CONFIG).exists()


def read_exported(folder: Path) -> Exported:
    """The description of the folder. Raises FaceattrError: damaged, of a later format, or with values that cannot be."""
    source = f"ckpt={folder}: {CONFIG}"
    content = _read(folder / CONFIG, MOST_CONFIG_BYTES, source)
    try:
        ours = json.loads(content)[KEY]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise FaceattrError(f"{source} is damaged, or was not written by faceattr export.") from error
    if not isinstance(ours, dict) or ours.get("format") != FORMAT:
        stored = ours.get("format") if isinstance(ours, dict) else None
        raise FaceattrError(
            f"{source} has format {str(stored)[:20]}; this version reads format {FORMAT}. Export again."
        )
    values = _Values(ours, source)
    kind = values.text("kind", choices=("binary", "multiclass", "ordinal", "multilabel"))
    file = values.group("files").group(ONNX)
    return Exported(
        name=values.text("name"),
        classes=values.classes(),
        multilabel=kind == "multilabel",
        temperature=values.number("temperature", Key(above=0)),
        spec=_spec(values),
        usual_inputs=UsualInputs.from_stored(ours.get("inputs"), source),
        sha256=file.text("sha256"),
        size=int(file.number("bytes", Key(minimum=1, maximum=MOST_ONNX_BYTES))),
    )


def _spec(values: "_Values") -> InputSpec:
    given, keys = values.group("input"), parameters(Model)
    height, width = (int(given.number(name, keys["image_size"].key)) for name in ("height", "width"))
    interpolation, resize = (given.text(name, choices=keys[name].key.choices) for name in ("interpolation", "resize"))
    return InputSpec(height, width, interpolation, "unit", values.faces(), resize)


class _Values:
    """The values of one level of config.json, each checked when it is asked for."""

    def __init__(self, node: Mapping[str, Any], source: str) -> None:
        self._node, self._source = node, source

    def _refuse(self, name: str) -> FaceattrError:
        return FaceattrError(f"{self._source}: its {name} is missing or damaged: {str(self._node.get(name))[:80]!r}")

    def group(self, name: str) -> "_Values":
        if not isinstance(self._node.get(name), dict):
            raise self._refuse(name)
        return _Values(self._node[name], self._source)

    def text(self, name: str, *, choices: tuple[str, ...] = ()) -> str:
        value = self._node.get(name)
        if not isinstance(value, str) or (choices and value not in choices) or not (0 < len(value) <= 200):
            raise self._refuse(name)
        if not value.isprintable():
            raise self._refuse(name)
        return value

    def number(self, name: str, key: Key) -> float:
        value = self._node.get(name)
        if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
            raise self._refuse(name)
        if not key.admits(value):
            raise self._refuse(name)
        return value

    def classes(self) -> tuple[str, ...]:
        names = self._node.get("classes")
        if not isinstance(names, list) or not names or not all(isinstance(n, str) and is_class_name(n) for n in names):
            raise self._refuse("classes")
        if len(set(names)) < len(names):
            raise self._refuse("classes")
        return tuple(names)

    def faces(self) -> FaceRecipe:
        """The recipe. Refused where its faces would be found by another detector than ours."""
        given, keys = self.group("faces"), parameters(Faces)
        checked: dict[str, Any] = {
            name: given.text(name, choices=key.choices) if key.choices else given.number(name, key)
            for name, (_, _, key) in keys.items()
            if name != "weights"
        }
        recipe = FaceRecipe.from_config(Faces(**checked))
        if given._node.get("detector") != recipe.detector:
            raise given._refuse("detector")
        return recipe


def _read(file: Path, most: int, source: str) -> bytes:
    """The content of a regular file of at most `most` bytes."""
    try:
        status = file.stat()
        if not stat.S_ISREG(status.st_mode) or status.st_size > most:
            raise FaceattrError(f"{source} is no file, or larger than {most:,} bytes.")
        return file.read_bytes()
    except OSError as error:
        raise FaceattrError(f"{source} cannot be read: {error.strerror or error}") from error


def faces_keys(folder: Path) -> dict[str, Any]:
    """The recipe as keys of the group `faces`."""
    recipe = asdict(read_exported(folder).spec.faces)
    return {name: value for name, value in recipe.items() if name != "detector"}


class OnnxBackend:
    """The model in an exported folder, as a `Backend`: ONNX Runtime on the CPU. `threads`: 0 is one for each core."""

    explains = False
    data: Mapping[str, Any] = MappingProxyType({})

    def __init__(self, folder: Path, *, threads: int = 0) -> None:
        config, source = read_exported(folder), f"ckpt={folder}: {ONNX}"
        content = _read(folder / ONNX, MOST_ONNX_BYTES, source)
        if len(content) != config.size or hashlib.sha256(content).hexdigest() != config.sha256:
            raise FaceattrError(
                f"{source} is not the file that {CONFIG} describes: damaged, or changed since the export."
            )
        self.name, self.classes, self.multilabel = config.name, config.classes, config.multilabel
        self.temperature, self.spec, self.usual_inputs = config.temperature, config.spec, config.usual_inputs
        self._session = create_session(folder / ONNX, content, source, threads=threads)
        self._check(source)

    def _check(self, source: str) -> None:
        """The model takes the images and gives the probabilities that config.json says."""
        sides = [
            (side.name, side.type, side.shape[1:])
            for side in (*self._session.get_inputs(), *self._session.get_outputs())
        ]
        size = [self.spec.height, self.spec.width, 3]
        if sides != [(INPUT, "tensor(uint8)", size), (OUTPUT, "tensor(float)", [len(self.classes)])]:
            raise FaceattrError(f"{source} does not fit {CONFIG}: it has {str(sides)[:200]}")

    def probabilities(self, pixels: np.ndarray) -> np.ndarray:
        """Float32 [N, classes] of images, uint8 [N, height, width, 3]."""
        scores: np.ndarray = self._session.run([OUTPUT], {INPUT: pixels})[0]
        return scores

    def predict(self, subjects: SubjectBatches) -> None:
        with closing(subjects.batches()) as batches:
            for pixels in batches:
                subjects.add(self.probabilities(pixels))
        subjects.finish()

    def explain(self, pixels: np.ndarray, position: int) -> np.ndarray:
        raise FaceattrError("An exported model has no gradients: Grad-CAM needs the run's checkpoint.")


def create_session(file: Path, content: bytes, source: str, *, threads: int = 0) -> Any:
    """ONNX Runtime's session of a model. Raises FaceattrError: no such model, or one that refers to other files.

    `content` is that of `file`, which ONNX Runtime reads again: it takes a third of the time that it takes for the bytes.
    """
    if _names_other_file(content):
        raise FaceattrError(f"{source} refers to other files.")
    try:
        import onnxruntime
    except ImportError as error:
        raise FaceattrError("An exported model needs the package onnxruntime: pip install onnxruntime") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 4  # errors are raised, and so said once
    if len(content) > LARGE:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    try:
        return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime raises many kinds
        reason = str(error).strip().partition("\n")[0][:200]
        raise FaceattrError(f"{source}: ONNX Runtime {onnxruntime.__version__} cannot run it: {reason}") from error


def _names_other_file(content: bytes) -> bool:
    """Whether a tensor's values lie in another file; see `LOCATION`. Text in names and metadata is allowed."""
    place = content.find(LOCATION)
    while place >= 0:
        if BEFORE_IT.search(content[max(0, place - 24) : place]):
            return True
        place = content.find(LOCATION, place + 1)
    return False
