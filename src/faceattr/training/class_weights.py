"""Factors of the training loss for classes of unequal size, and for attributes that are to count more."""

import numpy as np
import torch

from faceattr.config.schema import Data
from faceattr.errors import FaceattrError
from faceattr.message_text import listed
from faceattr.models.task import Task


def check_class_weights(settings: Data, task: Task) -> None:
    """Raises FaceattrError where `data.balance` or `data.attribute_weights` do not fit this kind of task."""
    weights = settings.attribute_weights or {}
    if task.multilabel and settings.balance == "sampler":
        raise FaceattrError("data.balance=sampler draws classes; data.attributes has none. Use data.balance=loss.")
    if weights and not task.multilabel:
        raise FaceattrError("data.attribute_weights needs data.attributes.")
    if wrong := [name for name, factor in weights.items() if name not in task.classes or factor <= 0]:
        raise FaceattrError(f"data.attribute_weights.{wrong[0]}: a factor above 0 for one of {listed(task.classes)}.")


def class_weights(truth: np.ndarray, task: Task, settings: Data) -> torch.Tensor | None:
    """Factors as `Task.losses` takes them, from the `truth` of the training images; None: every class counts equally.

    With `data.balance=loss` they are inversely proportional to the frequency of each class (of each attribute's presence and
    absence), with mean 1 over these images. They are multiplied by `data.attribute_weights`.
    """
    attribute_weights = settings.attribute_weights or {}
    factors = torch.tensor([float(attribute_weights.get(name, 1)) for name in task.classes])
    if settings.balance != "loss":
        return factors.expand(2, -1) if attribute_weights else None
    options = [0, 1] if task.multilabel else range(len(task.classes))
    counts = torch.stack([(torch.from_numpy(truth) == option).sum(0) for option in options])
    balanced = counts.sum(0) / (len(options) * counts.clamp_min(1).float())
    return balanced * factors if task.multilabel else balanced
