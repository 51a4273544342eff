"""Robustness curves as tables, and the eps axis that pictures of them have."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from freqrobust.core.percent import interval, percent
from freqrobust.numerics.threat import Norm, Threat, norm_name
from freqrobust.results.analysis import AnalysisTable
from freqrobust.results.robustness_curve import Estimate, Rate, RobustnessCurve

#: Distances that differ by more than this factor are shown on a logarithmic axis.
WIDE = 20.0
#: What a reader has to know about every curve.
UPPER_BOUND = (
    "A robustness curve is an upper bound of the robust accuracy at every eps: the share of samples for which no "
    "adversarial example was found at a distance of at most eps."
)


def scale(norm: Norm) -> int:
    """What distances are multiplied with where people read them: 255 for Linf."""
    return 255 if norm == "linf" else 1


def unit(norm: Norm) -> str:
    """``Linf, in 255ths``: the norm of the distances, and their unit."""
    return f"{norm_name(norm)}, in 255ths" if norm == "linf" else norm_name(norm)


def distance_text(norm: Norm, distance: float) -> str:
    """A distance in the unit of :func:`unit`, to three digits; ``inf`` where there is none.

    Example:
        >>> distance_text("linf", 2 / 255), distance_text("l2", 0.12345), distance_text("l2", float("inf"))
        ('2.00', '0.123', 'inf')
    """
    value = distance * scale(norm)
    if value == 0 or math.isinf(value):
        return f"{value:g}"
    return f"{value:.{max(0, 2 - math.floor(math.log10(value)))}f}"


def estimate_text(norm: Norm, estimate: Estimate | None) -> str:
    """``1.25 [1.1, 1.4]``, in the unit of :func:`unit`."""
    if estimate is None:
        return "-"
    value, low, high = (distance_text(norm, one) for one in estimate)
    return f"{value} [{low}, {high}]"


def summary_columns(norm: Norm, up_to: float) -> list[str]:
    """The heads of :func:`summary_row`."""
    return ["clean", "median distance", "half-accuracy eps", f"area up to {Threat(norm, up_to).eps_text}"]


def summary_row(curve: RobustnessCurve, up_to: float) -> list[str]:
    """One curve in a line: clean accuracy, median distance, half-accuracy eps, area; with intervals."""
    estimates = (curve.median(), curve.half_accuracy_eps(), curve.area(up_to))
    return [_rate_text(curve.clean), *(estimate_text(curve.norm, estimate) for estimate in estimates)]


def accuracy_text(curve: RobustnessCurve, eps: float, decimals: int = 0) -> str:
    """``45.2 [41, 50]``, in percent."""
    return _rate_text(curve.at(eps), decimals)


def _rate_text(rate: Rate, decimals: int = 0) -> str:
    return f"{percent(rate.accuracy)} {interval(rate.ci95, decimals)}"


def summary_table(
    head: str,
    curves: Sequence[tuple[str, RobustnessCurve]],
    norm: Norm,
    up_to: float,
    attacks: Sequence[str] | None = None,
) -> AnalysisTable:
    """A line for each curve of one norm.

    Args:
        head: what the curves are named by.
        curves: the curves with their names.
        norm: of all curves.
        up_to: the eps up to which the area is taken.
        attacks: what found the distances of each curve, for a column of its own.
    """
    rows = [[name, *summary_row(curve, up_to)] for name, curve in curves]
    columns = [head, *summary_columns(norm, up_to)]
    if attacks is not None:
        rows = [[*row, attack] for row, attack in zip(rows, attacks, strict=True)]
        columns.append("found by")
    return AnalysisTable(
        title=f"Robustness curves: distances ({unit(norm)}) with 95 % intervals",
        columns=columns,
        rows=rows,
    )


def accuracy_table(
    head: str, curves: Sequence[tuple[str, RobustnessCurve]], norm: Norm, eps: Sequence[float], decimals: int = 0
) -> AnalysisTable:
    """The robust accuracy of each curve of one norm at given budgets."""
    return AnalysisTable(
        title=f"Robustness curves: robust accuracy in percent by {norm_name(norm)} eps, 95 % interval",
        columns=[head, *(Threat(norm, one).eps_text for one in eps)],
        rows=[[name, *(accuracy_text(curve, one, decimals) for one in eps)] for name, curve in curves],
    )


class Axis(NamedTuple):
    """The range of eps of a picture; a logarithmic one begins above 0."""

    low: float
    high: float
    logarithmic: bool


def eps_axis(curves: Sequence[RobustnessCurve], shown: Sequence[float] = (), logarithmic: bool | None = None) -> Axis:
    """An axis on which all curves are to be seen.

    It ends at the 95 % quantile of the distances of the curve that goes farthest, or at the largest budget to be
    shown. It is logarithmic where the smallest median distance is less than a twentieth of this, or as given.

    Args:
        curves: the curves, of one norm.
        shown: budgets that have to be on the axis.
        logarithmic: None chooses.
    """
    found = [curve.ordered[(curve.ordered > 0) & np.isfinite(curve.ordered)].astype(np.float64) for curve in curves]
    found = [distances for distances in found if len(distances)]
    budgets = [eps for eps in shown if eps > 0]
    high = max([*(float(np.quantile(distances, 0.95)) for distances in found), *budgets], default=1.0)
    smallest = min((float(np.median(distances)) for distances in found), default=high)
    logarithmic = smallest * WIDE < high if logarithmic is None else logarithmic
    if not logarithmic:
        return Axis(0.0, 1.05 * high, False)
    low = min([*(float(np.quantile(distances, 0.05)) for distances in found), *budgets], default=high / 100)
    return Axis(max(low / 1.5, high / 1e4), 1.2 * high, True)
