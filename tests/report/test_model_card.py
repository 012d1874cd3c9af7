"""The model card of an export: groups, how faces were cropped, images that were left out, a later temperature."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from run_metrics import VAL_METRICS

from faceattr.report.model_card import RunFigures, model_card

WHOLE = {"mode": "none", "margin": 0.0, "min_score": 0.6}
CONFIG: dict[str, Any] = {
    **{"name": "mine", "classes": ["female", "male"], "kind": "binary", "temperature": 1.0, "precision": "float32"},
    **{"fingerprint": "0" * 16, "version": "1.0", "faces": WHOLE},
    "input": {"height": 32, "width": 32, "interpolation": "bilinear", "resize": "stretch"},
}
RUN = {"data": {"_target_": "faceattr.data.sources.csv.load", "root": "/home/me/faces"}, "model": {"name": "resnet18"}}
PROOF: dict[str, Any] = {
    **{"splits": "9 val images", "images": 9, "same_answers": 9, "largest_difference": 1e-6, "tolerance": 1e-4},
    **{f"accuracy_{of}{side}": 0.9 for of in ("checkpoint", "onnx") for side in ("", "_low", "_high")},
    **{"onnx_bytes": {"float32": 10**6}, "images_per_second_on_one_core": {"float32": 50}},
    **{"largest_difference_by_batch_size": {"1": 1e-6}, "versions": {"onnxruntime": "1", "torch": "2"}},
}


def card(config: dict[str, Any] | None = None, **figures: Any) -> str:
    """The card of a run that was evaluated on its validation images."""
    given = {"metrics": {"val": VAL_METRICS}} | figures
    return model_card(CONFIG | (config or {}), RunFigures(RUN, "random", **given), PROOF)


def groups(*gaps: float) -> pd.DataFrame:
    """Of 150 images each, by the gap of each to the other images; as in slices_val.csv."""
    rows = pd.DataFrame({"column": "age_of", "value": [f"a{number}" for number in range(len(gaps))], "gap": gaps})
    return rows.assign(n=1500, accuracy=0.8, accuracy_low=0.7, accuracy_high=0.86, gap_low=-0.2, gap_high=0.1, p=0.04)


def test_model_card_lists_the_groups_that_can_be_compared_the_worst_first():
    text = card(slices={"val": groups(0.05, np.nan, -0.1)})
    assert "Groups of these images, by the gap in accuracy:" in text
    rows = [line for line in text.splitlines() if line.startswith("| age\\_of: ")]
    assert rows == [
        "| age\\_of: a2 | 1,500 | 0.800 (0.700–0.860) | −0.100 (−0.200 to +0.100) | 0.04 |",
        "| age\\_of: a0 | 1,500 | 0.800 (0.700–0.860) | +0.050 (−0.200 to +0.100) | 0.04 |",
    ]


def test_model_card_says_how_many_groups_it_leaves_out():
    text = card(slices={"val": groups(*np.linspace(-0.1, 0.1, 13))})
    assert "The worst 10 of 13 groups of these images" in text and text.count("| age\\_of: ") == 10
    assert "a9 |" in text and "a10 |" not in text


@pytest.mark.parametrize("folder", ["/home/jo/", "/home/jo smith/", "C:\\Users\\jo smith\\", "weights/"])
def test_model_card_names_the_file_of_the_first_weights_without_its_folder(folder):
    text = model_card(CONFIG, RunFigures(RUN, f"{folder}vgg.pth", metrics={"val": VAL_METRICS}), PROOF)
    assert "| It started from | vgg.pth |" in text
    assert "| It started from | random (a/b) |" in model_card(
        CONFIG, RunFigures(RUN, "random (a/b)", metrics={"val": VAL_METRICS}), PROOF
    )


def test_model_card_of_attributes_has_no_recall_of_a_class():
    assert "with the attributes female, male" in card({"kind": "multilabel"})
    assert "Recall of" not in card({"kind": "multilabel"}) and "| Recall of male | 0.960 |" in card()


def test_model_card_says_that_no_group_was_compared():
    for slices in ({}, {"val": groups(np.nan)}):
        assert "For whom it is worse was not measured, or no group has enough images." in card(slices=slices)


def test_model_card_says_how_faces_are_cropped():
    aligned = card({"faces": {"mode": "align", "margin": 0.25, "min_score": 0.6}})
    assert "| Faces | align, margin 0.25, least score 0.6; YuNet finds them |" in aligned
    assert "| Faces | images are taken whole |" in card()


def test_model_card_says_how_many_training_images_were_left_out_because_of_copies():
    leakage = {"pairs_across": 3, "train_val": 1, "left_out": 2, "identities_in_two_splits": 1}
    sentence = (
        "1 pair of copies links training and validation images; 2 training images were left out because of copies; "
        "1 person is in two splits."
    )
    assert sentence in card(record={"leakage": leakage})
    assert "left out" not in card(record={"leakage": leakage | {"left_out": 0}})


def test_model_card_says_that_a_temperature_was_fitted_after_the_evaluation():
    """The evaluation's probabilities are then those of another temperature."""
    metrics, later = VAL_METRICS | {"ece": 0.031, "temperature": 1.3}, "It was fitted after the evaluation"
    text = card({"temperature": 1.3}, metrics={"val": metrics})
    assert later not in text and "Calibration error on validation images: 0.031." in text
    text = card({"temperature": 1.3}, metrics={"val": VAL_METRICS | {"ece": 0.031}})
    assert f"A temperature of 1.300, fitted on validation images, is inside. {later}" in text and "0.031." not in text
