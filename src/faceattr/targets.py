"""Kinds of target, decided in one place: how many logits, which loss, how logits become probabilities."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, one_hot

from faceattr.errors import FaceattrError


@dataclass(frozen=True)
class Target:
    """`kind`: binary, multiclass, or ordinal (multiclass whose classes are ordered); `loss`: bce, ce or one_vs_rest.

    The positive class of a binary target is the last one; metrics name it.
    """

    kind: str
    classes: tuple[str, ...]
    loss: str

    @classmethod
    def of(cls, classes: list[str], *, ordinal: bool, loss: str) -> "Target":
        """`loss` as in the config, where `auto` is one logit for two classes and one per class for more."""
        if loss == "bce" and len(classes) != 2:
            raise FaceattrError(
                f"loss=bce needs two classes; there are {len(classes)}: {', '.join(classes)}. Use loss=ce."
            )
        kind = "binary" if len(classes) == 2 else "ordinal" if ordinal else "multiclass"
        return cls(kind, tuple(classes), ("bce" if kind == "binary" else "ce") if loss == "auto" else loss)

    @property
    def outputs(self) -> int:
        """Number of logits."""
        return 1 if self.loss == "bce" else len(self.classes)

    def losses(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Loss of each image [B] from logits [B, outputs] and class positions [B]; computed in float32."""
        logits = logits.float()
        if self.loss == "bce":
            return binary_cross_entropy_with_logits(logits[:, 0], targets.float(), reduction="none")
        if self.loss == "one_vs_rest":
            each = one_hot(targets, logits.shape[1]).float()
            return binary_cross_entropy_with_logits(logits, each, reduction="none").mean(1)
        return cross_entropy(logits, targets, reduction="none")

    def probabilities(self, logits: Tensor) -> Tensor:
        """Float32 [B, classes]; each row sums to 1, but for one_vs_rest, where each class has a sigmoid of its own."""
        logits = logits.float()
        if self.loss == "bce":
            positive = logits[:, 0].sigmoid()
            return torch.stack((1 - positive, positive), 1)
        return logits.sigmoid() if self.loss == "one_vs_rest" else logits.softmax(1)
