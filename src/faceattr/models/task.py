"""Kinds of task, decided in one place: how many logits, which loss, how logits become probabilities, what is right."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, logsigmoid, one_hot, pad

from faceattr.errors import FaceattrError


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
        """`loss` as in the config, where `auto` is one logit for two classes and for an attribute, else one per class."""
        if multilabel and loss not in ("auto", "bce"):
            raise FaceattrError(
                f"loss={loss} is for classes; data.attributes has loss=bce, a logit for each attribute."
            )
        if multilabel:
            return cls("multilabel", tuple(classes), "bce")
        if loss == "bce" and len(classes) != 2:
            raise FaceattrError(
                f"loss=bce needs two classes; there are {len(classes)}: {', '.join(classes)}. Use loss=ce."
            )
        kind = "binary" if len(classes) == 2 else "ordinal" if ordinal else "multiclass"
        if loss == "corn" and kind != "ordinal":
            raise FaceattrError(f"loss=corn needs three or more ordered classes; these are not: {', '.join(classes)}.")
        return cls(kind, tuple(classes), ("bce" if kind == "binary" else "ce") if loss == "auto" else loss)

    @property
    def multilabel(self) -> bool:
        return self.kind == "multilabel"

    @property
    def num_logits(self) -> int:
        """Number of logits."""
        fewer = {"binary": self.loss == "bce", "ordinal": self.loss == "corn"}
        return len(self.classes) - fewer.get(self.kind, False)

    def losses(self, logits: Tensor, targets: Tensor, weights: Tensor | None = None) -> Tensor:
        """Loss of each image [B] from logits [B, outputs] and the truth; computed in float32.

        `weights` are factors for each class [classes], or for not having and for having each attribute [2, classes].
        """
        if self.multilabel:
            known = targets.isfinite()
            truth = targets.where(known, 0)
            each = binary_cross_entropy_with_logits(logits.float(), truth, reduction="none") * known
            each = each if weights is None else each * torch.where(truth > 0.5, weights[1], weights[0])
            return each.sum(1) / known.sum(1)
        losses = self._class_losses(logits.float(), targets)
        return losses if weights is None else losses * weights[targets]

    def _class_losses(self, logits: Tensor, targets: Tensor) -> Tensor:
        if self.loss == "bce":
            return binary_cross_entropy_with_logits(logits[:, 0], targets.float(), reduction="none")
        if self.loss == "one_vs_rest":
            each = one_hot(targets, logits.shape[1]).float()
            return binary_cross_entropy_with_logits(logits, each, reduction="none").mean(1)
        return cross_entropy(self.class_logits(logits), targets, reduction="none")

    def class_logits(self, logits: Tensor) -> Tensor:
        """Float32 [B, classes] whose softmax (multilabel, one_vs_rest: whose sigmoids) are the probabilities; where the one of a
        class rises, it becomes more probable.

        CORN (Shi, Cao and Raschka 2021): logit k says whether the class is above k, given that it is not below; the loss, the
        negative logarithm of the true class's probability, is theirs up to a factor of the batch.
        """
        logits = logits.float()
        if self.loss == "corn":
            above = logsigmoid(logits).cumsum(1)
            return pad(above, (1, 0)) + pad(logsigmoid(-logits), (0, 1))
        if self.num_logits == 1 and not self.multilabel:
            return torch.cat((-logits, logits), 1) / 2
        return logits

    def probabilities(self, logits: Tensor, temperature: float = 1.0) -> Tensor:
        """Float32 [B, classes]; each row sums to 1, but for multilabel and one_vs_rest, where each has a sigmoid of its own."""
        scores = self.class_logits(logits) / temperature
        return scores.sigmoid() if self.multilabel or self.loss == "one_vs_rest" else scores.softmax(1)

    def class_score(self, logits: Tensor, classes: Tensor) -> Tensor:
        """What speaks for class `classes` [B] (or for having that attribute) in each image [B]: rises with its probability."""
        return self.class_logits(logits).gather(1, classes[:, None])[:, 0]

    def correct(self, probabilities: Tensor, truth: Tensor) -> Tensor:
        """Float64 [N]: 1 where the most probable class is the true one, else 0; multilabel: the share of an image's known
        attributes that are told right (the more probable of having it or not)."""
        if not self.multilabel:
            return (probabilities.argmax(1) == truth).double()
        known = truth.isfinite()
        return (((probabilities > 0.5) == (truth > 0.5)) & known).sum(1).double() / known.sum(1)

    def flatten_labels(self, probabilities: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
        """Probabilities [M, k] and true positions [M] of what was decided one by one: the images themselves; multilabel: every
        known attribute of every image, to have it not or to have it."""
        if not self.multilabel:
            return probabilities, truth
        known = truth.isfinite()
        positive = probabilities[known]
        return torch.stack((1 - positive, positive), 1), truth[known].long()
