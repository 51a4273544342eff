"""Robustness curves against loops, enumeration, SciPy and simulations."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from scipy import integrate, stats

from freqrobust.harness.outcome import Outcome, distances, robust_under
from freqrobust.numerics.order_statistics import dkw_half_width, median_ranks
from freqrobust.numerics.statistics import wilson
from freqrobust.numerics.threat import Norm, Threat, allowance
from freqrobust.results.robustness_curve import BUDGETS, RobustnessCurve
from freqrobust.results.robustness_tables import distance_text, eps_axis, summary_row


def drawn(n: int, seed: int = 0, wrong: float = 0.1, never: float = 0.1) -> np.ndarray:
    """Distances with ties, zeros and infinities."""
    generator = np.random.default_rng(seed)
    values = np.round(generator.gamma(2.0, 0.01, n), 3)
    values[generator.random(n) < wrong] = 0
    values[generator.random(n) < never] = np.inf
    return values.astype(np.float32)


@pytest.mark.parametrize("n", [1, 2, 3, 20, 101])
def test_the_curve_is_a_count(n: int) -> None:
    values = drawn(n)
    curve = RobustnessCurve("linf", values)
    for eps in [0.0, *np.unique(values[np.isfinite(values)]).tolist(), 0.0123, 0.5, 1.0]:
        robust = 0
        for distance in values:
            if not distance <= np.float32(allowance(eps)):
                robust += 1
        rate = curve.at(eps)
        assert (rate.eps, rate.robust, rate.n) == (eps, robust, n)
        assert rate.accuracy == robust / n
        assert rate.ci95 == wilson(robust, n)


@pytest.mark.parametrize("eps", [0.0, 1e-7, 0.5 / 255, 1 / 255, 8 / 255, 0.3, 1.0, 12.0, 123.4])
@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_the_curve_at_a_budget_is_the_worst_case_of_the_same_examples(norm: Norm, eps: float) -> None:
    """Distances around the budget and around the largest norm that counts as within it, number by number of float32."""
    around = [np.float32(eps), np.float32(allowance(eps))]
    for _ in range(4):
        around += [np.nextafter(value, np.float32(end)) for value in around for end in (-1, np.inf)]
    values = np.array([*np.clip(around, 0, None), 0, 0, np.inf], dtype=np.float32)
    clean = Outcome(np.arange(len(values)) % 7 > 0, np.zeros(len(values), dtype=np.int32))
    outcome = Outcome(clean.right, clean.predictions, {norm: values})
    curve = RobustnessCurve(norm, distances(clean, outcome, norm))
    within = robust_under(clean, [outcome], Threat(norm, eps))
    assert curve.at(eps).robust == within.sum()
    assert 0 < within.sum() < clean.right.sum()


def test_the_clean_accuracy_counts_small_distances_as_correct() -> None:
    curve = RobustnessCurve("linf", np.array([0, 1e-7, 0.1, np.inf], dtype=np.float32))
    assert (curve.clean.eps, curve.clean.robust, curve.clean.accuracy) == (0, 3, 0.75)
    assert summary_row(curve, 0.1)[0].startswith("75.0 ")


@pytest.mark.parametrize("most", [None, 5])
def test_steps_are_the_curve_between_them(most: int | None) -> None:
    values = drawn(60)
    curve = RobustnessCurve("linf", values)
    eps, shares = curve.steps(most)
    assert eps[0] == 0
    assert (np.diff(eps) > 0).all()
    assert eps[-1] == values[np.isfinite(values)].max()
    for x, share in zip(eps, shares, strict=True):
        assert share == curve.at(x).accuracy
    if most is None:
        for (x, share), (after, _) in pairwise(zip(eps, shares, strict=True)):
            assert curve.at((x + after) / 2).accuracy == share
    else:
        assert len(eps) <= most + 1


@pytest.mark.parametrize("n", [1, 5, 6, 7, 8, 20, 25, 26, 99, 100, 1000, 2001])
@pytest.mark.parametrize("alpha", [0.05, 0.01])
def test_ranks_of_the_median_against_scipy(n: int, alpha: float) -> None:
    """The largest rank whose binomial tail is at most half of alpha, by trying each."""
    fitting = [r for r in range(1, n + 1) if stats.binom.cdf(r - 1, n, 0.5) <= alpha / 2]
    assert median_ranks(n, alpha) == ((max(fitting), n + 1 - max(fitting)) if fitting else None)


@pytest.mark.parametrize("n", [6, 7, 9, 12])
def test_the_interval_of_the_median_covers_by_enumeration(n: int) -> None:
    """All 2^n ways in which samples of a continuous distribution are below or above its median."""
    ranks = median_ranks(n)
    assert ranks is not None
    low, high = ranks
    covered = sum(low <= bin(pattern).count("1") <= high - 1 for pattern in range(2**n))  # X_(low) <= m < X_(high)
    assert covered / 2**n >= 0.95
    tighter = sum(low + 1 <= bin(pattern).count("1") <= high - 2 for pattern in range(2**n))
    assert tighter / 2**n < 0.95


def test_the_band_by_its_formula_and_by_simulation() -> None:
    for n, alpha in ((10, 0.05), (500, 0.05), (500, 0.01)):
        assert 2 * math.exp(-2 * n * dkw_half_width(n, alpha) ** 2) == pytest.approx(alpha)
    assert dkw_half_width(1) == 1.0  # a share is in [0, 1]
    with pytest.raises(ValueError, match="n > 0"):
        dkw_half_width(0)
    generator = np.random.default_rng(0)
    n, repetitions = 50, 4000
    ordered = np.sort(generator.random((repetitions, n)), axis=1)
    above = (np.arange(1, n + 1) / n - ordered).max(axis=1)
    below = (ordered - np.arange(n) / n).max(axis=1)
    outside = (np.maximum(above, below) > dkw_half_width(n)).mean()
    assert 0.03 < outside <= 0.055  # the inequality is nearly tight
    assert stats.kstwo.sf(dkw_half_width(n), n) == pytest.approx(outside, abs=0.012)


def test_median_and_half_accuracy() -> None:
    values = np.array([0, 0, 0.5, 0.1, 0.3, 0.2, np.inf], dtype=np.float32)
    curve = RobustnessCurve("l2", values)
    median = curve.median()
    assert median is not None
    assert median.value == pytest.approx(0.3)
    assert (median.low, median.high) == (0.0, math.inf)  # five samples have no interval
    half = curve.half_accuracy_eps()
    assert half.value == pytest.approx(0.2)
    assert curve.at(half.value).accuracy <= 0.5 < curve.at(0.199).accuracy
    assert (half.low, half.high) == (0.0, math.inf)  # seven: from the first to the last


@pytest.mark.parametrize("n", [1, 2, 9, 10, 60])
def test_the_half_accuracy_eps_is_the_smallest(n: int) -> None:
    values = drawn(n, seed=n)
    curve = RobustnessCurve("linf", values)
    candidates = [0.0, *values[np.isfinite(values)].tolist()]
    expected = min((eps for eps in candidates if curve.at(eps).accuracy <= 0.5), default=math.inf)
    assert curve.half_accuracy_eps().value == pytest.approx(expected)


def test_intervals_of_the_median_are_order_statistics() -> None:
    values = drawn(60, wrong=0.2)
    curve = RobustnessCurve("linf", values)
    attacked = sorted(values[values > 0].tolist())
    r = int(stats.binom.ppf(0.025, len(attacked), 0.5))
    median = curve.median()
    assert median is not None
    assert median.value == pytest.approx(float(np.median(attacked)))
    assert (median.low, median.high) == (attacked[r - 1], attacked[len(attacked) - r])
    everything = sorted(values.tolist())
    half = curve.half_accuracy_eps()
    assert (half.low, half.high) == (everything[21], everything[38])  # ranks 22 and 39 of 60


@pytest.mark.parametrize("up_to", [0.004, 0.02, 1.0])
def test_the_area_by_numerical_integration(up_to: float) -> None:
    curve = RobustnessCurve("linf", drawn(80))
    bends = [x for x in curve.steps()[0].tolist() if 0 < x < up_to]

    def area(change: float) -> float:
        pieces = [0.0, *bends, up_to]
        total = 0.0
        for a, b in pairwise(pieces):
            value, _ = integrate.quad(lambda t: min(1, max(0, curve.at(t).accuracy + change)), a, b)
            total += value
        return total

    found = curve.area(up_to)
    assert found.value == pytest.approx(area(0), rel=1e-5)
    assert found.value == pytest.approx(np.minimum(curve.distances.astype(float), up_to).mean())
    assert found.low == pytest.approx(area(-curve.half_width), rel=1e-5)
    assert found.high == pytest.approx(area(curve.half_width), rel=1e-5)


def test_the_interval_of_the_area_covers() -> None:
    """Distances uniform on [0, 1]: the restricted mean up to 0.5 is 0.375."""
    generator = np.random.default_rng(1)
    covered = 0
    for _ in range(300):
        estimate = RobustnessCurve("l2", generator.random(40).astype(np.float32)).area(0.5)
        covered += estimate.low <= 0.375 <= estimate.high
    assert covered / 300 >= 0.95


@pytest.mark.parametrize("value", [0.0, np.inf])
def test_nothing_but_zeros_or_infinities(value: float) -> None:
    curve = RobustnessCurve("linf", np.full(10, value, dtype=np.float32))
    median = curve.median()
    assert (median is None) if value == 0 else (median == (math.inf,) * 3)
    assert curve.half_accuracy_eps() == (value,) * 3
    eps, shares = curve.steps()
    assert eps.tolist() == [0.0]
    assert shares.tolist() == [float(value > 0)]
    assert curve.area(0.1).value == pytest.approx(0.1 if value else 0)
    assert eps_axis([curve], [0.1]).high >= 0.1
    assert eps_axis([curve]).high > 0


def test_the_axis_is_logarithmic_where_curves_differ_much() -> None:
    near, far = (RobustnessCurve("linf", np.linspace(0.5, 1.5, 41).astype(np.float32) * m) for m in (0.001, 0.05))
    for curves, logarithmic in (([near], False), ([far], False), ([near, far], True)):
        axis = eps_axis(curves)
        assert axis.logarithmic == logarithmic
        assert axis.low <= 0.001 * 0.55
        assert eps_axis(curves, logarithmic=not logarithmic).logarithmic != logarithmic
    assert eps_axis([near, far]).low > 0
    assert eps_axis([near, far]).high >= 0.05 * 1.45
    assert eps_axis([near], [0.3]).logarithmic  # budgets are shown as well
    assert eps_axis([near], [0.3]).high >= 0.3


def test_texts_of_distances() -> None:
    texts = [distance_text("linf", value / 255) for value in (0, 0.00123, 0.5, 7.999, 30, 123.4)]
    assert texts == ["0", "0.00123", "0.500", "8.00", "30.0", "123"]
    assert distance_text("l2", math.inf) == "inf"


def test_budgets_are_multiples_of_those_of_linf() -> None:
    for norm, largest in (("linf", 8 / 255), ("l2", 0.5), ("l1", 12.0)):
        assert [eps / largest for eps in BUDGETS[norm]] == pytest.approx([1 / 16, 1 / 8, 1 / 4, 1 / 2, 1])  # type: ignore[index]
