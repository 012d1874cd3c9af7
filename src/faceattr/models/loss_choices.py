"""The losses of the key `loss`: the tasks that they fit, their number of logits, and the loss of each image, in float32.

bce: one logit for two classes; one logit per attribute. ce: one logit per class, softmax. one_vs_rest: one logit per class,
sigmoids. corn: for ordered classes, one logit per step from a class to the next (CORN, Shi, Cao and Raschka 2021).
"""

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, logsigmoid, one_hot, pad

from faceattr.errors import FaceattrError
from faceattr.message_text import listed


def choose_loss(loss: str, kind: str, classes: list[str]) -> str:
    """The loss for a kind of task. `auto` is bce for two classes and for attributes, else ce.

    Raises FaceattrError: a loss that does not fit the task.
    """
    if kind == "multilabel" and loss not in ("auto", "bce"):
        raise FaceattrError(f"loss={loss} is for classes; data.attributes has loss=bce, a logit for each attribute.")
    if loss == "bce" and kind not in ("binary", "multilabel"):
        raise FaceattrError(f"loss=bce needs two classes; there are {len(classes)}: {listed(classes)}. Use loss=ce.")
    if loss == "corn" and kind != "ordinal":
        raise FaceattrError(f"loss=corn needs three or more ordered classes; these are not: {listed(classes)}.")
    if loss == "auto":
        return "bce" if kind in ("binary", "multilabel") else "ce"
    return loss


def num_logits(loss: str, kind: str, num_classes: int) -> int:
    """Number of logits of an image."""
    one_less = (loss == "bce" and kind == "binary") or loss == "corn"
    return num_classes - one_less


def class_logits(loss: str, kind: str, logits: Tensor) -> Tensor:
    """One logit per class, float32 [B, classes], from logits [B, num_logits].

    Their softmax is the probabilities (multilabel, one_vs_rest: their sigmoids). A higher logit is a higher probability.
    corn: logit k is for P(class > k | class ≥ k). The negative log-probability of the true class is the loss of the paper,
    except for its normalisation over the batch.
    """
    logits = logits.float()
    if loss == "corn":
        above = logsigmoid(logits).cumsum(1)
        return pad(above, (1, 0)) + pad(logsigmoid(-logits), (0, 1))
    if loss == "bce" and kind == "binary":
        return torch.cat((-logits, logits), 1) / 2
    return logits


def image_losses(loss: str, kind: str, logits: Tensor, targets: Tensor, weights: Tensor | None = None) -> Tensor:
    """The loss of each image [B] from logits [B, num_logits] and class indices [B].

    Multilabel: targets [B, attributes] are 1, 0 or nan (not known). The loss is the mean over the known attributes.
    weights: a factor per class [classes]; multilabel: factors for absent and present attributes [2, attributes].
    """
    if kind == "multilabel":
        return _attribute_losses(logits.float(), targets, weights)
    losses = _class_losses(loss, kind, logits.float(), targets)
    return losses if weights is None else losses * weights[targets]


def _class_losses(loss: str, kind: str, logits: Tensor, targets: Tensor) -> Tensor:
    if loss == "bce":
        return binary_cross_entropy_with_logits(logits[:, 0], targets.float(), reduction="none")
    if loss == "one_vs_rest":
        labels = one_hot(targets, logits.shape[1]).float()
        return binary_cross_entropy_with_logits(logits, labels, reduction="none").mean(1)
    return cross_entropy(class_logits(loss, kind, logits), targets, reduction="none")


def _attribute_losses(logits: Tensor, targets: Tensor, weights: Tensor | None) -> Tensor:
    known = targets.isfinite()
    truth = targets.where(known, 0)
    losses = binary_cross_entropy_with_logits(logits, truth, reduction="none") * known
    if weights is not None:
        losses = losses * torch.where(truth > 0.5, weights[1], weights[0])
    return losses.sum(1) / known.sum(1)
