"""The exported folder: the names of its files, and how config.json is written, read and checked.

The folder may come from a stranger, so what it says is data: fixed names, bounded sizes, checked values. No torch and no Hydra
here.
"""

import json
import math
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from faceattr import __version__
from faceattr.config.key_annotation import Key, declared_keys
from faceattr.config.schema import Faces, Model
from faceattr.data.decode import InputSpec
from faceattr.data.faces.crop_recipe import FaceRecipe
from faceattr.data.out_of_distribution import UsualInputs
from faceattr.data.pixel_scaling import mean_and_std
from faceattr.errors import FaceattrError
from faceattr.files import sha256_of, write_json
from faceattr.message_text import is_class_name

if TYPE_CHECKING:
    from faceattr.training.lightning_module import Classifier

FORMAT = 1
"""Rises when config.json changes so that older code would read it wrong."""
KEY = "faceattr"
"""Of what is ours in config.json; timm's keys stand beside it."""
CONFIG, ONNX, WEIGHTS = "config.json", "model.onnx", "model.safetensors"
INPUT, OUTPUT = "images", "probabilities"
MOST_CONFIG_BYTES, MOST_ONNX_BYTES = 1_000_000, 2**31
"""The second is the limit of ONNX's file format."""


@dataclass(frozen=True)
class ExportedModel:
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


def error_without_torch(path: Path, missing: str | None) -> FaceattrError:
    """The error for a path that is no exported folder, where `missing`, a package that a checkpoint needs, is not installed."""
    kind = f"a folder without {CONFIG}" if path.is_dir() else "a file"
    return FaceattrError(
        f"ckpt={path}: this is {kind}, so no exported model; and a checkpoint needs {missing}, which is not installed here.\n"
        "Give the folder that `export.py` wrote, or install faceattr with all that it depends on."
    )


def read_exported(folder: Path) -> ExportedModel:
    """The description of the folder. Raises FaceattrError: damaged, of a later format, or with values out of their bounds."""
    source = f"ckpt={folder}: {CONFIG}"
    with checked_size(folder / CONFIG, MOST_CONFIG_BYTES, source):
        content = (folder / CONFIG).read_bytes()
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
    return ExportedModel(
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
    node, keys = values.group("input"), declared_keys(Model)
    height, width = (int(node.number(name, keys["image_size"].key)) for name in ("height", "width"))
    interpolation, resize = (node.text(name, choices=keys[name].key.choices) for name in ("interpolation", "resize"))
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
        node, keys = self.group("faces"), declared_keys(Faces)
        checked: dict[str, Any] = {
            name: node.text(name, choices=key.choices) if key.choices else node.number(name, key)
            for name, (_, _, key) in keys.items()
            if name != "weights"
        }
        recipe = FaceRecipe.from_config(Faces(**checked))
        if node._node.get("detector") != recipe.detector:
            raise node._refuse("detector")
        return recipe


@contextmanager
def checked_size(file: Path, most: int, source: str) -> Iterator[int]:
    """Gives the size of a regular file. Raises FaceattrError: no such file, above `most` bytes, or the block cannot read it."""
    try:
        status = file.stat()
        if not stat.S_ISREG(status.st_mode) or status.st_size > most:
            raise FaceattrError(f"{source} is no file, or larger than {most:,} bytes.")
        yield status.st_size
    except OSError as error:
        raise FaceattrError(f"{source} cannot be read: {error.strerror or error}") from error


def faces_keys(folder: Path) -> dict[str, Any]:
    """The recipe as keys of the group `faces`."""
    recipe = asdict(read_exported(folder).spec.faces)
    return {name: value for name, value in recipe.items() if name != "detector"}


def describe_export(model: "Classifier", description: Mapping[str, Any], precision: str) -> dict[str, Any]:
    """What is ours in config.json, without `files`. `precision`: of model.onnx, `float32`, `float16` (its weights) or `int8`."""
    config, spec, task = description["config"], model.spec, model.task
    mean, std = (values.tolist() for values in mean_and_std(spec.scaling))
    size = {"height": spec.height, "width": spec.width, "interpolation": spec.interpolation, "resize": spec.resize}
    return {
        "format": FORMAT,
        "version": __version__,
        "name": config["name"],
        "classes": list(task.classes),
        "kind": task.kind,
        "loss": task.loss,
        "temperature": model.temperature,
        "input": size | {"mean": mean, "std": std},
        "faces": asdict(spec.faces),
        "model": {key: value for key, value in config["model"].items() if key != "weights"},
        "precision": precision,
        "fingerprint": description["fingerprint"],
        "inputs": description.get("inputs"),
    }


def write_config(
    folder: Path, description: Mapping[str, Any], timm_keys: Mapping[str, Any], files: tuple[str, ...]
) -> None:
    """config.json, with size and checksum of the other `files`."""
    sums = {name: {"bytes": (folder / name).stat().st_size, "sha256": sha256_of(folder / name)} for name in files}
    long_values = {"inputs": description.get("inputs")}  # 1,700 numbers
    short_values = {key: value for key, value in description.items() if key not in long_values}
    write_json(folder / CONFIG, {**timm_keys, KEY: {**short_values, "files": sums, **long_values}})
