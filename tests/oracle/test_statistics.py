"""Intervals and paired tests against scipy, published numbers and simulations."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from freqrobust.numerics.statistics import by_chance, mcnemar, paired_difference, wilson


@pytest.mark.parametrize("n", [1, 2, 10, 263, 500, 10_000])
def test_wilson_equals_scipy(n) -> None:
    for k in sorted({0, 1, n // 3, n // 2, n - 1, n}):
        expected = stats.binomtest(k, n).proportion_ci(confidence_level=0.95, method="wilson")
        np.testing.assert_allclose(wilson(k, n), [expected.low, expected.high], atol=1e-12)


def test_wilson_contains_the_estimate_and_ends_at_certainty() -> None:
    for n in (1, 7, 500):
        assert wilson(0, n)[0] == 0.0
        assert wilson(n, n)[1] == 1.0
        assert all(wilson(k, n)[0] <= k / n <= wilson(k, n)[1] for k in range(n + 1))
    with pytest.raises(ValueError, match="n > 0"):
        wilson(0, 0)


def test_mcnemar_equals_the_exact_binomial_test() -> None:
    for first, second in [(0, 0), (1, 0), (0, 1), (5, 0), (5, 5), (30, 12), (12, 30), (400, 350), (3000, 2900)]:
        n = first + second
        expected = stats.binomtest(first, n, alternative="greater").pvalue if n else 1.0
        assert mcnemar(first, second) == pytest.approx(expected, rel=1e-9)


# ---------------------------------------------------------------- Newcombe's paired interval


def test_paired_difference_equals_a_published_table() -> None:
    """Complete response before and after consolidation therapy (Cavo et al. 2012), 59, 6, 16 and 80 pairs.

    Newcombe's square-and-add interval as Fagerland, Lydersen and Laake (2017), "Statistical Analysis of
    Contingency Tables", ch. 8, give it: -0.0621 (-0.1186 to -0.0046).
    """
    points, (low, high) = paired_difference(59, 6, 16, 80)
    assert (round(points, 4), round(low, 4), round(high, 4)) == (-0.0621, -0.1186, -0.0046)


def method_10(e: int, f: int, g: int, h: int) -> tuple[float, float]:
    """Newcombe (1998), Stat. Med. 17:2635, method 10, straight from its description, limits by scipy."""
    n = e + f + g + h
    first = stats.binomtest(e + f, n).proportion_ci(method="wilson")
    second = stats.binomtest(e + g, n).proportion_ci(method="wilson")
    p1, p2 = (e + f) / n, (e + g) / n
    product = (e + f) * (g + h) * (e + g) * (f + h)
    phi = 0.0
    if product > 0:
        numerator = e * h - f * g
        if numerator > n / 2:
            numerator -= n / 2
        elif numerator >= 0:
            numerator = 0
        phi = numerator / np.sqrt(product)
    dl1, du1, dl2, du2 = p1 - first.low, first.high - p1, p2 - second.low, second.high - p2
    delta = np.sqrt(dl1**2 - 2 * phi * dl1 * du2 + du2**2)
    epsilon = np.sqrt(du1**2 - 2 * phi * du1 * dl2 + dl2**2)
    return p1 - p2 - delta, p1 - p2 + epsilon


def tables() -> list[tuple[int, int, int, int]]:
    rng = np.random.default_rng(0)
    drawn = [tuple(map(int, rng.multinomial(n, rng.dirichlet([1, 1, 1, 1])))) for n in (5, 36, 500) for _ in range(40)]
    return [*drawn, (10, 0, 0, 0), (0, 10, 0, 0), (0, 0, 0, 10), (0, 5, 5, 0), (36, 12, 2, 0), (100, 0, 0, 400)]


@pytest.mark.parametrize("table", tables())
def test_paired_difference_equals_the_description(table) -> None:
    points, interval = paired_difference(*table)
    e, f, g, h = table
    assert points == pytest.approx((f - g) / sum(table))
    np.testing.assert_allclose(interval, np.clip(method_10(e, f, g, h), -1, 1), atol=1e-12)
    assert interval[0] <= points <= interval[1]
    # the other way round: everything changes its sign
    back, (low, high) = paired_difference(e, g, f, h)
    assert back == -points
    np.testing.assert_allclose((-high, -low), interval, atol=1e-12)


@pytest.mark.parametrize(
    "cells", [(0.7, 0.2, 0.02, 0.08), (0.25, 0.25, 0.25, 0.25), (0.9, 0.05, 0.05, 0.0), (0.1, 0.6, 0.1, 0.2)]
)
def test_paired_interval_covers_the_truth(cells) -> None:
    """95 % nominal; over 4,000 draws of 200 pairs at least 93 %, and not everything either."""
    rng = np.random.default_rng(1)
    truth = cells[1] - cells[2]
    draws = rng.multinomial(200, cells, size=4000)
    covered = 0
    for row in draws:
        _, (low, high) = paired_difference(*map(int, row))
        covered += low <= truth <= high
    assert 0.93 <= covered / len(draws) <= 0.985


# ---------------------------------------------------------------- chance


def test_by_chance_is_the_mean_over_permutations() -> None:
    """Shuffling the predictions makes them independent of the labels and keeps both histograms."""
    rng = np.random.default_rng(0)
    labels = rng.choice(4, 300, p=[0.5, 0.3, 0.1, 0.1])
    predictions = rng.choice(4, 300, p=[0.1, 0.7, 0.2, 0.0])
    found = by_chance(np.bincount(predictions, minlength=4).tolist(), np.bincount(labels, minlength=4).tolist(), 300)
    shuffled = [(rng.permutation(predictions) == labels).mean() for _ in range(4000)]
    assert abs(found - np.mean(shuffled)) < 4 * np.std(shuffled) / np.sqrt(len(shuffled))


def test_by_chance_of_a_constant_prediction_is_the_share_of_that_class() -> None:
    assert by_chance([0, 10, 0], [3, 5, 2], 10) == pytest.approx(0.5)
