"""Metrics: the values that others compute, None where the images cannot say, and an honest interval."""

import json
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from faceattr.metrics.intervals import wilson
from faceattr.metrics.registry import confusion, describe, describe_published, evaluate, published_map
from faceattr.models.task import Task

BINARY = Task.from_config(["woman", "man"], ordinal=False, loss="auto")
AGES = Task.from_config(["young", "middle", "old"], ordinal=True, loss="auto")
KINDS = Task.from_config(["cat", "dog", "horse", "cow"], ordinal=False, loss="auto")


def scored(task: Task, n: int = 300, seed: int = 0, ties: bool = False) -> tuple[Tensor, Tensor]:
    """Probabilities of a model that is right now and then, and the truth with unequal classes."""
    rng = np.random.default_rng(seed)
    k = len(task.classes)
    truth = rng.choice(k, n, p=np.arange(1, k + 1) / np.arange(1, k + 1).sum())
    logits = rng.normal(size=(n, k)) + 1.2 * np.eye(k)[truth]
    if ties:
        logits = logits.round()
    return torch.from_numpy(logits).float().softmax(1), torch.from_numpy(truth)


@pytest.mark.parametrize("ties", [False, True], ids=["distinct", "ties"])
def test_binary_figures_are_scikit_learns(ties):
    sk = pytest.importorskip("sklearn.metrics")
    probabilities, truth = scored(BINARY, ties=ties)
    found, predicted, positive = evaluate(BINARY, probabilities, truth), probabilities.argmax(1), probabilities[:, 1]
    assert found["n"] == 300
    assert found["accuracy"] == pytest.approx(sk.accuracy_score(truth, predicted))
    assert (found["accuracy_low"], found["accuracy_high"]) == wilson(found["accuracy"], 300)
    assert found["balanced_accuracy"] == pytest.approx(sk.balanced_accuracy_score(truth, predicted))
    assert found["average_precision"] == pytest.approx(sk.average_precision_score(truth, positive))
    assert found["auroc"] == pytest.approx(sk.roc_auc_score(truth, positive))
    assert found["f1"] == pytest.approx(sk.f1_score(truth, predicted))
    assert found["log_loss"] == pytest.approx(sk.log_loss(truth, probabilities), rel=1e-5)
    recalls = sk.recall_score(truth, predicted, average=None)
    assert [found["recall_woman"], found["recall_man"]] == pytest.approx(list(recalls))
    assert found["n_woman"] + found["n_man"] == 300
    assert found["positive_class"] == "man"


@pytest.mark.parametrize("task", [AGES, KINDS], ids=["ordinal", "multiclass"])
def test_figures_of_more_classes_are_scikit_learns_macro_averages(task):
    sk = pytest.importorskip("sklearn.metrics")
    probabilities, truth = scored(task)
    found, predicted = evaluate(task, probabilities, truth), probabilities.argmax(1)
    each = np.eye(len(task.classes))[truth]
    assert found["accuracy"] == pytest.approx(sk.accuracy_score(truth, predicted))
    assert found["balanced_accuracy"] == pytest.approx(sk.balanced_accuracy_score(truth, predicted))
    assert found["average_precision"] == pytest.approx(sk.average_precision_score(each, probabilities, average="macro"))
    assert found["auroc"] == pytest.approx(sk.roc_auc_score(each, probabilities, average="macro"))
    assert found["f1"] == pytest.approx(sk.f1_score(truth, predicted, average="macro"))
    recalls = sk.recall_score(truth, predicted, average=None)
    assert [found[f"recall_{name}"] for name in task.classes] == pytest.approx(list(recalls))
    assert (confusion(task, probabilities, truth).numpy() == sk.confusion_matrix(truth, predicted)).all()
    assert "positive_class" not in found


def test_ordered_figures_are_for_ordered_classes_only():
    sk = pytest.importorskip("sklearn.metrics")
    probabilities, truth = scored(AGES)
    found, predicted = evaluate(AGES, probabilities, truth), probabilities.argmax(1)
    assert found["mean_absolute_error"] == pytest.approx(sk.mean_absolute_error(truth, predicted))
    assert found["quadratic_kappa"] == pytest.approx(sk.cohen_kappa_score(truth, predicted, weights="quadratic"))
    for task in (BINARY, KINDS):
        other = evaluate(task, *scored(task))
        assert not {"mean_absolute_error", "quadratic_kappa"} & set(other)


def test_binary_figures_by_hand():
    """Four images: two men at .9 and .4, two women at .6 and .1."""
    positive = torch.tensor([0.9, 0.4, 0.6, 0.1])
    found = evaluate(BINARY, torch.stack((1 - positive, positive), 1), torch.tensor([1, 1, 0, 0]))
    assert found["accuracy"] == found["balanced_accuracy"] == found["f1"] == 0.5
    assert found["auroc"] == 0.75
    assert found["average_precision"] == pytest.approx((1 + 2 / 3) / 2)


def test_the_positive_class_is_the_last_name_whatever_the_order():
    probabilities, truth = scored(BINARY)
    turned = Task.from_config(["man", "woman"], ordinal=False, loss="auto")
    men, women = evaluate(BINARY, probabilities, truth), evaluate(turned, probabilities.flip(1), 1 - truth)
    assert (men["positive_class"], women["positive_class"]) == ("man", "woman")
    assert men["average_precision"] != pytest.approx(women["average_precision"], abs=0.01)
    assert men["recall_man"] == women["recall_man"]
    assert men["auroc"] == pytest.approx(women["auroc"])


