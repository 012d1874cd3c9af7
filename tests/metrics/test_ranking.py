"""ROC and precision-recall curves, and the points of a decision."""

import numpy as np
import pytest
from sklearn import metrics as sk

from faceattr.metrics.ranking import Ranking, precision_recall_point, roc_point


def scored(decimals: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    positive = rng.random(2000) < 0.3
    return (positive + rng.normal(0, 1, 2000)).round(decimals), positive


def test_curves_equal_scikit_learns():
    scores, positive = scored(1)  # with ties
    ranking = Ranking(scores, positive)
    false_positives, recall, _ = sk.roc_curve(positive, scores, drop_intermediate=False)
    assert ranking.roc_curve() == (pytest.approx(false_positives), pytest.approx(recall))
    precision, recall, thresholds = sk.precision_recall_curve(positive, scores)
    x, y = ranking.precision_recall_curve()
    assert (x[1:], y[1:]) == (pytest.approx(recall[-2::-1]), pytest.approx(precision[-2::-1]))
    assert ranking.thresholds == pytest.approx(thresholds[::-1])
    assert (x[0], y[0]) == (0, y[1])


def test_curves_of_many_thresholds_are_thinned_and_keep_their_area():
    scores, positive = scored(6)
    x, y = Ranking(scores, positive).roc_curve()
    assert len(x) == 501
    assert np.trapezoid(y, x) == pytest.approx(sk.roc_auc_score(positive, scores), abs=1e-3)
    recall, precision = Ranking(scores, positive).precision_recall_curve()
    area = np.sum(np.diff(recall) * precision[1:])
    assert area == pytest.approx(sk.average_precision_score(positive, scores), abs=5e-3)


def test_points_of_a_decision():
    scores, positive = scored(6)
    predicted = scores > 0.5
    recall, precision = sk.recall_score(positive, predicted), sk.precision_score(positive, predicted)
    assert precision_recall_point(predicted, positive) == pytest.approx((recall, precision))
    assert roc_point(predicted, positive) == pytest.approx(((predicted & ~positive).sum() / (~positive).sum(), recall))
    assert precision_recall_point(np.zeros(2000, bool), positive) == pytest.approx((0, np.nan), nan_ok=True)
