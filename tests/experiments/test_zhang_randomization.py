"""Training on randomised labels and pixels, at the smallest scale."""

import numpy as np
import pytest

from freqrobust.experiments.reproduce import reproduce
from freqrobust.reproductions._fitting import epochs_misclassified, first_fitted, slopes, stopped_early


@pytest.fixture(scope="module")
def findings():
    return reproduce("zhang-randomization", device="cpu")


def trend(findings, words):
    (found,) = [trend for trend in findings.trends if words in trend.statement]
    return found


def test_random_labels_are_fitted_later_than_true_ones_beyond_the_interval(findings):
    for words in ("Random labels are fitted later", "The more labels are corrupted, the later"):
        slower = trend(findings, words)
        assert slower.verdict == "reproduced", slower
        assert slower.ci95 is not None
        assert slower.ci95[0] > 1


def test_random_pixels_are_fitted_earlier_than_random_labels(findings):
    assert trend(findings, "Random pixels are fitted earlier").verdict == "reproduced"
    assert trend(findings, "Gaussian images are fitted earlier").verdict == "reproduced"


def test_corrupted_labels_raise_the_test_error_up_to_chance(findings):
    error = {m.name: m.value for m in findings.measured}
    assert trend(findings, "the higher is the test error").verdict == "reproduced"
    assert error["test error, true labels"] < 0.3 < 0.75 < error["test error, random labels"]
    assert error["test error, random pixels"] > 0.75
    assert error["test error, Gaussian images"] > 0.75


def test_every_condition_is_in_the_table_and_in_the_picture(findings):
    names = [row[0] for row in findings.tables[0].rows]
    assert names == [
        "true labels",
        "50% corrupted labels",
        "random labels",
        "shuffled pixels",
        "random pixels",
        "Gaussian images",
    ]
    assert {curve.label for curve in findings.curves} >= set(names)
    assert findings.picture is not None
    published = {m.name: m.published for m in findings.measured if m.published is not None}
    assert published["test error, true labels"] == 0.1425
    assert published["test error, random labels"] == 0.9022


def test_epochs_misclassified_are_counted_for_each_image():
    right = np.array([[0, 1, 0], [1, 1, 0], [0, 1, 0], [1, 1, 0]], dtype=bool)
    assert epochs_misclassified(right).tolist() == [2, 0, 4]
    assert epochs_misclassified(right).mean() == pytest.approx((~right).mean(axis=1).sum())  # the area under the curve


def test_the_first_fitted_epoch_is_counted_from_one():
    right = np.array([[0, 0], [1, 0], [1, 1], [1, 0]], dtype=bool)
    assert first_fitted(right, 0.5) == 2
    assert first_fitted(right, 1.0) == 3
    assert first_fitted(right[:2], 1.0) is None


def test_slopes_are_those_of_a_least_squares_line():
    generator = np.random.default_rng(0)
    x, values = [0.0, 0.25, 1.0], generator.standard_normal((3, 5))
    np.testing.assert_allclose(slopes(x, values), np.polyfit(x, values, 1)[0])
    with pytest.raises(ValueError, match="at least two different"):
        slopes([1.0, 1.0], values[:2])


def test_the_epoch_of_early_stopping_is_chosen_by_other_images():
    # even images are best after epoch 1, odd images after epoch 2: each half gets the epoch of the other
    right = np.array([[1, 0, 1, 0], [0, 1, 0, 1]], dtype=bool)
    assert stopped_early(right).tolist() == [False] * 4
    assert stopped_early(right[:1]).tolist() == right[0].tolist()
