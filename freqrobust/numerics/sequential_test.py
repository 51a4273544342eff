"""When a threshold is decided before all samples are measured: an exact group-sequential test.

The question is the one that all ``n`` samples would answer: are at least ``need`` of them right? Samples come in
random order and without replacement, so that the number right at each look is a hypergeometric walk. At look ``j``,
after ``k_j`` samples, the threshold is passed once ``upper[j]`` are right and failed once no more than ``lower[j]``
are. Each boundary is the nearest one that keeps the chance of having crossed it by look ``j`` within
``error * k_j / n``: linear alpha spending (Lan and DeMets 1983, Biometrika 70:659), computed by the exact
recursion of Armitage, McPherson and Rowe (1969, J. R. Statist. Soc. A 132:235) instead of a normal approximation.

The upper boundary is computed for ``need - 1`` right samples, the lower one for ``need``. A data set farther from
the threshold crosses the wrong boundary less often, so the error rates are limited for every model and every threshold.
The last look is at all samples, and right whatever happens.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Looks at a threshold, at most.
LOOKS = 20
#: Samples between two looks, at least.
LEAST = 16
#: Chances below this are left out of the recursion; what is left out is counted as crossed.
_NEGLIGIBLE = 1e-15


@dataclass(frozen=True)
class Plan:
    """When to stop.

    Attributes:
        looks: numbers of samples after which the threshold is looked at; the last is all of them.
        upper: at each look, passed with at least so many right.
        lower: at each look, failed with at most so many right.
    """

    looks: tuple[int, ...]
    upper: tuple[int, ...]
    lower: tuple[int, ...]

    def decide(self, look: int, right: int) -> bool | None:
        """Whether the threshold is passed, after the samples of that look; None if it is still open."""
        if right >= self.upper[look]:
            return True
        if right <= self.lower[look]:
            return False
        return None


def looks_for(n: int) -> tuple[int, ...]:
    """Up to 20 looks, evenly spread over ``n`` samples."""
    count = max(1, min(LOOKS, n // LEAST))
    return tuple(sorted({round(n * (j + 1) / count) for j in range(count)}))


@lru_cache(maxsize=256)
def plan(n: int, need: int, false_pass: float, false_fail: float, looks: tuple[int, ...] | None = None) -> Plan:
    """The boundaries for ``need`` right ones of ``n`` samples.

    Args:
        false_pass: chance, at most, of passing although fewer than ``need`` of all samples are right.
        false_fail: chance, at most, of failing although ``need`` of all samples are right.
        looks: when to look; by default :func:`looks_for`.
    """
    at = looks or looks_for(n)
    upper = _upper(n, need - 1, false_pass, at)
    # being wrong often enough is the same question: more than ``n - need`` of the samples are wrong
    wrong = _upper(n, n - need, false_fail, at)
    lower = tuple(k - bound for k, bound in zip(at, wrong, strict=True))
    certain = [min(u, need) for u in upper], [max(low, need - 1 - (n - k)) for low, k in zip(lower, at, strict=True)]
    return Plan(at, tuple(certain[0]), tuple(certain[1]))


def _upper(n: int, total: int, error: float, looks: tuple[int, ...]) -> tuple[int, ...]:
    """Smallest counts whose crossing has, up to each look, a chance of at most its part of ``error``.

    Args:
        total: samples that count, of all ``n``: the most for which crossing is an error.
    """
    if total < 0:  # nothing to fear: crossed at once
        return tuple(0 for _ in looks)
    chances, seen, spent = np.ones(1), 0, 0.0  # chances of each count so far, not yet crossed
    bounds = []
    for k in looks:
        after = np.zeros(k + 1)
        for before in np.flatnonzero(chances > _NEGLIGIBLE):
            more = _hypergeometric(n - seen, total - int(before), k - seen)
            after[before : before + len(more)] += chances[before] * more
        spent += float(chances[chances <= _NEGLIGIBLE].sum())
        tail = np.cumsum(after[::-1])[::-1]  # of at least so many
        allowed = error * k / n - spent
        crossing = np.flatnonzero(tail <= allowed)
        bound = int(crossing[0]) if len(crossing) else k + 1
        spent += float(tail[bound]) if bound <= k else 0.0
        after[bound:] = 0.0
        chances, seen = after, k
        bounds.append(bound)
    bounds[-1] = total + 1  # all are known
    return tuple(bounds)


def _hypergeometric(n: int, marked: int, drawn: int) -> NDArray[np.float64]:
    """Chances of 0 to ``drawn`` marked ones among ``drawn`` of ``n``, ``marked`` of which are marked.

    The distance from the mean is limited by Hoeffding 1963, J. Amer. Statist. Assoc. 58:13, theorem 4.
    """
    if not 0 <= marked <= n:
        return np.zeros(drawn + 1)
    found = np.zeros(drawn + 1)
    mean, reach = (
        drawn * marked / n if n else 0.0,
        math.sqrt(40 * drawn),
    )  # beyond, all chances together are below 1e-34
    least = max(0, drawn - (n - marked), math.floor(mean - reach))
    most = min(drawn, marked, math.ceil(mean + reach))
    k, log = np.arange(least, most + 1), _log_factorials(n)
    ways = log[marked] - log[k] - log[marked - k]
    ways += log[n - marked] - log[drawn - k] - log[n - marked - drawn + k]
    found[least : most + 1] = np.exp(ways - (log[n] - log[drawn] - log[n - drawn]))
    return found


def _log_factorials(n: int) -> NDArray[np.float64]:
    """Logarithms of the factorials of 0 to ``n`` at least, ``(m,)``; of powers of two, as each look needs fewer."""
    return _log_factorials_below(1 << (n + 1).bit_length())


@lru_cache(maxsize=8)
def _log_factorials_below(stop: int) -> NDArray[np.float64]:
    from scipy.special import gammaln

    found = np.asarray(gammaln(np.arange(1, stop + 1)))
    found.flags.writeable = False
    return found
