"""Intervals, paired tests on counts, and what such a test can see. Derived in ``docs/statistics.md``."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: The 97.5 % point of the standard normal distribution.
Z95 = 1.959963984540054


def wilson(correct: int, n: int, z: float = Z95) -> tuple[float, float]:
    """Wilson score interval of a proportion (Wilson 1927).

    Example:
        >>> tuple(round(x, 4) for x in wilson(81, 263))  # Newcombe 1998, Stat. Med. 17:857, table I
        (0.2553, 0.3662)
    """
    if n <= 0:
        raise ValueError(f"expected n > 0, but got {n}")
    p = correct / n
    centre = p + z * z / (2 * n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    low = 0.0 if correct == 0 else max(0.0, (centre - half) / scale)
    high = 1.0 if correct == n else min(1.0, (centre + half) / scale)
    return low, high


def clopper_pearson_lower(successes: int, n: int, alpha: float) -> float:
    """One-sided lower confidence bound of a proportion, at confidence ``1 - alpha`` (Clopper and Pearson 1934).

    The ``alpha`` quantile of ``Beta(k, n - k + 1)``: the smallest proportion under which ``k`` or more successes of ``n``
    have at least the probability ``alpha``; 0 without a success.

    Example:
        >>> round(clopper_pearson_lower(1000, 1000, 0.001), 6) == round(0.001 ** (1 / 1000), 6)
        True
    """
    from scipy.special import betaincinv

    if not 0 <= successes <= n or n <= 0:
        raise ValueError(f"expected 0 <= successes <= n and n > 0, but got {successes} of {n}")
    if not 0 < alpha < 1:
        raise ValueError(f"expected 0 < alpha < 1, but got {alpha}")
    return float(betaincinv(successes, n - successes + 1, alpha)) if successes else 0.0


def paired_difference(
    both: int, only_first: int, only_second: int, neither: int, z: float = Z95
) -> tuple[float, tuple[float, float]]:
    """Difference of two paired proportions, first minus second, with Newcombe's score interval.

    Method 10 of Newcombe 1998, Stat. Med. 17:2635: the Wilson limits of both proportions, combined with
    the correlation phi of the pairs (continuity-corrected when positive).

    Returns:
        The difference and its interval, as shares.
    """
    n = both + only_first + only_second + neither
    p1, p2 = (both + only_first) / n, (both + only_second) / n
    difference = (only_first - only_second) / n
    low1, high1 = wilson(both + only_first, n, z)
    low2, high2 = wilson(both + only_second, n, z)
    cross: float
    margins = (both + only_first) * (only_second + neither) * (both + only_second) * (only_first + neither)
    phi = 0.0
    if margins > 0:
        cross = both * neither - only_first * only_second
        if cross > 0:
            cross = max(cross - n / 2, 0)
        phi = cross / math.sqrt(margins)

    def width(a: float, b: float) -> float:
        return math.sqrt(max(a * a - 2 * phi * a * b + b * b, 0.0))

    low = difference - width(p1 - low1, high2 - p2)
    high = difference + width(high1 - p1, p2 - low2)
    return difference, (max(-1.0, low), min(1.0, high))


def independent_difference(
    correct1: int, n1: int, correct2: int, n2: int, z: float = Z95
) -> tuple[float, tuple[float, float]]:
    """Difference of two proportions of different samples, first minus second, with Newcombe's score interval.

    Method 10 of Newcombe 1998, Stat. Med. 17:873: the Wilson limits of both, square-and-add.

    Example:
        >>> difference, (low, high) = independent_difference(56, 70, 48, 80)  # Newcombe 1998, table II (a)
        >>> round(difference, 4), round(low, 4), round(high, 4)
        (0.2, 0.0524, 0.3339)
    """
    p1, p2 = correct1 / n1, correct2 / n2
    low1, high1 = wilson(correct1, n1, z)
    low2, high2 = wilson(correct2, n2, z)
    low = p1 - p2 - math.hypot(p1 - low1, high2 - p2)
    high = p1 - p2 + math.hypot(high1 - p1, p2 - low2)
    return p1 - p2, (max(-1.0, low), min(1.0, high))


def mcnemar(only_first: int, only_second: int) -> float:
    """One-sided exact McNemar test: the chance of at least ``only_first`` wins among the discordant pairs.

    A small value says that the first is better than the second.

    Example:
        >>> mcnemar(5, 0)
        0.03125
    """
    discordant = only_first + only_second
    if discordant == 0:
        return 1.0
    tail = sum(math.comb(discordant, k) for k in range(only_first, discordant + 1))
    return float(tail / 2**discordant)


def sign_flip(differences: Mapping[int, int]) -> float:
    """One-sided exact sign-flip test of paired whole numbers (Fisher 1935, The Design of Experiments, sec. 21).

    Without an effect each difference is as likely to be ``+d`` as ``-d``. Returned is the chance of a sum at least as
    large as the one found, over all ``2^n`` signs. With differences of -1, 0 and 1 it is :func:`mcnemar`.

    Args:
        differences: how many samples have which difference, first minus second.

    Example:
        >>> sign_flip({1: 5, 0: 95}) == mcnemar(5, 0)
        True
    """
    found = sum(value * count for value, count in differences.items())
    chances, lowest = np.ones(1), 0  # of each sum from ``lowest`` upwards
    for size in sorted({abs(value) for value in differences} - {0}):
        count = differences.get(size, 0) + differences.get(-size, 0)
        spread = np.zeros(2 * size * count + 1)
        spread[:: 2 * size] = _binomial_half(count)
        chances, lowest = np.convolve(chances, spread), lowest - size * count
    return float(min(1.0, chances[max(found - lowest, 0) :].sum()))


def _binomial_half(n: int) -> NDArray[np.float64]:
    """Chances of 0 to ``n`` heads of ``n`` fair coins."""
    ways, found = 1, []
    for k in range(n + 1):
        found.append(ways / 2**n)
        ways = ways * (n - k) // (k + 1)
    return np.array(found)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values of Holm's step-down procedure (Holm 1979, Scand. J. Statist. 6:65), in the order given.

    Rejecting where the adjusted value is at most ``alpha`` keeps the chance of any false alarm among all of them
    at ``alpha``, however they depend on each other.

    Example:
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]
    """
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted


