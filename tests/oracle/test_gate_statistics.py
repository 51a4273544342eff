"""The gate's statistics against enumeration, peers and simulation."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from scipy import stats

from freqrobust.numerics.statistics import detectable_drop, holm, mcnemar, mcnemar_power, sign_flip


@pytest.mark.parametrize(("lost", "gained"), [(0, 0), (1, 0), (5, 0), (5, 5), (12, 3), (3, 12), (60, 41), (700, 600)])
def test_mcnemar_is_the_binomial_test(lost: int, gained: int) -> None:
    expected = stats.binomtest(lost, lost + gained, 0.5, alternative="greater").pvalue if lost + gained else 1.0
    assert mcnemar(lost, gained) == pytest.approx(expected, rel=1e-9)


def test_holm_on_a_published_example() -> None:
    """Four p-values worked by hand: 0.005, 0.01, 0.03, 0.04 (the example of Wikipedia's article on the method)."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def holm_by_rejection(p_values: list[float], alpha: float) -> list[bool]:
    """The procedure as Holm states it: step down, stop at the first that is not small enough."""
    rejected = [False] * len(p_values)
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        if p_values[index] > alpha / (len(p_values) - rank):
            break
        rejected[index] = True
    return rejected


@pytest.mark.parametrize("seed", range(20))
def test_adjusted_p_values_reject_what_the_procedure_rejects(seed: int) -> None:
    generator = np.random.default_rng(seed)
    p_values = (generator.random(generator.integers(1, 9)) ** 3).tolist()
    for alpha in (0.001, 0.01, 0.05, 0.2):
        assert [p <= alpha for p in holm(p_values)] == holm_by_rejection(p_values, alpha)


def test_holm_of_nothing() -> None:
    assert holm([]) == []


@pytest.mark.parametrize(
    "differences", [[0, 0], [1], [-1], [2, -1, 0], [3, 3, -2, 1, -1, 1], [5, -4, 3, 2, 2, -1, 0, 1, 1, -2, 4, 1]]
)
def test_sign_flips_by_enumeration(differences: list[int]) -> None:
    flips = itertools.product((-1, 1), repeat=len(differences))
    sums = [sum(s * abs(d) for s, d in zip(signs, differences, strict=True)) for signs in flips]
    expected = sum(total >= sum(differences) for total in sums) / len(sums)
    assert sign_flip(Counter(differences)) == pytest.approx(expected)


@pytest.mark.parametrize(("lost", "gained"), [(0, 0), (5, 0), (12, 3), (3, 12), (300, 260)])
def test_sign_flips_of_ones_are_mcnemar(lost: int, gained: int) -> None:
    assert sign_flip({1: lost, -1: gained, 0: 7}) == pytest.approx(mcnemar(lost, gained), rel=1e-9)


@pytest.mark.parametrize(
    "differences",
    [
        {1: 300, -1: 1},
        {2: 60, -2: 41, 1: 80, -1: 75},
        {1: 200, 2: 100, 3: 20, -1: 10},
        {5: 40, -5: 60},
        {7: 1, 1: 90, -1: 60},
        {1: 3, -2: 2},
    ],
)
def test_sign_flips_have_all_digits(differences: dict[int, int]) -> None:
    """The count of all signs as whole numbers, also where the chance is tiny."""
    ways = [1]
    for value, count in differences.items():
        for _ in range(count):
            longer = [*ways, *[0] * abs(value)]
            ways = [many + (longer[k - abs(value)] if k >= abs(value) else 0) for k, many in enumerate(longer)]
    found = sum(value * count for value, count in differences.items())
    expected = Fraction(sum(ways[(found + len(ways) - 1) // 2 :]), sum(ways))
    assert sign_flip(differences) == pytest.approx(float(expected), rel=1e-11)


def test_many_samples_are_tested_with_all_digits() -> None:
    """Tests of 50,000 samples agree with another formula of the same chance, far beyond float64's smallest step from 1."""
    for lost, gained in ((25500, 24500), (4000, 3000), (3000, 4000), (9000, 6000)):
        expected = stats.binom.sf(lost - 1, lost + gained, 0.5)
        assert mcnemar(lost, gained) == pytest.approx(expected, rel=1e-9)
        assert sign_flip({1: lost, -1: gained, 0: 100}) == pytest.approx(expected, rel=1e-9)
    assert mcnemar(50_000, 0) == sign_flip({1: 10_000, 5: 40_000}) == 0.0
    assert sign_flip({-2: 30_000}) == 1.0
    several = {size * sign: 4000 + sign * 50 * size for size in range(1, 6) for sign in (1, -1)}
    found, variance = (sum(v**k * c for v, c in several.items()) for k in (1, 2))
    assert sign_flip(several) == pytest.approx(stats.norm.sf((found - 1) / math.sqrt(variance)), rel=0.02)


def test_sign_flips_against_scipy() -> None:
    generator = np.random.default_rng(0)
    differences = generator.integers(-2, 4, size=300)
    found = stats.permutation_test(
        (differences,), np.sum, permutation_type="samples", alternative="greater", n_resamples=20000, rng=generator
    )
    assert sign_flip(Counter(differences.tolist())) == pytest.approx(found.pvalue, abs=0.003)


@pytest.mark.parametrize(
    ("n", "lost", "gained", "alpha"), [(12, 0.3, 0.1, 0.1), (15, 0.5, 0.0, 0.02), (9, 0.2, 0.2, 0.3)]
)
def test_power_by_enumeration(n: int, lost: float, gained: float, alpha: float) -> None:
    """Over every count of lost and gained samples, with its trinomial chance."""
    expected = 0.0
    for a, b in itertools.product(range(n + 1), repeat=2):
        if a + b <= n and mcnemar(a, b) <= alpha:
            ways = math.comb(n, a) * math.comb(n - a, b)
            expected += ways * lost**a * gained**b * (1 - lost - gained) ** (n - a - b)
    assert mcnemar_power(n, lost, gained, alpha) == pytest.approx(expected, rel=1e-9)


def test_power_by_simulation() -> None:
    n, lost, gained, alpha = 500, 0.08, 0.04, 0.05 / 7
    draws = np.random.default_rng(0).multinomial(n, [lost, gained, 1 - lost - gained], size=20000)
    critical = {d: next((c for c in range(d + 1) if stats.binom.sf(c - 1, d, 0.5) <= alpha), d + 1) for d in range(200)}
    seen = np.mean([a >= critical[a + b] for a, b, _ in draws.tolist()])
    assert mcnemar_power(n, lost, gained, alpha) == pytest.approx(seen, abs=0.012)


def test_without_a_difference_the_power_is_at_most_alpha() -> None:
    for churn in (0.01, 0.1, 0.4):
        assert mcnemar_power(500, churn, churn, 0.05) <= 0.05
    assert mcnemar_power(500, 0.0, 0.0, 0.05) == 0.0


def test_the_power_at_any_level() -> None:
    """Without a discordant pair nothing is found, also where half of all p-values would be small enough."""
    assert mcnemar_power(12, 0.2, 0.0, 0.6) == pytest.approx(1 - 0.8**12)


@pytest.mark.parametrize("n", [50, 100, 500, 5000, 50_000])
@pytest.mark.parametrize("churn", [0.0, 0.01, 0.1])
def test_the_detectable_drop_has_that_power_and_a_smaller_one_has_not(n: int, churn: float) -> None:
    drop = detectable_drop(n, 0.01, churn)
    assert drop is not None
    assert mcnemar_power(n, churn + drop, churn, 0.01) >= 0.8
    assert mcnemar_power(n, churn + drop - 0.2 / n, churn, 0.01) < 0.8


def test_too_few_samples_see_nothing() -> None:
    assert detectable_drop(4, 0.05, 0.0) is None  # four lost of four: p = 1/16
    assert detectable_drop(5, 0.05, 0.0) is not None
    assert detectable_drop(100, 0.05, 0.5) is None
