"""Results in one sentence."""

import numpy as np
import pandas as pd
import torch

from faceattr.metrics import slices
from faceattr.metrics.compute_metrics import all_metrics
from faceattr.metrics.intervals import PairedDifference
from faceattr.models.task import Task
from faceattr.report import result_sentences

BINARY = Task.from_config(["woman", "man"], ordinal=False, loss="auto")


def test_describe_metrics_gives_accuracy_with_its_interval_then_average_precision():
    positive = torch.tensor([0.9, 0.4, 0.6, 0.1])
    metrics = all_metrics(BINARY, torch.stack((1 - positive, positive), 1), torch.tensor([1, 1, 0, 0]))
    text = "accuracy 0.500 (95% 0.150–0.850, n = 4), average precision of man 0.833"
    assert result_sentences.describe_metrics(metrics) == text
    bounds = {"average_precision_low": 0.7, "average_precision_high": 0.95}
    assert result_sentences.describe_metrics(metrics | bounds) == f"{text} (0.700–0.950)"
    of_attributes = {key: value for key, value in metrics.items() if key != "positive_class"} | {"labels": 8}
    assert result_sentences.describe_metrics(of_attributes).startswith("mean accuracy 0.500")
    assert result_sentences.describe_metrics(of_attributes).endswith("average precision (mean of attributes) 0.833")
    one = all_metrics(BINARY, torch.eye(2)[[0]], torch.tensor([0]))
    assert result_sentences.describe_metrics(one) == "accuracy 1.000 (95% 0.207–1.000, n = 1)"
    assert result_sentences.describe_metrics({"n": 0}) == "no images"


def test_describe_published_gives_the_published_figure_and_ours():
    entry = {"metric": "accuracy", "split": "val", "value": 0.68, "n": 2396, "source": "text"}
    text = "val accuracy 0.680 (95% 0.661–0.698, n = 2,396; text), here 0.710"
    assert result_sentences.describe_published(entry, 0.71) == text
    assert result_sentences.describe_published(entry, None).endswith("none here")
    assert "without a number" in result_sentences.describe_published(entry | {"value": None}, 0.5)


def test_describe_pair_names_the_test():
    pair = PairedDifference(0.02, -0.01, 0.05, 7, 3, 0.0004)
    text = "Difference +0.020 (95% -0.010 to +0.050); only ckpt right 7, only compare right 3, McNemar p < 0.001"
    assert result_sentences.describe_pair(pair, multilabel=False) == text
    assert "on 7 images, fewer on 3, sign test" in result_sentences.describe_pair(pair, multilabel=True)


def test_describe_slices_names_the_worst():
    values = pd.Series(["a"] * 100 + ["b"] * 60 + ["c"] * 29)
    correct = np.array([True] * 90 + [False] * 10 + [True] * 30 + [False] * 30 + [False] * 29)
    truth = torch.arange(189) % 2
    positive = torch.where(torch.from_numpy(correct) == (truth == 1), 0.9, 0.1)
    table = slices.slices({"column": values}, BINARY, torch.stack((1 - positive, positive), 1), truth)
    text = result_sentences.describe_slices(table)
    assert text.startswith("Worst of 2 slices: column b, accuracy 0.500 (n = 60), -0.198 to the rest (95% -0.3")
    assert result_sentences.describe_slices(table[:0]).startswith("Slices: none has 30 images")


def test_describe_slices_begins_with_the_true_class_however_few_images_it_has():
    rows = [("true_class", "female", 0.43, 20), ("true_class", "male", 0.95, 25), ("hair", "long", 0.5, 10)]
    table = pd.DataFrame(rows, columns=["column", "value", "accuracy", "n"]).assign(gap=np.nan)
    text = "By true class: female 0.430 (n = 20), male 0.950 (n = 25). Slices: none has 30 images"
    assert result_sentences.describe_slices(table) == text


def test_describe_leakage_gives_both_accuracies():
    row = {"column": "in_train", "accuracy": 0.9, "accuracy_low": 0.8, "accuracy_high": 0.95, "n": 1200}
    table = pd.DataFrame([row | {"value": "copy"}, row | {"value": "none", "accuracy": 0.7}])
    text = "Leakage, accuracy: copy 0.900 (0.800–0.950, n = 1,200); none 0.700 (0.800–0.950, n = 1,200)"
    assert result_sentences.describe_leakage(table) == text
    assert result_sentences.describe_leakage(pd.DataFrame()).endswith("do not differ in it")


def test_describe_metrics_gives_balanced_accuracy_where_classes_are_uneven():
    even = {"accuracy": 0.9, "accuracy_low": 0.8, "accuracy_high": 0.95, "n": 100, "balanced_accuracy": 0.7}
    assert "balanced" not in result_sentences.describe_metrics(even | {"n_female": 55, "n_male": 45})
    assert "balanced" not in result_sentences.describe_metrics(even | {"n_female": 99, "balanced_accuracy": None})
    text = result_sentences.describe_metrics(even | {"n_female": 20, "n_male": 80})
    assert text.endswith(", balanced accuracy 0.700 (always male: accuracy 0.800, balanced 0.500)")


def test_describe_metrics_of_attributes_compares_with_the_commoner_answers():
    metrics = {"accuracy": 0.9, "accuracy_low": 0.8, "accuracy_high": 0.95, "n": 100, "balanced_accuracy": 0.6}
    metrics |= {"labels": 150, "n_Young": 100, "n_Male": 50}  # Male is known of fewer images: that is no uneven class
    assert "always the commoner answer: accuracy 0.880, balanced 0.500" in result_sentences.describe_metrics(
        metrics | {"commonest_answers": 0.88}
    )
    assert "balanced" not in result_sentences.describe_metrics(metrics | {"commonest_answers": 0.55})


def test_describe_data_names_source_folder_and_keys_without_a_path():
    data = {"_target_": "faceattr.data.sources.csv.load", "root": "/home/somebody/faces"}
    assert result_sentences.describe_data(data, ["data.file=b.csv"]) == "csv faces (data.file=b.csv)"
    assert (
        result_sentences.describe_data({"_target_": "faceattr.data.sources.sample.load", "root": "/x/sample"})
        == "sample"
    )


def test_describe_certain_warns_where_the_most_certain_are_wrong_more_often():
    assert "misleads" in result_sentences.describe_certain(0.8, 0.9, 50)
    assert "misleads" not in result_sentences.describe_certain(0.9, 0.8, 50)
    assert "misleads" not in result_sentences.describe_certain(0.98, 0.981, 50), "chance"
