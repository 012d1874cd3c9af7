"""Slices: which columns cut and how, figures by hand, gaps against scipy and by how often they hold the truth."""

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from scipy.stats import fisher_exact

from faceattr.errors import FaceattrError
from faceattr.metrics import slices
from faceattr.models.task import Task

TASK = Task.from_config(["woman", "man"], ordinal=False, loss="ce")


def predictions(correct: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """Probabilities and truth of images of which these are classified correctly."""
    truth = torch.arange(len(correct)) % 2
    positive = torch.where(torch.from_numpy(correct) == (truth == 1), 0.9, 0.1)
    return torch.stack((1 - positive, positive), 1), truth


def of(correct: np.ndarray, **columns: object) -> pd.DataFrame:
    return slices.slices(slices.cuts_of(pd.DataFrame(columns), None), TASK, *predictions(correct))


def test_cuts_of_takes_columns_of_few_values_and_quarters_numbers():
    rows = pd.DataFrame(
        {"path": "x", "label": "y", "split": "val", "group": range(100), "age": [n // 2 for n in range(100)]}
    )
    rows = rows.assign(glasses=["yes", "no"] * 50, name=[f"n{i}" for i in range(100)], same=1, young=[True, False] * 50)
    cuts = slices.cuts_of(rows, None)
    assert set(cuts) == {"age", "glasses", "young"}
    assert cuts["age"].value_counts().to_dict() == {"0 to 12": 26, "13 to 24": 24, "25 to 37": 26, "38 to 49": 24}
    assert set(slices.cuts_of(rows, ["glasses"])) == {"glasses"}


def test_cuts_of_begins_with_the_true_class():
    rows = pd.DataFrame({"label": ["a", "b"] * 20, "glasses": ["yes", "no", "no", "yes"] * 10})
    assert list(slices.cuts_of(rows, None)) == ["true_class", "glasses"]
    assert list(slices.cuts_of(rows, ["glasses"])) == ["glasses"]
    assert slices.cuts_of(rows, ["true_class"])["true_class"].tolist() == rows["label"].tolist()


def test_cuts_of_leaves_out_row_numbers_and_the_label_itself():
    labels = ["female", "male"] * 20
    rows = pd.DataFrame({"label": labels, "Unnamed: 0": range(40), "Gender": [name[0].upper() for name in labels]})
    assert list(slices.cuts_of(rows, None)) == ["true_class"]
    assert list(slices.cuts_of(rows, ["Gender", "Unnamed: 0"])) == ["Gender", "Unnamed: 0"]


@pytest.mark.parametrize(
    "name", ["column 1", "Unnamed: 0", "id", "person_id", "Identity", "index", "image number", "0"]
)
@pytest.mark.parametrize("number", [int, float])
def test_cuts_of_leaves_out_numbers_that_name_images_or_people(name, number):
    numbers = [number(n // 2) for n in range(80)]
    assert set(slices.cuts_of(pd.DataFrame({name: numbers, "age": numbers}), None)) == {"age"}


def test_cuts_of_writes_bounds_apart_and_goes_on_after_a_column_that_fails(caplog):
    rows = pd.DataFrame({"taken": [1_700_000_000.5 + n for n in range(80)], "box": [[n] for n in range(80)]})
    cuts = slices.cuts_of(rows.assign(age=[n / 2 for n in range(80)]), None)
    assert set(cuts) == {"taken", "age"} and cuts["taken"].nunique() == 4
    assert "The slice by box is missing: TypeError" in caplog.text


def test_cuts_of_takes_infinite_numbers_as_missing(caplog):
    score = [float(n) for n in range(96)] + [np.inf, -np.inf, np.nan, -np.inf]
    cut = slices.cuts_of(pd.DataFrame({"score": score}), None)["score"]
    assert cut.isna().sum() == 4 and cut.nunique() == 4 and not caplog.records


def test_slices_leave_missing_values_out_of_slice_and_rest():
    column = ["a"] * 40 + ["b"] * 40 + [None] * 40
    correct = np.array([True] * 40 + [False] * 40 + [True] * 40)
    table = of(correct, column=column).set_index("value")
    assert table["n"].to_dict() == {"a": 40, "b": 40}
    assert table.loc["b", "gap"] == -1.0


def test_slices_are_sorted_by_gap_and_small_ones_are_not_compared():
    column = ["a"] * 100 + ["b"] * 60 + ["c"] * 29
    correct = np.array([True] * 90 + [False] * 10 + [True] * 30 + [False] * 30 + [False] * 29)
    table = of(correct, column=column)
    assert table["value"].tolist() == ["b", "a", "c"]
    assert table["accuracy"].tolist() == [0.5, 0.9, 0.0]
    assert table["gap"].tolist()[:2] == pytest.approx([0.5 - 90 / 129, 0.9 - 30 / 89]) and np.isnan(table["gap"][2])
    assert table["recall_woman"][1] == pytest.approx(0.9)


def test_slices_p_is_fishers_after_holm():
    rng = np.random.default_rng(0)
    correct = rng.random(400) < 0.7
    columns = {"x": rng.integers(0, 2, 400).astype(str), "y": rng.integers(0, 3, 400).astype(str)}
    table = of(correct, **columns)
    plain = []
    for _, row in table.iterrows():
        here = columns[row["column"]] == row["value"]
        plain.append(fisher_exact([[correct[g].sum(), (~correct[g]).sum()] for g in (here, ~here)]).pvalue)
    order = np.argsort(plain)
    expected = np.minimum(np.maximum.accumulate(np.array(plain)[order] * [5, 4, 3, 2, 1]), 1)
    assert table["p"].to_numpy()[order] == pytest.approx(expected)


@pytest.mark.slow
def test_slices_gap_interval_covers_the_true_gap():
    rng = np.random.default_rng(1)
    inside = called = 0
    for _ in range(200):
        first = rng.random(300) < 0.3
        correct = rng.random(300) < np.where(first, 0.8, 0.8)
        row = of(correct, column=np.where(first, "a", "b")).set_index("value").loc["a"]
        inside += row["gap_low"] <= 0 <= row["gap_high"]
        called += row["p"] < 0.05
    assert 0.91 <= inside / 200 <= 0.99 and called / 200 < 0.08


def test_measure_gives_brightness_sharpness_and_file_pixels(tmp_path):
    rng = np.random.default_rng(0)
    dark, sharp = np.full((8, 8, 3), 10, np.uint8), rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
    files = [str(tmp_path / f"{side}.png") for side in (20, 30)]
    for file, side in zip(files, (20, 30), strict=True):
        Image.new("RGB", (side, 10)).save(file)
    table = slices.measure([np.stack([dark, sharp])], files)
    assert table["brightness"][0] == 10 and 100 < table["brightness"][1] < 155
    assert table["sharpness"][0] == 0 and table["sharpness"][1] > 1000
    assert table["file_pixels"].tolist() == [200, 300]
    assert np.isnan(slices.measure([dark[None]], [str(tmp_path / "gone.png")])["file_pixels"][0])


def test_check_names_unknown_and_present_columns():
    with pytest.raises(FaceattrError, match=r"evaluate\.slices: no column hat\. There are: age, brightness, sharpness"):
        slices.check(pd.DataFrame({"path": [], "label": [], "age": []}), ["hat"])
    slices.check(pd.DataFrame({"age": []}), ["age", "brightness"])


def test_slices_of_no_column_are_an_empty_table():
    table = of(np.array([True] * 10))
    assert len(table) == 0


def test_slices_compare_the_share_of_an_images_attributes():
    task = Task.from_config(["Male", "Young", "Smiling"], ordinal=False, multilabel=True, loss="auto")
    rng = np.random.default_rng(0)
    truth = torch.from_numpy(rng.random((400, 3)) < 0.5).float()
    scores = torch.from_numpy(np.where(rng.random((400, 3)) < 0.4, 1 - truth, truth)).float()
    scores[1::2] = truth[1::2]
    light = {"light": pd.Series(["dark", "light"] * 200)}
    table = slices.slices(light, task, scores, truth)
    assert table["value"].tolist() == ["dark", "light"] and "recall_Male" not in table
    assert table["gap"][0] == pytest.approx(-0.4, abs=0.06) and table["gap_high"][0] < -0.3 and table["p"][0] < 1e-6
    assert table["average_precision"][0] < table["average_precision"][1]
    by_chance = slices.slices(light, task, torch.from_numpy(rng.random((400, 3))).float(), truth)
    assert by_chance["p"].min() > 0.05
