"""Whether a trend was seen, decided by a confidence interval."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from freqrobust.numerics.statistics import independent_difference, paired_difference
from freqrobust.results.findings import Trend, Verdict

Outcomes = NDArray[np.bool_]


def judged(
    statement: str, estimate: float, ci95: tuple[float, float] | None, measure: str, unit: Literal["", "%"] = ""
) -> Trend:
    """A trend that is true where ``estimate`` is positive: reproduced where the whole interval is.

    Args:
        statement: the trend, as a complete sentence.
        estimate: positive where the statement is true.
        ci95: the confidence interval of the estimate; None where the estimate is exact.
        measure: what the estimate is, with its unit.
        unit: "%" for a difference of shares, which is printed in percentage points.
    """
    low, high = ci95 if ci95 is not None else (estimate, estimate)
    verdict: Verdict = "reproduced" if low > 0 else "not reproduced" if high <= 0 else "undecided"
    return Trend(statement=statement, verdict=verdict, estimate=estimate, ci95=ci95, measure=measure, unit=unit)


def higher(statement: str, first: Outcomes, second: Outcomes, measure: str = "difference of the accuracies") -> Trend:
    """The trend that the first of two networks has the higher accuracy on the same samples.

    Args:
        statement: the trend, as a complete sentence.
        first: which samples the first network classifies correctly, ``(n,)``.
        second: the same of the second network, on the same samples in the same order.
        measure: what is compared.
    """
    pairs = (first & second, first & ~second, ~first & second, ~first & ~second)
    return judged(statement, *paired_difference(*(int(which.sum()) for which in pairs)), measure, "%")


def higher_unpaired(
    statement: str, first: Outcomes, second: Outcomes, measure: str = "difference of the accuracies"
) -> Trend:
    """As :func:`higher`, for different samples."""
    difference = independent_difference(int(first.sum()), len(first), int(second.sum()), len(second))
    return judged(statement, *difference, measure, "%")


def mean_above_zero(statement: str, values: Sequence[float], measure: str) -> Trend:
    """The trend that the mean of independent repetitions is positive, by Student's t interval.

    Raises:
        ValueError: there are fewer than two values.
    """
    if len(values) < 2:
        raise ValueError(f"an interval needs at least two repetitions, but got {len(values)}")
    array = np.asarray(values, dtype=float)
    mean = float(array.mean())
    half = float(stats.t.ppf(0.975, len(array) - 1) * array.std(ddof=1) / np.sqrt(len(array)))
    return judged(statement, mean, (mean - half, mean + half), measure)
