"""The kind of task: classes, ordered classes or attributes; how logits become probabilities, and which answers are correct."""

from dataclasses import dataclass

import torch
from torch import Tensor

from faceattr.models import losses


@dataclass(frozen=True)
class Task:
    """`kind`: binary, multiclass, ordinal (multiclass whose classes are ordered), or multilabel (`classes` are attributes that
    an image has or has not, each with a logit of its own); `loss`: bce, ce, one_vs_rest or corn.

    The truth is class positions [N], or for multilabel 1, 0 and nan (not known) [N, classes].
    The positive class of a binary task is the last one; metrics name it.
    """

    kind: str
    classes: tuple[str, ...]
    loss: str

    @classmethod
    def from_config(cls, classes: list[str], *, ordinal: bool, loss: str, multilabel: bool = False) -> "Task":
        """`loss` as in the config, where `auto` chooses by the kind of task."""
        of_classes = "binary" if len(classes) == 2 else "ordinal" if ordinal else "multiclass"
        kind = "multilabel" if multilabel else of_classes
        return cls(kind, tuple(classes), losses.choose_loss(loss, kind, classes))

    @property
    def multilabel(self) -> bool:
        return self.kind == "multilabel"

    @property
    def num_logits(self) -> int:
        """Logits that the network gives for an image."""
        return losses.num_logits(self.loss, self.kind, len(self.classes))

    def losses(self, logits: Tensor, targets: Tensor, weights: Tensor | None = None) -> Tensor:
        """Loss of each image [B]; see `losses.image_losses`."""
        return losses.image_losses(self.loss, self.kind, logits, targets, weights)

    def class_logits(self, logits: Tensor) -> Tensor:
        """Float32 [B, classes]; see `losses.class_logits`."""
        return losses.class_logits(self.loss, self.kind, logits)

    def probabilities(self, logits: Tensor, temperature: float = 1.0) -> Tensor:
        """Float32 [B, classes]. Each row sums to 1, except for multilabel and one_vs_rest, where each class has its own sigmoid."""
        scores = self.class_logits(logits) / temperature
        return scores.sigmoid() if self.multilabel or self.loss == "one_vs_rest" else scores.softmax(1)

    def class_score(self, logits: Tensor, classes: Tensor) -> Tensor:
        """Score [B] of class `classes` [B] (or of having that attribute) in each image: it rises with the probability."""
        return self.class_logits(logits).gather(1, classes[:, None])[:, 0]

    def correct(self, probabilities: Tensor, truth: Tensor) -> Tensor:
        """Float64 [N]: 1 where the most probable class is the true one, else 0. Multilabel: the share of an image's known
        attributes that are predicted correctly (the more probable of having it or not)."""
        if not self.multilabel:
            return (probabilities.argmax(1) == truth).double()
        known = truth.isfinite()
        return (((probabilities > 0.5) == (truth > 0.5)) & known).sum(1).double() / known.sum(1)

    def flatten_labels(self, probabilities: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
        """Probabilities [M, k] and true positions [M], a row per decision: the images themselves. Multilabel: every known
        attribute of every image, with the probabilities of not having and of having it."""
        if not self.multilabel:
            return probabilities, truth
        known = truth.isfinite()
        positive = probabilities[known]
        return torch.stack((1 - positive, positive), 1), truth[known].long()
