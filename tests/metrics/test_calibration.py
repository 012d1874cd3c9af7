"""Calibration: metrics against torchmetrics and by hand, temperature scaling, coverage, thresholds."""

import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import multiclass_calibration_error

from faceattr.metrics import calibration


def drawn(n: int, k: int, sharpened: float = 1.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities [n, k], calibrated where `sharpened` is 1, and class positions drawn from them."""
    rng = np.random.default_rng(seed)
    logits = 2 * rng.normal(size=(n, k))
    true = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    truth = (true.cumsum(1) < rng.random((n, 1))).sum(1)
    return calibration.tempered(true, 1 / sharpened), truth


@pytest.mark.parametrize("k", [2, 4])
def test_metrics_ece_equals_torchmetrics(k):
    probabilities, truth = drawn(3000, k, 1.7)
    found = calibration.metrics(probabilities, truth)
    expected = multiclass_calibration_error(torch.from_numpy(probabilities), torch.from_numpy(truth), k, n_bins=15)
    assert found["ece"] == pytest.approx(float(expected), abs=1e-5)


def test_metrics_brier_and_log_loss_by_hand():
    found = calibration.metrics(np.array([[0.8, 0.2], [0.4, 0.6]]), np.array([0, 0]))
    assert found["brier"] == pytest.approx((2 * 0.04 + 2 * 0.36) / 2)
    assert found["log_loss"] == pytest.approx(-(np.log(0.8) + np.log(0.4)) / 2)


@pytest.mark.parametrize("sharpened", [0.5, 1.0, 2.5])
@pytest.mark.parametrize("k", [2, 4])
def test_fit_temperature_finds_the_temperature_that_was_applied(k, sharpened):
    probabilities, truth = drawn(20_000, k, sharpened)
    found = calibration.fit_temperature(probabilities, truth)
    assert found == pytest.approx(sharpened, rel=0.04)
    mended = calibration.tempered(probabilities, found)
    assert calibration.metrics(mended, truth)["ece"] < 0.015
    assert (mended.argmax(1) == probabilities.argmax(1)).all() and mended.sum(1) == pytest.approx(1)


def test_tempered_divides_logits():
    logits = torch.randn(50, 3)
    found = calibration.tempered(logits.softmax(1).numpy(), 1.7)
    assert found == pytest.approx((logits / 1.7).softmax(1).numpy(), abs=1e-5)
    one = torch.randn(50).sigmoid().numpy()
    pair = calibration.tempered(np.stack((1 - one, one), 1), 1.7)[:, 1]
    assert pair == pytest.approx((torch.from_numpy(one).logit() / 1.7).sigmoid().numpy(), abs=1e-5)


def test_metrics_of_certain_errors_are_finite():
    found = calibration.metrics(np.array([[1.0, 0.0]]), np.array([1]))
    assert np.isfinite(found["log_loss"]) and found["ece"] == 1


def test_coverage_leaves_out_the_least_certain():
    probabilities = np.array([[0.99, 0.01], [0.9, 0.1], [0.8, 0.2], [0.6, 0.4]])
    shares = calibration.coverage(probabilities, np.array([0, 0, 0, 1]))
    assert shares["coverage"].tolist() == [0.25, 0.5, 0.75, 1.0]
    assert shares["accuracy"].tolist() == [1, 1, 1, 0.75]
    assert shares["confidence"].tolist() == [0.99, 0.9, 0.8, 0.6]


def test_threshold_reaches_the_requested_precision_or_recall():
    scores, positive = np.array([0.9, 0.8, 0.7, 0.6, 0.6, 0.1]), np.array([1, 1, 0, 1, 0, 0], bool)
    found = calibration.threshold(scores, positive, precision=0.9)
    assert found == {"threshold": 0.8, "precision_at_threshold": 1.0, "recall_at_threshold": pytest.approx(2 / 3)}
    found = calibration.threshold(scores, positive, recall=0.75)
    assert found == {"threshold": 0.6, "precision_at_threshold": 0.6, "recall_at_threshold": 1.0}
    assert calibration.threshold(scores, np.array([0, 1, 0, 0, 0, 0], bool), precision=0.9) is None
    assert calibration.threshold(scores, np.zeros(6, bool), recall=0.5) is None


def test_most_certain_is_the_accuracy_of_the_first_and_of_the_rest():
    positive = np.linspace(0.6, 0.99, 200)
    probabilities = np.stack((1 - positive, positive), 1)
    truth = np.ones(200, int)
    truth[-10:-4] = 0  # six of the ten most certain are wrong
    assert calibration.most_certain(probabilities, truth) == (0.4, 1.0, 10)
    assert calibration.most_certain(probabilities[:199], truth[:199]) is None
