"""The kind of task (classes, ordered classes or attributes): its logits, probabilities and correct predictions."""

from dataclasses import dataclass

import torch
from torch import Tensor

from faceattr.errors import FaceattrError
from faceattr.models import loss_choices


def _check_names(classes: list[str], multilabel: bool) -> None:
    """Of `accuracy` the bounds are `accuracy_low` and `accuracy_high`: the latter must not be a metric of an attribute `high`."""
    bounds = {f"{name}_{side}" for name in classes for side in ("low", "high")} | (
        {"low", "high"} if multilabel else set()
    )
    if clash := next((name for name in classes if name in bounds), None):
        kind = "attribute" if multilabel else "class"
        raise FaceattrError(
            f"The {kind} {clash} has the name of a bound of an interval: give it another name, such as {clash}_{kind}."
        )


@dataclass(frozen=True)
class Task:
    """kind: binary, multiclass, ordinal (ordered classes) or multilabel (`classes` are attributes, each with its own logit).
    loss: bce, ce, one_vs_rest or corn.

    Targets are class indices [N]; multilabel: 1, 0 or nan (not known) [N, classes]. The positive class of a binary task is
    the last one.
    """

    kind: str
    classes: tuple[str, ...]
    loss: str

    @classmethod
    def from_config(cls, classes: list[str], *, ordinal: bool, loss: str, multilabel: bool = False) -> "Task":
        """The task for the config key `loss`; `auto` is chosen by the kind of task.

        Raises FaceattrError: a name whose metrics would be taken for the bounds of another's interval.
        """
        _check_names(classes, multilabel)
        class_kind = "binary" if len(classes) == 2 else "ordinal" if ordinal else "multiclass"
        kind = "multilabel" if multilabel else class_kind
        return cls(kind, tuple(classes), loss_choices.choose_loss(loss, kind, classes))

    @property
    def multilabel(self) -> bool:
        return self.kind == "multilabel"

    @property
    def num_logits(self) -> int:
        """Number of logits that the network gives for an image."""
        return loss_choices.num_logits(self.loss, self.kind, len(self.classes))

    def losses(self, logits: Tensor, targets: Tensor, weights: Tensor | None = None) -> Tensor:
        """The loss of each image [B]; see `loss_choices.image_losses`."""
        return loss_choices.image_losses(self.loss, self.kind, logits, targets, weights)

    def class_logits(self, logits: Tensor) -> Tensor:
        """Float32 [B, classes]; see `loss_choices.class_logits`."""
        return loss_choices.class_logits(self.loss, self.kind, logits)

    def probabilities(self, logits: Tensor, temperature: float = 1.0) -> Tensor:
        """Float32 [B, classes]. Rows sum to 1, except with multilabel and one_vs_rest (sigmoids)."""
        scores = self.class_logits(logits) / temperature
        return scores.sigmoid() if self.multilabel or self.loss == "one_vs_rest" else scores.softmax(1)

    def class_score(self, logits: Tensor, classes: Tensor) -> Tensor:
        """The score [B] of the class or attribute `classes` [B] of each image. It increases with the probability."""
        return self.class_logits(logits).gather(1, classes[:, None])[:, 0]

    def correct(self, probabilities: Tensor, truth: Tensor) -> Tensor:
        """Float64 [N]: 1 if the most probable class is the true one, else 0. Multilabel: the share of the known attributes
        that are predicted correctly at the threshold 0.5."""
        if not self.multilabel:
            return (probabilities.argmax(1) == truth).double()
        known = truth.isfinite()
        return (((probabilities > 0.5) == (truth > 0.5)) & known).sum(1).double() / known.sum(1)

    def flatten_labels(self, probabilities: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
        """Probabilities [M, k] and true indices [M] with a row per label. Multilabel: a row for each known attribute of each
        image, with the probabilities that it is absent and present. Otherwise: unchanged."""
        if not self.multilabel:
            return probabilities, truth
        known = truth.isfinite()
        positive = probabilities[known]
        return torch.stack((1 - positive, positive), 1), truth[known].long()
