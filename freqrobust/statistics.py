"""Intervals and paired tests on counts."""

from __future__ import annotations

import math

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


def by_chance(predicted: list[int], actual: list[int], n: int) -> float:
    """Accuracy expected if predictions and labels were independent: sum over k of p(predicted k) p(label k).

    Args:
        predicted: how often each class was predicted.
        actual: how often each class occurs, same length.
        n: the number of samples.
    """
    return sum(p * a for p, a in zip(predicted, actual, strict=True)) / (n * n)
