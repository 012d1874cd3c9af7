"""The sentence of the model card and of the page about how good a model is."""

import pandas as pd
import pytest
from run_metrics import VAL_METRICS

from faceattr.report.accuracy_sentence import accuracy_sentence

RIGHT = "Right on 94.5% (93.5–95.3) of 2,396 validation images; worst for "


def slices(*rows: tuple[str, str, float, float]) -> pd.DataFrame:
    """Of 150 images each: column, value, p and gap."""
    given = pd.DataFrame(rows, columns=["column", "value", "p", "gap"])
    return given.assign(n=150, accuracy=0.8, accuracy_low=0.73, accuracy_high=0.86)


@pytest.mark.parametrize(
    ("p", "gap", "worst"),
    [
        (0.001, -0.1, "age over 60: 80.0% (73.0–86.0) of 150."),
        (0.2, -0.1, "female: 92.1% (90.4–93.6) of 1,096."),
        (0.001, 0.1, "female: 92.1% (90.4–93.6) of 1,096."),
    ],
)
def test_accuracy_sentence_names_the_slice_that_is_worse_beyond_chance_else_the_worst_class(p, gap, worst):
    assert accuracy_sentence(VAL_METRICS, "val", slices(("age", "over 60", p, gap))) == RIGHT + worst


def test_accuracy_sentence_names_the_largest_gap_and_a_class_by_its_name():
    table = slices(("age", "over 60", 0.001, -0.1), ("true_class", "female", 0.001, -0.2))
    assert accuracy_sentence(VAL_METRICS, "val", table) == f"{RIGHT}female: 80.0% (73.0–86.0) of 150."


def test_accuracy_sentence_of_one_image_is_in_the_singular():
    assert "of 1 validation image;" in accuracy_sentence(VAL_METRICS | {"n": 1}, "val", None)


def test_accuracy_sentence_without_figures_of_a_class_names_none():
    whole = {name: VAL_METRICS[name] for name in ("n", "accuracy", "accuracy_low", "accuracy_high")}
    assert accuracy_sentence(whole, "val", None) == "Right on 94.5% (93.5–95.3) of 2,396 validation images."


def test_accuracy_sentence_is_one_line_whatever_a_slice_is_called():
    sentence = accuracy_sentence(VAL_METRICS, "val", slices(("note", "a\n---\nb " + "c" * 300, 0.001, -0.1)))
    assert sentence.startswith(f"{RIGHT}note a --- b c") and "\n" not in sentence and len(sentence) < 320


def test_accuracy_sentence_of_attributes_is_their_mean():
    more = {"labels": 4000, "n_Smiling": 2000, "n_Male": 2000, "accuracy_Smiling": 0.7, "accuracy_Male": 0.9}
    start = "Right on 94.5% (93.5–95.3) of the attributes (their mean), on 2,396 test images"
    assert accuracy_sentence(VAL_METRICS | more, "test", None) == f"{start}; worst for Smiling: 70.0% of 2,000."
