"""The Area Under the Margin finds flipped labels of digits."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from freqrobust.core.training_config import Recipe
from freqrobust.experiments.reproduce import reproduce
from freqrobust.reproductions._mislabelled import Noise, findings, mean_difference, ranking
from freqrobust.results.findings import Findings
from freqrobust.training.margins import Judgement


@pytest.fixture(scope="module")
def found() -> Findings:
    return reproduce("aum")


def test_flipped_labels_are_found(found: Findings) -> None:
    values = {one.name: one.value for one in found.measured}
    for share in ("20%", "40%"):
        assert values[f"{share} flipped: precision"] > 0.75
        assert values[f"{share} flipped: recall"] > 0.75
    lower = [trend for trend in found.trends if "lower AUM" in trend.statement or "more often" in trend.statement]
    assert [trend.verdict for trend in lower] == ["reproduced"] * 4


def test_both_kinds_of_margins_and_the_retraining_are_reported(found: Findings) -> None:
    first, second = found.tables
    assert [row[1] for row in first.rows] == ["logits", "softmax"] * 2
    assert all(float(row[-1]) > 0.9 for row in first.rows)
    assert second.columns == ["flipped labels", "all samples", "without flagged"]
    retrained = [trend for trend in found.trends if "without the flagged" in trend.statement]
    assert len(retrained) == 2
    assert all(trend.ci95 is not None for trend in retrained)


def test_where_nothing_is_flagged_there_is_nothing_to_compare() -> None:
    """Otherwise a network would be compared with itself."""
    wrong, right = np.arange(20) < 4, np.ones(10, dtype=bool)
    aum = np.linspace(1, 2, 20)
    nothing = Judgement(np.zeros(20, dtype=bool), aum, aum, (0.0, 0.0))
    kinds = ("logits", "softmax")
    noise = Noise(0.2, wrong, dict.fromkeys(kinds, nothing), {kind: [-1.0, 0.0] for kind in kinds}, {
        "all samples": right, "without flagged": right,
    })  # fmt: skip
    found = findings([noise], "logits", "cpu", "small_cnn", Recipe(), Recipe())
    assert [trend.statement for trend in found.trends] == [
        "With 20% flipped labels, mislabelled samples have the lower AUM."
    ]
    assert any("no sample is flagged" in note for note in found.notes)


def test_the_ranking_is_that_of_mann_and_whitney() -> None:
    generator = np.random.default_rng(1)
    low, high = generator.integers(0, 6, 40).astype(float), generator.integers(2, 9, 30).astype(float)
    expected = stats.mannwhitneyu(high, low).statistic / (40 * 30)
    assert ranking(low, high) == pytest.approx(expected)
    assert ranking(np.array([0.0, 1.0]), np.array([2.0, 3.0])) == 1.0


def test_the_interval_is_that_of_welch() -> None:
    generator = np.random.default_rng(2)
    first, second = generator.normal(1, 2, 25), generator.normal(0, 1, 40)
    difference, (low, high) = mean_difference(first, second)
    expected = stats.ttest_ind(first, second, equal_var=False).confidence_interval(0.95)
    assert difference == pytest.approx(first.mean() - second.mean())
    assert (low, high) == pytest.approx((expected.low, expected.high))
