"""The metrics of a split: by hand, of single classes and attributes, None where the images cannot say, and their intervals."""

import json
import math

import numpy as np
import pytest
import torch
from sklearn import metrics as sk
from torch import Tensor

from faceattr.metrics import accuracy, per_class, registry
from faceattr.metrics.compute_metrics import all_metrics, intervals_of
from faceattr.metrics.intervals import wilson
from faceattr.models.task import Task

BINARY = Task.from_config(["woman", "man"], ordinal=False, loss="auto")
AGES = Task.from_config(["young", "middle", "old"], ordinal=True, loss="auto")
KINDS = Task.from_config(["cat", "dog", "horse", "cow"], ordinal=False, loss="auto")
SIGNS = Task.from_config(["Male", "Young", "Smiling"], ordinal=False, multilabel=True, loss="auto")


def scored(task: Task, n: int = 300, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Probabilities of a model that is often correct, and the truth with unequal classes."""
    rng = np.random.default_rng(seed)
    k = len(task.classes)
    truth = rng.choice(k, n, p=np.arange(1, k + 1) / np.arange(1, k + 1).sum())
    logits = rng.normal(size=(n, k)) + 1.2 * np.eye(k)[truth]
    return torch.from_numpy(logits).float().softmax(1), torch.from_numpy(truth)


def scored_attributes(n: int = 400, missing: float = 0.2) -> tuple[Tensor, Tensor]:
    rng = np.random.default_rng(0)
    truth = (rng.random((n, 3)) < [0.5, 0.8, 0.1]).astype(float)
    scores = 1 / (1 + np.exp(-rng.normal(size=(n, 3)) - 2 * (truth - 0.5)))
    truth[:, :2][rng.random((n, 2)) < missing] = math.nan
    return torch.from_numpy(scores).float(), torch.from_numpy(truth).float()


# all_metrics: classes


def test_all_metrics_binary_metrics_by_hand():
    """Four images: two men at .9 and .4, two women at .6 and .1."""
    positive = torch.tensor([0.9, 0.4, 0.6, 0.1])
    metrics = all_metrics(BINARY, torch.stack((1 - positive, positive), 1), torch.tensor([1, 1, 0, 0]))
    assert metrics["accuracy"] == metrics["balanced_accuracy"] == metrics["f1"] == 0.5
    assert (metrics["accuracy_low"], metrics["accuracy_high"]) == wilson(0.5, 4)
    assert metrics["auroc"] == 0.75 and metrics["matthews_corrcoef"] == 0
    assert metrics["average_precision"] == pytest.approx((1 + 2 / 3) / 2)


def test_all_metrics_takes_the_last_class_as_positive_whatever_the_order():
    probabilities, truth = scored(BINARY)
    turned = Task.from_config(["man", "woman"], ordinal=False, loss="auto")
    men, women = all_metrics(BINARY, probabilities, truth), all_metrics(turned, probabilities.flip(1), 1 - truth)
    assert (men["positive_class"], women["positive_class"]) == ("man", "woman")
    assert men["average_precision"] != pytest.approx(women["average_precision"], abs=0.01)
    assert men["recall_man"] == women["recall_man"]
    assert men["auroc"] == pytest.approx(women["auroc"])


@pytest.mark.parametrize("task", [BINARY, AGES, KINDS], ids=lambda task: task.kind)
def test_all_metrics_gives_the_recall_and_count_of_each_class(task):
    probabilities, truth = scored(task)
    metrics, predicted = all_metrics(task, probabilities, truth), probabilities.argmax(1)
    recalls = sk.recall_score(truth, predicted, average=None)
    assert [metrics[f"recall_{name}"] for name in task.classes] == pytest.approx(list(recalls))
    assert [metrics[f"n_{name}"] for name in task.classes] == truth.bincount().tolist()
    assert ("positive_class" in metrics) == (task.kind == "binary")


def test_all_metrics_gives_ordered_classes_the_shares_by_distance():
    probabilities, truth = scored(AGES)
    metrics, far = all_metrics(AGES, probabilities, truth), (probabilities.argmax(1) - truth).abs()
    assert [metrics["off_by_1"], metrics["off_by_2"]] == [float((far == step).double().mean()) for step in (1, 2)]
    assert "off_by_1" not in all_metrics(KINDS, *scored(KINDS))


def test_all_metrics_leaves_a_class_without_images_out_of_averages():
    probabilities, truth = scored(AGES)
    probabilities, truth = probabilities[truth != 1], truth[truth != 1]
    metrics, predicted = all_metrics(AGES, probabilities, truth), probabilities.argmax(1)
    assert metrics["recall_middle"] is None and metrics["n_middle"] == 0
    assert (predicted == 1).any()
    recalls = [float((predicted[truth == code] == code).float().mean()) for code in (0, 2)]
    assert metrics["balanced_accuracy"] == pytest.approx(np.mean(recalls))


def test_all_metrics_of_one_class_has_no_ranking():
    probabilities, _ = scored(AGES)
    metrics = all_metrics(AGES, probabilities, torch.full((300,), 2))
    assert metrics["average_precision"] is metrics["auroc"] is metrics["matthews_corrcoef"] is None
    assert metrics["balanced_accuracy"] == metrics["recall_old"] == pytest.approx(metrics["accuracy"])
    perfect = all_metrics(AGES, torch.eye(3)[[2, 2]], torch.tensor([2, 2]))
    assert perfect["quadratic_kappa"] is None and perfect["accuracy"] == 1.0


def test_all_metrics_without_the_positive_class_has_no_f1():
    probabilities, _ = scored(BINARY)
    women = all_metrics(BINARY, probabilities, torch.zeros(300, dtype=torch.int64))
    assert women["f1"] is women["recall_man"] is women["average_precision"] is None
    men = all_metrics(BINARY, probabilities, torch.ones(300, dtype=torch.int64))
    assert men["f1"] == pytest.approx(2 * men["accuracy"] / (1 + men["accuracy"]))


@pytest.mark.parametrize("task", [BINARY, AGES, KINDS], ids=lambda task: task.kind)
def test_all_metrics_gives_flat_plain_json(task):
    probabilities, truth = scored(task)
    k = len(task.classes)
    cases = [
        (probabilities, truth),
        (probabilities[:1], truth[:1]),
        (torch.zeros(0, k), torch.zeros(0, dtype=torch.int64)),
        (torch.full((5, k), math.nan), torch.tensor([0, 1, 1, 0, 1])),  # training diverged
    ]
    for case in cases:
        metrics = all_metrics(task, *case)
        assert json.loads(json.dumps(metrics, allow_nan=False)) == metrics
        assert all(value is None or type(value) in (int, float, str) for value in metrics.values())
        assert metrics["n"] == len(case[1])


def test_all_metrics_without_images_gives_no_metrics():
    metrics = all_metrics(BINARY, torch.zeros(0, 2), torch.zeros(0, dtype=torch.int64))
    assert metrics == {"accuracy": None, "accuracy_low": None, "accuracy_high": None, "n": 0}


def test_all_metrics_counts_a_pair_of_sigmoid_units_per_unit():
    task = Task.from_config(["female", "male"], ordinal=False, loss="one_vs_rest")
    probabilities = torch.tensor(
        [[0.9, 0.6], [0.4, 0.3], [0.2, 0.8]]
    )  # correct but both on; correct but both off; correct
    metrics = all_metrics(task, probabilities, torch.tensor([0, 0, 1]))
    assert metrics["accuracy"] == 1.0 and metrics["accuracy_per_unit"] == pytest.approx(4 / 6)


def test_published_map_is_accuracy_and_not_average_precision():
    scores = torch.tensor([0.9, 0.6, 0.45, 0.2])
    probabilities, truth = torch.stack((1 - scores, scores), 1), torch.tensor([1, 0, 1, 0])
    metrics = all_metrics(BINARY, probabilities, truth)
    assert accuracy.published_map(probabilities, truth) == metrics["accuracy"] == 0.5
    assert metrics["average_precision"] == pytest.approx(5 / 6)


def test_confusion_has_the_true_class_in_its_rows():
    counts = per_class.confusion(AGES, torch.eye(3)[[0, 2, 2]], torch.tensor([0, 1, 2]))
    assert counts.tolist() == [[1, 0, 0], [0, 0, 1], [0, 0, 1]]


# all_metrics: attributes


def test_all_metrics_gives_each_attributes_metrics_over_its_known_labels():
    scores, truth = scored_attributes()
    metrics = all_metrics(SIGNS, scores, truth)
    for position, name in enumerate(SIGNS.classes):
        known = truth[:, position].isfinite()
        y, p = truth[known, position].numpy(), scores[known, position].numpy()
        assert metrics[f"n_{name}"] == len(y) and metrics[f"positive_{name}"] == y.sum()
        assert metrics[f"accuracy_{name}"] == pytest.approx(sk.accuracy_score(y, p > 0.5))
        assert metrics[f"recall_{name}"] == pytest.approx(sk.recall_score(y, p > 0.5))
        assert metrics[f"average_precision_{name}"] == pytest.approx(sk.average_precision_score(y, p), abs=1e-5)
    assert metrics["labels"] == int(truth.isfinite().sum())
    shares = truth.nanmean(0)
    assert metrics["commonest_answers"] == pytest.approx(float(torch.maximum(shares, 1 - shares).mean()))


def test_all_metrics_leaves_an_attribute_of_one_answer_out_of_rankings():
    scores, truth = scored_attributes(missing=0)
    truth[:, 2] = 0
    metrics = all_metrics(SIGNS, scores, truth)
    assert metrics["average_precision_Smiling"] is None and metrics["recall_Smiling"] is None
    of_two = (metrics["average_precision_Male"] + metrics["average_precision_Young"]) / 2
    assert metrics["average_precision"] == pytest.approx(of_two)
    truth[:, 2] = math.nan
    metrics = all_metrics(SIGNS, scores, truth)
    assert metrics["accuracy_Smiling"] is None and metrics["n_Smiling"] == 0
    assert metrics["accuracy"] == pytest.approx((metrics["accuracy_Male"] + metrics["accuracy_Young"]) / 2)
    bounds = intervals_of(metrics, SIGNS, scores, truth, None)
    assert per_class.attribute_table(metrics | bounds, SIGNS)["name"].tolist() == ["Male", "Young"]


def test_accuracy_interval_counts_an_images_labels_as_dependent():
    rng = np.random.default_rng(0)
    correct = torch.from_numpy(rng.random(500) < 0.9)[:, None].expand(-1, 3)  # all of an image's labels, or none
    same = accuracy.accuracy(SIGNS, torch.where(correct, 0.9, 0.1), torch.ones(500, 3))
    low, high = wilson(same["accuracy"], 500)
    assert (same["accuracy_low"], same["accuracy_high"]) == pytest.approx((low, high), abs=1e-3)
    apart = torch.from_numpy(rng.random((500, 3)) < 0.9)
    free = accuracy.accuracy(SIGNS, torch.where(apart, 0.9, 0.1), torch.ones(500, 3))
    low, high = wilson(free["accuracy"], 1500)
    assert free["accuracy_high"] - free["accuracy_low"] == pytest.approx(high - low, rel=0.1)
    perfect = accuracy.accuracy(SIGNS, torch.ones(500, 3), torch.ones(500, 3))
    assert (perfect["accuracy_low"], perfect["accuracy_high"]) == wilson(1.0, 500)


# intervals_of


@pytest.mark.parametrize("task", [BINARY, AGES], ids=lambda task: task.kind)
def test_intervals_of_every_metric_hold_its_value(task):
    probabilities, truth = scored(task)
    metrics = all_metrics(task, probabilities, truth)
    bounds = intervals_of(metrics, task, probabilities, truth, None)
    names = ["balanced_accuracy", "average_precision", "auroc", "f1", "matthews_corrcoef", "log_loss"]
    names += ["mean_absolute_error", "quadratic_kappa", "accuracy_within_one"] if task.kind == "ordinal" else []
    names += [f"recall_{name}" for name in task.classes]
    assert set(bounds) == {"interval_unit", *(f"{name}_{side}" for name in names for side in ("low", "high"))}
    for name in names:
        assert bounds[f"{name}_low"] < metrics[name] < bounds[f"{name}_high"]
    assert bounds["interval_unit"] == "image"
    assert bounds == intervals_of(metrics, task, probabilities, truth, None), "seeded"


def test_intervals_of_attributes_hold_the_means_and_each_attribute():
    scores, truth = scored_attributes()
    metrics = all_metrics(SIGNS, scores, truth)
    bounds = intervals_of(metrics, SIGNS, scores, truth, [str(i // 4) for i in range(400)])
    means = ("balanced_accuracy", "average_precision", "auroc", "f1", "matthews_corrcoef", "log_loss")
    for name in (*means, "accuracy_Male", "recall_Young"):
        assert bounds[f"{name}_low"] < metrics[name] < bounds[f"{name}_high"]
    assert bounds["interval_unit"] == "group"


def test_intervals_of_one_attribute_are_those_of_two_classes():
    scores, truth = (part[:, :1] for part in scored_attributes(missing=0))
    one = Task.from_config(["Male"], ordinal=False, multilabel=True, loss="auto")
    ours = intervals_of(all_metrics(one, scores, truth), one, scores, truth, None)
    two, labels = torch.cat((1 - scores, scores), 1), truth[:, 0].long()
    theirs = intervals_of(all_metrics(BINARY, two, labels), BINARY, two, labels, None)
    for name in ("average_precision", "auroc", "balanced_accuracy", "f1", "log_loss"):
        assert ours[f"{name}_low"] == pytest.approx(theirs[f"{name}_low"], abs=1e-6), name


def test_intervals_of_log_loss_weigh_attributes_by_their_labels():
    scores, truth = scored_attributes(missing=0)
    truth[40:, 0] = math.nan
    metrics = all_metrics(SIGNS, scores, truth)
    bounds = intervals_of(metrics, SIGNS, scores, truth, None)
    middle = (bounds["log_loss_low"] + bounds["log_loss_high"]) / 2
    assert middle == pytest.approx(metrics["log_loss"], abs=0.01)


def test_intervals_of_one_class_leave_rankings_out():
    probabilities, truth = scored(BINARY)[0], torch.ones(300, dtype=torch.int64)
    bounds = intervals_of(all_metrics(BINARY, probabilities, truth), BINARY, probabilities, truth, None)
    assert "auroc_low" not in bounds and bounds["f1_low"] < bounds["f1_high"]


def test_all_metrics_goes_on_after_a_metric_or_an_interval_that_fails(monkeypatch, caplog):
    def fails(_: object) -> float:
        raise ZeroDivisionError("of somebody's package")

    for name, entry in (("theirs", {"value": fails}), ("half", {"value": lambda p: 0.5})):
        monkeypatch.setitem(registry.METRICS, name, registry.Metric(name, name, **entry, interval=fails))
    scores, truth = scored(BINARY)
    metrics = all_metrics(BINARY, scores, truth)
    assert metrics["theirs"] is None and metrics["half"] == 0.5 and metrics["auroc"] > 0.5
    bounds = intervals_of(metrics, BINARY, scores, truth, None)
    assert "half_low" not in bounds and bounds["auroc_low"] < metrics["auroc"] < bounds["auroc_high"]
    for line in ("The metric theirs is missing: ZeroDivisionError", "The interval of half is missing"):
        assert caplog.text.count(line) == 1
