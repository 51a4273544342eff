"""The robust accuracy at every eps, from the smallest adversarial perturbation that was found for each sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple, get_args

import numpy as np

from freqrobust.numerics.order_statistics import dkw_half_width, median_ranks
from freqrobust.numerics.statistics import wilson
from freqrobust.numerics.threat import Norm, allowance
from freqrobust.results.cells import Cell, WorstCase
from freqrobust.results.report import Report
from freqrobust.results.summary import Entry, entries, entry_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Budgets of a table where none are given: those of the suite ``standard``, and the same multiples of 0.5 (L2) and 12
#: (L1), the largest budgets that are usual for images of 32 x 32 pixels.
BUDGETS: dict[Norm, tuple[float, ...]] = {
    "linf": tuple(k / 255 for k in (0.5, 1, 2, 4, 8)),
    "l2": tuple(0.5 * k / 8 for k in (0.5, 1, 2, 4, 8)),
    "l1": tuple(12 * k / 8 for k in (0.5, 1, 2, 4, 8)),
}


class Estimate(NamedTuple):
    """A quantity with its 95 % interval; infinite where no adversarial example was found for too many samples."""

    value: float
    low: float
    high: float


class Rate(NamedTuple):
    """The robust accuracy at one eps: ``robust`` of ``n`` samples, with its Wilson interval."""

    eps: float
    robust: int
    n: int
    accuracy: float
    ci95: tuple[float, float]


@dataclass(frozen=True, eq=False)
class RobustnessCurve:
    """``S(eps)``, the share of samples whose distance is larger than ``eps``: a survival function.

    A distance is that of an adversarial example that was found, and so at least that of the nearest one: the curve is
    an upper bound of the robust accuracy at every eps, as the result of any attack is.

    Attributes:
        norm: of the distances.
        distances: float32 ``(n,)``, at least one: 0 where the clean image is misclassified, infinite where no
            adversarial example was found.
    """

    norm: Norm
    distances: NDArray[np.float32]

    @property
    def n(self) -> int:
        """The number of samples."""
        return len(self.distances)

    @cached_property
    def ordered(self) -> NDArray[np.float32]:
        """The distances in increasing order, ``(n,)``."""
        return np.sort(self.distances)

    @property
    def clean(self) -> Rate:
        """The accuracy on the clean images: the share of samples whose distance is not 0."""
        return self._rate(0.0, 0.0)

    def at(self, eps: float) -> Rate:
        """The robust accuracy at a budget: the share of samples whose distance exceeds it.

        A distance exceeds the budget as in a worst case, if it is larger than
        :func:`freqrobust.numerics.threat.allowance` of eps in float32.
        """
        return self._rate(eps, allowance(eps))

    def _rate(self, eps: float, largest: float) -> Rate:
        robust = self.n - int(np.searchsorted(self.ordered, np.float32(largest), side="right"))
        return Rate(eps, robust, self.n, robust / self.n, wilson(robust, self.n))

    @property
    def half_width(self) -> float:
        """Half the width of the 95 % band around the curve, which contains the curve of the distribution at all eps at
        once (:func:`freqrobust.numerics.order_statistics.dkw_half_width`), unlike the pointwise intervals of
        :meth:`at`."""
        return dkw_half_width(self.n)

    def steps(self, most: int | None = None) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The curve as a step function, which is constant from each eps to the next one.

        Args:
            most: return no more than about that many steps, evenly spaced among all.

        Returns:
            Increasing eps, 0 first, and the robust accuracy from each of them on, both ``(k,)``.
        """
        found = np.unique(self.ordered[np.isfinite(self.ordered)])
        if most is not None and len(found) > most:
            found = found[np.unique(np.linspace(0, len(found) - 1, most).round().astype(int))]
        eps = np.unique(np.concatenate([np.zeros(1, np.float32), found]))
        shares = (self.n - np.searchsorted(self.ordered, eps, side="right")) / self.n
        return eps.astype(np.float64), shares

    def median(self) -> Estimate | None:
        """Median distance of the samples that are correct on the clean image; None without any.

        The interval is between two order statistics (:func:`freqrobust.numerics.order_statistics.median_ranks`); from
        0 to infinity where there are too few samples for one.
        """
        attacked = self.ordered[self.ordered > 0]
        if not len(attacked):
            return None
        return Estimate(float(np.median(attacked)), *_median_interval(attacked))

    def half_accuracy_eps(self) -> Estimate:
        """The smallest eps at which the robust accuracy is at most 50 %: the lower median of all distances.

        The interval is found as that of :meth:`median`. It is 0 where the clean accuracy is at most 50 %.
        """
        return Estimate(float(self.ordered[(self.n + 1) // 2 - 1]), *_median_interval(self.ordered))

    def area(self, up_to: float) -> Estimate:
        """The area under the curve up to an eps, ``int_0^E S(t) dt = mean(min(distance, E))``, in units of eps.

        This is the mean distance restricted to ``E``; ``area / E`` is the mean robust accuracy over the budgets up to
        ``E``. The interval is the area under both ends of the band (Anderson 1969, "Confidence limits for the expected
        value of an arbitrary bounded random variable").
        """
        inside = np.minimum(self.ordered.astype(np.float64), up_to)
        eps = np.concatenate([np.zeros(1), inside, [up_to]])
        widths, shares = np.diff(eps), 1 - np.arange(self.n + 1) / self.n
        low, high = (np.clip(shares + sign * self.half_width, 0, 1) @ widths for sign in (-1, 1))
        return Estimate(float(inside.mean()), float(low), float(high))


def _median_interval(ordered: NDArray[np.float32]) -> tuple[float, float]:
    ranks = median_ranks(len(ordered))
    if ranks is None:
        return 0.0, float("inf")
    return float(ordered[ranks[0] - 1]), float(ordered[ranks[1] - 1])


class Budgeted(NamedTuple):
    """A robust accuracy that was measured at one budget."""

    name: str
    eps: float
    record: Cell | WorstCase


@dataclass(frozen=True)
class MeasuredCurve:
    """The robustness curve of one model under one defense in one norm.

    Attributes:
        entry: the model and the defense.
        attacks: the minimum-norm attacks, whose smallest distance is taken for every sample.
        curve: the robust accuracy at every eps.
        points: robust accuracies that attacks with a budget of this norm measured, and the worst cases, which count
            the examples of all attacks.
    """

    entry: Entry
    attacks: Sequence[str]
    curve: RobustnessCurve
    points: Sequence[Budgeted]


def robustness_curves(report: Report) -> dict[Norm, list[MeasuredCurve]]:
    """The robustness curves of a report by norm, in the order of its entries; empty without a minimum-norm attack."""
    found: dict[Norm, list[MeasuredCurve]] = {}
    for entry in entries(report):
        cells = [c for c in report.cells if entry_of(c) == entry and c.status == "ok"]
        measured = [(c.attack_spec, c.distances) for c in cells if c.distances is not None and c.n]
        for norm in {record.norm: None for _, record in measured}:
            records = [(spec, record.distances()) for spec, record in measured if record.norm == norm]
            smallest = np.minimum.reduce([values for _, values in records])
            names = list(dict.fromkeys(spec for spec, _ in records))
            curve = MeasuredCurve(entry, names, RobustnessCurve(norm, smallest), _budgeted(report, cells, entry, norm))
            found.setdefault(norm, []).append(curve)
    return {norm: found[norm] for norm in sorted(found, key=get_args(Norm).index)}


def _budgeted(report: Report, cells: Sequence[Cell], entry: Entry, norm: Norm) -> list[Budgeted]:
    points = [
        Budgeted(c.attack_spec, c.threat.eps, c)
        for c in cells
        if c.threat is not None and c.threat.norm == norm and c.knowledge == "adaptive" and c.accuracy is not None
    ]
    rows = [w for w in report.worst_case if entry_of(w) == entry and w.threat.norm == norm and w.accuracy is not None]
    return [*points, *(Budgeted("worst case", w.threat.eps, w) for w in rows)]


def budgets(norm: Norm, curves: Sequence[MeasuredCurve]) -> list[float]:
    """The eps of a table: those that attacks with a budget were run at, otherwise the usual ones of the norm."""
    return sorted({point.eps for curve in curves for point in curve.points}) or list(BUDGETS[norm])
