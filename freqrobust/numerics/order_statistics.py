"""Intervals and bands that follow from the order of the samples alone, whatever their distribution."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from freqrobust.numerics.statistics import fair_coins


def dkw_half_width(n: int, alpha: float = 0.05) -> float:
    """Half the width of a band that contains a distribution function at all points at once.

    ``P(sup_t |F_n(t) - F(t)| > h) <= 2 exp(-2 n h^2)`` for ``n`` independent samples (Dvoretzky, Kiefer and Wolfowitz
    1956, with the constant of Massart 1990, Ann. Probab. 18:1269), solved for ``h`` where the right side is ``alpha``.

    Args:
        n: the number of samples, at least 1.
        alpha: the probability that the band does not contain the distribution function at some point.

    Example:
        >>> round(dkw_half_width(500), 4)
        0.0607
    """
    if n <= 0:
        raise ValueError(f"expected n > 0, but got {n}")
    return min(1.0, math.sqrt(math.log(2 / alpha) / (2 * n)))


@lru_cache(maxsize=256)
def median_ranks(n: int, alpha: float = 0.05) -> tuple[int, int] | None:
    """The ranks of the two order statistics between which the median is, ``1 <= low <= high <= n``.

    The number of samples below the median is at most ``B ~ Binomial(n, 1/2)`` in distribution, and so is the number
    above it: ``[X_(r), X_(n + 1 - r)]`` contains the median with a probability of at least ``1 - 2 P(B < r)``, also
    with ties. ``r`` is the largest rank for which this is at least ``1 - alpha``. (David and Nagaraja 2003, Order
    Statistics, sec. 7.1.)

    Returns:
        The ranks ``r`` and ``n + 1 - r``; None where even the whole range of the samples is too small, ``n < 6`` for
        ``alpha = 0.05``.

    Example:
        >>> median_ranks(100), median_ranks(5)
        ((40, 61), None)
    """
    rank = int(np.searchsorted(np.cumsum(fair_coins(n)), alpha / 2, side="right"))
    return (rank, n + 1 - rank) if rank > 0 else None
