"""Kinds of task: their losses, probabilities and correct predictions. CORN equals the published loss."""

import math

import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from faceattr.errors import FaceattrError
from faceattr.metrics.calibration import tempered
from faceattr.models.task import Task

AGES = Task.from_config(["a", "b", "c", "d"], ordinal=True, loss="corn")
SIGNS = Task.from_config(["Male", "Young", "Smiling"], ordinal=False, multilabel=True, loss="auto")
GENDER = Task.from_config(["woman", "man"], ordinal=False, loss="auto")
KNOWN = torch.tensor([[1.0, 0, 1], [0, math.nan, 0], [math.nan, math.nan, 1]])


def logits_of(task: Task, n: int = 40) -> torch.Tensor:
    return 2 * torch.randn(n, task.num_logits, generator=torch.Generator().manual_seed(0))


def test_losses_corn_equals_the_published_sum_over_conditional_tasks():
    logits, truth = logits_of(AGES), torch.arange(40) % 4
    expected = torch.zeros(40)
    for task in range(3):  # task k: is the class above k, for images whose class is at least k
        inside = truth >= task
        above = (truth > task).float()
        expected += inside * binary_cross_entropy_with_logits(logits[:, task], above, reduction="none")
    assert torch.allclose(AGES.losses(logits, truth), expected, atol=1e-5)


def test_probabilities_corn_are_products_of_steps_and_sum_to_one():
    logits, step = logits_of(AGES), logits_of(AGES).sigmoid()
    probabilities = AGES.probabilities(logits)
    assert torch.allclose(probabilities.sum(1), torch.ones(40), atol=1e-6)
    assert torch.allclose(probabilities[:, 1:].sum(1), step[:, 0], atol=1e-6)
    assert torch.allclose(probabilities[:, 3], step.prod(1), atol=1e-6)
    assert torch.isfinite(AGES.losses(torch.full((1, 3), -200.0), torch.tensor([3]))).all()


@pytest.mark.parametrize("loss", ["bce", "ce", "corn"])
def test_probabilities_with_temperature_equal_calibration(loss):
    task = AGES if loss == "corn" else Task.from_config(["woman", "man"], ordinal=False, loss=loss)
    logits = logits_of(task)
    expected = tempered(task.probabilities(logits).numpy(), 1.7)
    assert torch.allclose(task.probabilities(logits, 1.7), torch.from_numpy(expected), atol=1e-5)


@pytest.mark.parametrize("classes", [["a", "b", "c"], ["young", "old"]], ids=["unordered", "two"])
def test_from_config_corn_requires_ordered_classes(classes):
    with pytest.raises(FaceattrError, match=r"loss=corn needs three or more ordered classes"):
        Task.from_config(classes, ordinal=len(classes) == 2, loss="corn")


def test_from_config_multilabel_has_a_logit_per_attribute_and_bce():
    assert (SIGNS.kind, SIGNS.num_logits, SIGNS.loss) == ("multilabel", 3, "bce")
    assert Task.from_config(["Male"], ordinal=False, multilabel=True, loss="auto").num_logits == 1
    with pytest.raises(FaceattrError, match=r"data\.attributes has loss=bce"):
        Task.from_config(["Male", "Young"], ordinal=False, multilabel=True, loss="ce")


def test_losses_multilabel_are_means_over_known_attributes():
    logits = logits_of(SIGNS, 3)
    each = binary_cross_entropy_with_logits(logits, KNOWN.nan_to_num(), reduction="none")
    expected = torch.stack((each[0].mean(), (each[1, 0] + each[1, 2]) / 2, each[2, 2]))
    assert torch.allclose(SIGNS.losses(logits, KNOWN), expected)
    logits.requires_grad_()
    SIGNS.losses(logits, KNOWN).sum().backward()
    assert torch.equal(logits.grad == 0, KNOWN.isnan())


def test_losses_weights_are_factors_of_classes_and_attributes():
    logits, weights = logits_of(SIGNS, 3), torch.tensor([[1.0, 2, 3], [4, 5, 6]])
    each = binary_cross_entropy_with_logits(logits, KNOWN.nan_to_num(), reduction="none")
    expected = torch.stack(((4 * each[0, 0] + 2 * each[0, 1] + 6 * each[0, 2]) / 3, (each[1, 0] + 3 * each[1, 2]) / 2))
    assert torch.allclose(SIGNS.losses(logits, KNOWN, weights)[:2], expected)
    two, truth = logits_of(GENDER, 4), torch.tensor([0, 1, 1, 0])
    assert torch.allclose(
        GENDER.losses(two, truth, torch.tensor([1.0, 3])), GENDER.losses(two, truth) * torch.tensor([1.0, 3, 3, 1])
    )


def test_correct_and_flatten_labels_ignore_unknown_attributes():
    probabilities = torch.tensor([[0.9, 0.8, 0.1], [0.2, 0.5, 0.7], [0.5, 0.5, 0.9]])
    assert SIGNS.correct(probabilities, KNOWN).tolist() == pytest.approx([1 / 3, 1 / 2, 1])
    scores, truth = SIGNS.flatten_labels(probabilities, KNOWN)
    assert truth.tolist() == [1, 0, 1, 0, 0, 1]
    assert scores[:, 1].tolist() == pytest.approx([0.9, 0.8, 0.1, 0.2, 0.7, 0.9])
    assert torch.allclose(scores.sum(1), torch.ones(6))
    both = GENDER.probabilities(torch.tensor([[2.0], [-2.0]]))
    assert GENDER.correct(both, torch.tensor([1, 1])).tolist() == [1, 0]
    assert GENDER.flatten_labels(both, torch.tensor([1, 1]))[0] is both


@pytest.mark.parametrize("task", [GENDER, AGES, SIGNS, Task.from_config(["a", "b", "c"], ordinal=False, loss="ce")])
def test_class_score_increases_with_the_probability(task):
    logits = logits_of(task).requires_grad_()
    for position in range(len(task.classes)):
        score = task.class_score(logits, torch.full((40,), position))
        (slope,) = torch.autograd.grad(score.sum(), logits)
        with torch.no_grad():
            before, after = (task.probabilities(x)[:, position] for x in (logits, logits + 1e-2 * slope))
        assert (after > before).all()


def test_losses_auto_equals_cross_entropy():
    task = Task.from_config(["a", "b", "c"], ordinal=False, loss="auto")
    logits, truth = logits_of(task), torch.arange(40) % 3
    assert torch.equal(task.losses(logits, truth), cross_entropy(logits, truth, reduction="none"))


@pytest.mark.parametrize(
    ("classes", "multilabel", "clash"),
    [(["high", "smiling"], True, "attribute high"), (["old_low", "old", "young"], False, "class old_low")],
)
def test_from_config_refuses_names_of_interval_bounds(classes, multilabel, clash):
    with pytest.raises(FaceattrError, match=f"The {clash} has the name of a bound"):
        Task.from_config(classes, ordinal=False, loss="auto", multilabel=multilabel)
    assert Task.from_config(["low", "high"], ordinal=False, loss="auto").kind == "binary"