def test_a_class_that_no_image_has_is_unknown_and_left_out_of_averages():
    probabilities, truth = scored(AGES)
    kept = truth != 1
    probabilities, truth = probabilities[kept], truth[kept]
    found, predicted = evaluate(AGES, probabilities, truth), probabilities.argmax(1)
    assert found["recall_middle"] is None
    assert found["n_middle"] == 0
    assert (predicted == 1).any()
    recalls = [float((predicted[truth == code] == code).float().mean()) for code in (0, 2)]
    assert found["balanced_accuracy"] == pytest.approx(np.mean(recalls))
    sk = pytest.importorskip("sklearn.metrics")
    each = [((truth == code).int(), probabilities[:, code]) for code in (0, 2)]
    assert found["average_precision"] == pytest.approx(np.mean([sk.average_precision_score(*pair) for pair in each]))
    assert found["auroc"] == pytest.approx(np.mean([sk.roc_auc_score(*pair) for pair in each]))
    f1 = sk.f1_score(truth, predicted, labels=[0, 2], average="macro")
    assert found["f1"] == pytest.approx(f1)


def test_images_of_one_class_have_no_ranking():
    probabilities, _ = scored(AGES)
    found = evaluate(AGES, probabilities, torch.full((300,), 2))
    assert found["average_precision"] is None
    assert found["auroc"] is None
    assert found["recall_young"] is None
    assert found["balanced_accuracy"] == found["recall_old"] == pytest.approx(found["accuracy"])
    perfect = evaluate(AGES, torch.eye(3)[[2, 2]], torch.tensor([2, 2]))
    assert perfect["quadratic_kappa"] is None
    assert perfect["accuracy"] == 1.0


def test_without_the_positive_class_its_f1_is_unknown():
    probabilities, _ = scored(BINARY)
    women = evaluate(BINARY, probabilities, torch.zeros(300, dtype=torch.int64))
    assert women["f1"] is women["recall_man"] is women["average_precision"] is None
    assert women["recall_woman"] == pytest.approx(women["accuracy"])
    men = evaluate(BINARY, probabilities, torch.ones(300, dtype=torch.int64))
    assert men["f1"] == pytest.approx(2 * men["accuracy"] / (1 + men["accuracy"]))


@pytest.mark.parametrize("task", [BINARY, AGES, KINDS], ids=lambda task: task.kind)
def test_metrics_are_flat_and_plain_json(task):
    probabilities, truth = scored(task)
    k = len(task.classes)
    cases = [
        (probabilities, truth),
        (probabilities[:1], truth[:1]),
        (torch.zeros(0, k), torch.zeros(0, dtype=torch.int64)),
        (torch.full((5, k), math.nan), torch.tensor([0, 1, 1, 0, 1])),  # of a network that has diverged
    ]
    for case in cases:
        found = evaluate(task, *case)
        assert json.loads(json.dumps(found, allow_nan=False)) == found
        assert all(value is None or type(value) in (int, float, str) for value in found.values())
        assert found["n"] == len(case[1])


def test_no_images_give_no_figures():
    found = evaluate(BINARY, torch.zeros(0, 2), torch.zeros(0, dtype=torch.int64))
    assert found == {"accuracy": None, "accuracy_low": None, "accuracy_high": None, "n": 0}
    assert describe(found) == "no images"


def test_confusion_has_the_true_class_in_its_rows():
    found = confusion(AGES, torch.eye(3)[[0, 2, 2]], torch.tensor([0, 1, 2]))
    assert found.tolist() == [[1, 0, 0], [0, 0, 1], [0, 0, 1]]


def test_the_description_gives_accuracy_with_its_interval():
    positive = torch.tensor([0.9, 0.4, 0.6, 0.1])
    found = evaluate(BINARY, torch.stack((1 - positive, positive), 1), torch.tensor([1, 1, 0, 0]))
    assert describe(found) == "accuracy 0.500 (95% 0.150–0.850, n = 4), average precision of man 0.833"
    ages = evaluate(AGES, *scored(AGES))
    assert describe(ages).endswith(f", average precision (macro) {ages['average_precision']:.3f}")
    assert describe(evaluate(BINARY, torch.eye(2)[[0]], torch.tensor([0]))) == "accuracy 1.000 (95% 0.207–1.000, n = 1)"


# what the studies count --------------------------------------------------------------------------------------------


def test_a_pair_of_sigmoid_units_is_counted_per_unit_and_by_the_larger():
    task = Task.from_config(["female", "male"], ordinal=False, loss="one_vs_rest")
    probabilities = torch.tensor([[0.9, 0.6], [0.4, 0.3], [0.2, 0.8]])  # right but both on; right but both off; right
    found = evaluate(task, probabilities, torch.tensor([0, 0, 1]))
    assert found["accuracy"] == 1.0
    assert found["accuracy_per_unit"] == pytest.approx(4 / 6)
    assert "accuracy_per_unit" not in evaluate(
        Task.from_config(["a", "b"], ordinal=False, loss="ce"), probabilities, torch.tensor([0, 0, 1])
    )


def test_the_published_map_is_accuracy_and_not_average_precision():
    scores = torch.tensor([0.9, 0.6, 0.45, 0.2])
    probabilities, truth = torch.stack((1 - scores, scores), 1), torch.tensor([1, 0, 1, 0])
    found = evaluate(BINARY, probabilities, truth)
    assert published_map(probabilities, truth) == found["accuracy"] == 0.5
    assert found["average_precision"] == pytest.approx(5 / 6)


def test_a_published_figure_stands_beside_ours():
    entry = {"metric": "accuracy", "split": "val", "value": 0.68, "n": 2396, "source": "text"}
    assert describe_published(entry, 0.71) == "val accuracy 0.680 (95% 0.661–0.698, n = 2,396; text), here 0.710"
    assert describe_published(entry, None).endswith("none here")
    assert "without a number" in describe_published(entry | {"value": None}, 0.5)