def mcnemar_power(n: int, lost: float, gained: float, alpha: float) -> float:
    """The exact chance that :func:`mcnemar` gives at most ``alpha``.

    The number of discordant pairs is binomial, and of those the lost ones are (Miettinen 1968, Biometrics 24:339):
    ``sum over d of P(d of n discordant) P(at least c(d) of d lost)``, where ``c(d)`` is the smallest count whose
    p-value is at most ``alpha``.

    Args:
        n: samples.
        lost: share of samples that are right before and wrong after.
        gained: share of samples that are wrong before and right after.
        alpha: the level of the test.
    """
    from scipy.special import betainc, gammaln, xlog1py, xlogy

    share = lost + gained
    if share <= 0:
        return 0.0
    reach = 9 * math.sqrt(n * share) + 9  # beyond, the chances are below 1e-15
    d = np.arange(max(0, math.floor(n * share - reach)), min(n, math.ceil(n * share + reach)) + 1)
    log_chance = gammaln(n + 1) - gammaln(d + 1) - gammaln(n - d + 1) + xlogy(d, share) + xlog1py(n - d, -share)
    low, high = np.zeros(len(d), dtype=np.int64), d + 1  # c(d) is in (low, high]
    while (high - low > 1).any():
        middle = (low + high) // 2
        seen = betainc(np.maximum(middle, 1), np.maximum(d - middle + 1, 1), 0.5) <= alpha
        seen |= middle > d
        high, low = np.where(seen, middle, high), np.where(seen, low, middle)
    reached = np.where(high <= d, betainc(np.maximum(high, 1), np.maximum(d - high + 1, 1), lost / share), 0.0)
    return float((np.exp(log_chance) * reached).sum())


@lru_cache(maxsize=256)
def detectable_drop(n: int, alpha: float, churn: float, power: float = 0.8) -> float | None:
    """The smallest drop of accuracy that a paired test of ``n`` samples finds with that power.

    Args:
        n: samples.
        alpha: the level of the test, after correction.
        churn: share of samples assumed to become right all the same; ``churn + drop`` become wrong.
        power: the chance of finding it.

    Returns:
        The drop as a share, to a tenth of a sample; None where even the largest possible drop is not found.
    """
    low, high = 0.0, 1 - 2 * churn
    if high <= 0 or mcnemar_power(n, churn + high, churn, alpha) < power:
        return None
    while high - low > 0.1 / n:
        middle = (low + high) / 2
        if mcnemar_power(n, churn + middle, churn, alpha) >= power:
            high = middle
        else:
            low = middle
    return high


def by_chance(predicted: list[int], actual: list[int], n: int) -> float:
    """Accuracy expected if predictions and labels were independent: sum over k of p(predicted k) p(label k).

    Args:
        predicted: how often each class was predicted.
        actual: how often each class occurs, same length.
        n: the number of samples.
    """
    return sum(p * a for p, a in zip(predicted, actual, strict=True)) / (n * n)
