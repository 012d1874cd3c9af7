"""What computes the answers of a trained classifier: torch for a checkpoint, ONNX Runtime for an exported folder.

No torch here: it is imported with the backend that needs it.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from faceattr.config.checkpoint_path import existing_path
from faceattr.data.decode import InputSpec
from faceattr.data.out_of_distribution import UsualInputs
from faceattr.errors import FaceattrError
from faceattr.training.exported_folder import error_without_torch, is_exported
from faceattr.training.inference_onnx import OnnxBackend
from faceattr.training.prediction_rows import SubjectBatches

if TYPE_CHECKING:
    from faceattr.config.schema import Trainer


class Backend(Protocol):
    """A loaded classifier.

    name: of its run. temperature: its logits are divided by it already. explains: whether it has Grad-CAM.
    data: the group `data` of its run's config; empty where that is not known.
    """

    name: str
    classes: tuple[str, ...]
    multilabel: bool
    temperature: float
    explains: bool
    spec: InputSpec
    usual_inputs: UsualInputs | None
    data: Mapping[str, Any]

    def predict(self, subjects: SubjectBatches) -> None:
        """Runs the network on each batch of `subjects`, and passes the probabilities to `subjects.add`."""

    def explain(self, pixels: np.ndarray, position: int) -> np.ndarray:
        """Grad-CAM of the class at `position` laid over `pixels`, both uint8 [H, W, 3]. Raises FaceattrError: it has none."""


def open_backend(path: Path, trainer: "Trainer | None" = None, *, accelerator: str | None = None) -> Backend:
    """The classifier in a checkpoint or an exported folder.

    `trainer` and `accelerator` say where a checkpoint computes; None is as in training. Raises FaceattrError where they ask for
    what an exported model cannot do, and of a checkpoint where there is no torch.
    """
    path = existing_path(path)
    if is_exported(path):
        device, precision = (
            accelerator or (trainer.accelerator if trainer else "auto"),
            trainer.precision if trainer else "auto",
        )
        if device not in ("auto", "cpu") or precision not in ("auto", "32"):
            raise FaceattrError(
                f"trainer.accelerator={device}, trainer.precision={precision}: an exported model computes on the CPU, in the "
                "precision of its export."
            )
        return OnnxBackend(path)
    try:
        from faceattr.training.inference_torch import TorchBackend
    except ModuleNotFoundError as error:
        raise error_without_torch(path, error.name) from error
    return TorchBackend(path, trainer, accelerator=accelerator)
