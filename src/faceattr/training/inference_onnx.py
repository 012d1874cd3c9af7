"""Probabilities from the model.onnx of an exported folder, by ONNX Runtime. No torch here."""

import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from faceattr.errors import FaceattrError
from faceattr.files import sha256_of
from faceattr.training.exported_folder import CONFIG, INPUT, MOST_ONNX_BYTES, ONNX, OUTPUT, checked_size, read_exported
from faceattr.training.prediction_rows import SubjectBatches

LOCATION = b"location"
"""The key of a tensor whose values lie in another file: ONNX Runtime would read that file, whatever it is."""
BEFORE_IT = re.compile(rb"(?:\x0a|\x8a\x80*[\x00\x10\x20\x30\x40\x50\x60\x70])(?:\x08|\x88\x80*\x00)\Z")
"""The two Protobuf integers before that key. Each may be padded to any length; bits above 32 of the first are ignored."""
LONGEST = 24
"""Bytes: the two integers at their longest."""
BLOCK = 2**18
"""Bytes: the part of the file that is searched at once."""
OVERLAP = LONGEST + len(LOCATION)
"""Bytes: the end of the previous block, where a reference may begin."""
LARGE = 20_000_000
"""Bytes. Convolutions of smaller models are laid out anew when they are loaded: a small CNN is a quarter faster then; VGG16 is not,
and would take 0.2 s longer to load."""


class OnnxBackend:
    """The model in an exported folder, as a `Backend`: ONNX Runtime on the CPU. `threads`: 0 is one for each core."""

    explains = False
    data: Mapping[str, Any] = MappingProxyType({})

    def __init__(self, folder: Path, *, threads: int = 0) -> None:
        config, source, file = read_exported(folder), f"ckpt={folder}: {ONNX}", folder / ONNX
        with ThreadPoolExecutor(1) as pool:
            importing = pool.submit(_import_onnxruntime)  # takes as long as the checksum, which is computed meanwhile
            with checked_size(file, MOST_ONNX_BYTES, source) as size:
                if size != config.size or sha256_of(file) != config.sha256:
                    raise FaceattrError(
                        f"{source} is not the file that {CONFIG} describes: damaged, or changed since the export."
                    )
        importing.result()
        self.name, self.classes, self.multilabel = config.name, config.classes, config.multilabel
        self.temperature, self.spec, self.usual_inputs = config.temperature, config.spec, config.usual_inputs
        self._session = create_session(file, source, threads=threads)
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


def _import_onnxruntime() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise FaceattrError("An exported model needs the package onnxruntime: pip install onnxruntime") from error
    return onnxruntime


def create_session(file: Path, source: str, *, threads: int = 0) -> Any:
    """ONNX Runtime's session of a model. Raises FaceattrError: no such model, or one that refers to other files."""
    with checked_size(file, MOST_ONNX_BYTES, source) as size:
        if _names_other_file(file):
            raise FaceattrError(f"{source} refers to other files.")
    onnxruntime = _import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 4  # errors are raised, and so said once
    if size > LARGE:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    try:
        return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime raises many kinds
        reason = str(error).strip().partition("\n")[0][:200]
        raise FaceattrError(f"{source}: ONNX Runtime {onnxruntime.__version__} cannot run it: {reason}") from error


def _names_other_file(file: Path) -> bool:
    """Whether a tensor's values lie in another file; see `LOCATION`. Text in names and metadata is allowed."""
    buffer = bytearray(OVERLAP + BLOCK)
    with file.open("rb") as stream:
        while count := stream.readinto(memoryview(buffer)[OVERLAP:]):
            end = OVERLAP + count
            index = buffer.find(LOCATION, 0, end)
            while index >= 0:
                if BEFORE_IT.search(buffer[max(0, index - LONGEST) : index]):
                    return True
                index = buffer.find(LOCATION, index + 1, end)
            buffer[:OVERLAP] = buffer[end - OVERLAP : end]
    return False
