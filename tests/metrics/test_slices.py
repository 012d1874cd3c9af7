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

TARGET = Task.from_config(["woman", "man"], ordinal=False, loss="ce")


def judged(right: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """Probabilities and truth of images of which these are classified right."""
    truth = torch.arange(len(right)) % 2
    positive = torch.where(torch.from_numpy(right) == (truth == 1), 0.9, 0.1)
    return torch.stack((1 - positive, positive), 1), truth


def of(right: np.ndarray, **columns: object) -> pd.DataFrame:
    return slices.slices(slices.cuts_of(pd.DataFrame(columns), None), TARGET, *judged(right))


def test_columns_of_few_values_cut_numbers_are_quartered_and_names_do_not():
    rows = pd.DataFrame({"path": "x", "label": "y", "split": "val", "group": range(100), "age": range(100)})
    rows = rows.assign(glasses=["yes", "no"] * 50, name=[f"n{i}" for i in range(100)], same=1, young=[True, False] * 50)
    cuts = slices.cuts_of(rows, None)
    assert set(cuts) == {"age", "glasses", "young"}
    assert cuts["age"].value_counts().to_dict() == {"0 to 24": 25, "25 to 49": 25, "50 to 74": 25, "75 to 99": 25}
    assert set(slices.cuts_of(rows, ["glasses"])) == {"glasses"}


def test_a_missing_value_is_in_no_slice_and_in_no_rest():
    column = ["a"] * 40 + ["b"] * 40 + [None] * 40
    right = np.array([True] * 40 + [False] * 40 + [True] * 40)
    found = of(right, column=column).set_index("value")
    assert found["n"].to_dict() == {"a": 40, "b": 40}
    assert found.loc["b", "gap"] == -1.0


def test_the_worst_is_first_small_slices_are_listed_but_not_compared():
    column = ["a"] * 100 + ["b"] * 60 + ["c"] * 29
    right = np.array([True] * 90 + [False] * 10 + [True] * 30 + [False] * 30 + [False] * 29)
    found = of(right, column=column)
    assert found["value"].tolist() == ["b", "a", "c"]
    assert found["accuracy"].tolist() == [0.5, 0.9, 0.0]
    assert found["gap"].tolist()[:2] == pytest.approx([0.5 - 90 / 129, 0.9 - 30 / 89]) and np.isnan(found["gap"][2])
    assert found["recall_woman"][1] == pytest.approx(0.9)
    assert "column b, accuracy 0.500 (n = 60)" in slices.describe(found) and "Worst of 2 slices" in slices.describe(
        found
    )


def test_p_is_fishers_after_holm():
    rng = np.random.default_rng(0)
    right = rng.random(400) < 0.7
    columns = {"x": rng.integers(0, 2, 400).astype(str), "y": rng.integers(0, 3, 400).astype(str)}
    found = of(right, **columns)
    plain = []
    for _, row in found.iterrows():
        here = columns[row["column"]] == row["value"]
        plain.append(fisher_exact([[right[g].sum(), (~right[g]).sum()] for g in (here, ~here)]).pvalue)
    order = np.argsort(plain)
    expected = np.minimum(np.maximum.accumulate(np.array(plain)[order] * [5, 4, 3, 2, 1]), 1)
    assert found["p"].to_numpy()[order] == pytest.approx(expected)


def test_the_gaps_interval_covers_the_true_gap_and_chance_is_rarely_called_a_gap():
    rng = np.random.default_rng(1)
    inside = called = 0
    for _ in range(200):
        first = rng.random(300) < 0.3
        right = rng.random(300) < np.where(first, 0.8, 0.8)
        row = of(right, column=np.where(first, "a", "b")).set_index("value").loc["a"]
        inside += row["gap_low"] <= 0 <= row["gap_high"]
        called += row["p"] < 0.05
    assert 0.91 <= inside / 200 <= 0.99 and called / 200 < 0.08


def test_pixels_are_measured(tmp_path):
    rng = np.random.default_rng(0)
    dark, sharp = np.full((8, 8, 3), 10, np.uint8), rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
    files = [str(tmp_path / f"{side}.png") for side in (20, 30)]
    for file, side in zip(files, (20, 30), strict=True):
        Image.new("RGB", (side, 10)).save(file)
    found = slices.measure([np.stack([dark, sharp])], files)
    assert found["brightness"][0] == 10 and 100 < found["brightness"][1] < 155
    assert found["sharpness"][0] == 0 and found["sharpness"][1] > 1000
    assert found["file_pixels"].tolist() == [200, 300]
    assert np.isnan(slices.measure([dark[None]], [str(tmp_path / "gone.png")])["file_pixels"][0])


def test_a_column_that_is_not_there_is_named_with_those_that_are():
    with pytest.raises(FaceattrError, match=r"evaluate\.slices: no column hat\. There are: age, brightness, sharpness"):
        slices.check(pd.DataFrame({"path": [], "label": [], "age": []}), ["hat"])
    slices.check(pd.DataFrame({"age": []}), ["age", "brightness"])


def test_nothing_to_slice_is_an_empty_table():
    found = of(np.array([True] * 10))
    assert len(found) == 0 and slices.describe(found).startswith("Slices: none")
