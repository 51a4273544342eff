"""Intervals, paired tests on counts, and what such a test can see. Derived in ``docs/statistics.md``."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Numbers of discordant pairs whose critical counts are computed together.
_BLOCK = 1024
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
    return min(1.0, float(fair_coins(only_first + only_second)[only_first:].sum()))


def fair_coins(n: int) -> NDArray[np.float64]:
    """Chances of 0 to ``n`` heads of ``n`` fair coins, ``(n + 1,)``; those below the smallest float are 0.

    From the middle outwards, where ``C(n, (n+1)//2) / 2^n`` is the product of ``(2j - 1) / (2j)`` and the ratio of
    neighbours is ``(n - k) / (k + 1)``, so that the cost is linear in ``n``.
    """
    middle = (n + 1) // 2
    j, k = np.arange(1, middle + 1), np.arange(middle, n)
    upper = np.prod((2 * j - 1) / (2 * j)) * np.concatenate([[1.0], np.cumprod((n - k) / (k + 1))])
    lower = upper[::-1] if n % 2 else upper[:0:-1]
    return np.concatenate([lower, upper])


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
    counts = Counter[int]()
    for value, count in differences.items():
        counts[abs(value)] += count
    sizes = np.array([size for size, count in counts.items() if size and count], dtype=np.int64)
    of_each = np.array([counts[size] for size in sizes.tolist()], dtype=np.int64)
    total = int(sizes @ of_each)
    # the sum of those that are positive, which is between 0 and the total, and as often x as the total minus x
    positive = (sum(value * count for value, count in differences.items()) + total) // 2
    if 2 * positive <= total:
        return 1.0 - _sum_tail(sizes, of_each, total - positive + 1) if positive else 1.0
    return _sum_tail(sizes, of_each, positive)


def _sum_tail(sizes: NDArray[np.int64], counts: NDArray[np.int64], least: int) -> float:
    """Chance that the sum of all sizes, ``counts`` of each and each with probability 1/2, is at least ``least``.

    With ``P_t(x) = P(x) exp(t x) / M(t)``, where the moment-generating function is ``M(t) = prod((1 + exp(t size)) / 2) ^
    count``, the chance is ``M(t) exp(-t least) sum over j >= 0 of exp(-t j) P_t(least + j)``. The ``t`` that moves the
    mean to ``least`` keeps all digits of small chances (Esscher 1932, Skand. Aktuarietidskr. 15:175). ``P_t`` is a
    product of binomial characteristic functions, transformed back within 12 standard deviations of its mean.

    Args:
        least: more than half of the largest sum.
    """
    highest = int(sizes @ counts)
    if least >= highest:
        return 0.5 ** int(counts.sum()) if least == highest else 0.0

    def chosen(tilt: float) -> NDArray[np.float64]:
        return np.asarray(1 / (1 + np.exp(-tilt * sizes)))

    low, high = 0.0, 1.0
    while float(sizes * counts @ chosen(high)) < least:
        low, high = high, 2 * high
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if float(sizes * counts @ chosen(middle)) < least else (low, middle)
    tilt, share = high, chosen(high)
    deviation = math.sqrt(float(sizes * sizes * counts @ (share * (1 - share))))
    length = min(highest + 1, 24 * math.ceil(deviation) + 64 * int(sizes.max()))
    angles = 2 * np.pi * np.fft.fftfreq(length)[:, None]
    transform = np.exp(-1j * angles[:, 0] * least)
    transform *= ((1 - share + share * np.exp(1j * angles * sizes)) ** counts).prod(axis=1)
    above = np.arange(highest - least + 1 if length > highest else min(length // 2, highest - least + 1))
    chances = np.fft.fft(transform).real[above] / length
    log_factor = float(counts @ (np.logaddexp(0.0, tilt * sizes) - math.log(2))) - tilt * least
    return math.exp(log_factor) * float(np.exp(-tilt * above) @ chances)


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
    blocks = range(int(d[0]) // _BLOCK, int(d[-1]) // _BLOCK + 1)
    least = np.concatenate([_critical_counts(block, alpha) for block in blocks])[d - blocks[0] * _BLOCK]
    reached = np.where(least <= d, betainc(np.maximum(least, 1), np.maximum(d - least + 1, 1), lost / share), 0.0)
    return float((np.exp(log_chance) * reached).sum())


@lru_cache(maxsize=256)
def _critical_counts(block: int, alpha: float) -> NDArray[np.int64]:
    """The ``c(d)`` of :func:`mcnemar_power`, ``d + 1`` where no count is enough, for a block of ``_BLOCK`` values of ``d``.

    They depend on nothing but ``alpha``, so that all cells of a comparison and all steps of a search share them.
    """
    from scipy.special import betainc

    d = np.arange(block * _BLOCK, (block + 1) * _BLOCK)

    def enough(count: NDArray[np.int64]) -> NDArray[np.bool_]:
        tail = betainc(np.maximum(count, 1), np.maximum(d - count + 1, 1), 0.5)
        return np.asarray((count > 0) & ((tail <= alpha) | (count > d)))

    near = (d / 2 - NormalDist().inv_cdf(alpha) * np.sqrt(d) / 2).astype(np.int64)
    low, high = np.clip(near - 3, 0, d), np.clip(near + 5, 1, d + 1)
    low, high = np.where(enough(low), 0, low), np.where(enough(high), high, d + 1)  # c(d) is in (low, high]
    while (high - low > 1).any():
        middle = (low + high) // 2
        low, high = np.where(enough(middle), low, middle), np.where(enough(middle), middle, high)
    high.flags.writeable = False
    return np.asarray(high)


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

    def found(drop: float) -> bool:
        return mcnemar_power(n, churn + drop, churn, alpha) >= power

    low, high = 0.0, 1 - 2 * churn
    if high <= 0 or not found(high):
        return None
    # about where drop = z sqrt((2 churn + drop) / n): the search begins near the normal approximation
    z = (NormalDist().inv_cdf(alpha) + NormalDist().inv_cdf(1 - power)) ** 2 / n
    near = (z + math.sqrt(z * z + 8 * churn * z)) / 2
    low = 0.95 * near if 0.95 * near < high and not found(0.95 * near) else low
    high = 1.05 * near if low < 1.05 * near < high and found(1.05 * near) else high
    while high - low > 0.1 / n:
        middle = (low + high) / 2
        if found(middle):
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
