"""Robust accuracy at every eps, from the smallest perturbation that misclassifies each sample."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, model_validator

from freqrobust.analyses._base import Record, only
from freqrobust.core.errors import SpecError
from freqrobust.core.numbers import Number
from freqrobust.harness.analysis import Analysis
from freqrobust.numerics.threat import Norm, norm_name
from freqrobust.results.analysis import AnalysisResult, AnalysisTable

if TYPE_CHECKING:
    from matplotlib.figure import Figure, SubFigure
    from torch import nn

    from freqrobust.data.dataset import ImageData
    from freqrobust.harness.analysis_context import AnalysisContext
    from freqrobust.plugins.base import Attack
    from freqrobust.plugins.specs import PluginSpec
    from freqrobust.results.robustness_curve import Estimate, RobustnessCurve

#: Steps of a curve in the picture; more cannot be seen.
STEPS = 500


class Budget(Record):
    """The robust accuracy at one eps."""

    eps: float
    robust: int = Field(description="samples with a distance of more than eps")
    accuracy: float
    ci95: tuple[float, float] = Field(description="Wilson interval, for this eps alone")


class Quantity(Record):
    """A quantity in units of eps; null stands for infinity."""

    value: float | None
    ci95: tuple[float | None, float | None]


class RobustnessCurveResult(AnalysisResult):
    """Distances to the nearest adversarial example that was found, and what follows from them."""

    attack: str
    norm: Norm
    n: int
    distances: list[float | None] = Field(
        description="of every sample: 0 where the clean image is misclassified, null where no example was found"
    )
    band: float = Field(description="half the width of the simultaneous 95 % band around the curve (DKW-Massart)")
    accuracies: list[Budget]
    median: Quantity | None = Field(
        description="of the samples that are correct on the clean image, between order statistics; null without any"
    )
    half_accuracy_eps: Quantity = Field(description="smallest eps with a robust accuracy of at most 50 %")
    area: Quantity = Field(description="area under the curve up to the largest eps: the restricted mean distance")


class RobustnessCurves(Analysis):
    """Robust accuracy at every eps from one run of a minimum-norm attack, with median distance and area under it.

    The curve is the share of samples whose smallest perturbation that was found is larger than eps, an upper bound of
    the robust accuracy. The band in the picture is simultaneous: with 95 % confidence it contains the curve at all eps
    (Dvoretzky, Kiefer and Wolfowitz 1956; Massart 1990).
    """

    attack: str = Field("fmn", description="minimum-norm attack that finds the distances")
    norm: Norm | None = Field(None, description="norm of the distances; default: that of the attack")
    eps: list[Annotated[Number, Field(ge=0)]] = Field(
        [],
        description="budgets of the table, increasing; the area is taken up to the last one; default for linf: "
        "0.5, 1, 2, 4, 8 /255, and the same multiples of 0.5 (l2) and 12 (l1)",
    )
    scale: Literal["auto", "linear", "log"] = Field("auto", description="eps axis of the picture")

    @model_validator(mode="after")
    def _increasing(self) -> Any:
        if any(after <= before for before, after in zip(self.eps, self.eps[1:], strict=False)):
            shown = ", ".join(f"{eps:g}" for eps in self.eps)
            raise ValueError(f"parameter 'eps' should be in increasing order without repetitions, but got [{shown}]")
        if self.eps and self.eps[-1] == 0:
            raise ValueError("parameter 'eps' should contain a budget above 0, but got [0]")
        return self

    def attack_specs(self) -> list[PluginSpec[Attack]]:
        """The minimum-norm attack, for the norm."""
        return [self._attack()]

    def run(self, model: nn.Module, data: ImageData, context: AnalysisContext) -> RobustnessCurveResult:
        from freqrobust.results.robustness_curve import RobustnessCurve
        from freqrobust.results.robustness_tables import estimate_text, unit

        attack = self._attack()
        norm = _norm_of(attack)
        curve = RobustnessCurve(norm, context.distances(attack))
        budgets = self._budgets(norm)
        rates = [curve.at(eps) for eps in budgets]
        median = curve.median()
        result = RobustnessCurveResult(
            attack=attack.spec,
            norm=norm,
            n=curve.n,
            distances=[_finite(distance) for distance in curve.distances.tolist()],
            band=curve.half_width,
            accuracies=[Budget(eps=r.eps, robust=r.robust, accuracy=r.accuracy, ci95=r.ci95) for r in rates],
            median=_quantity(median) if median is not None else None,
            half_accuracy_eps=_quantity(curve.half_accuracy_eps()),
            area=_quantity(curve.area(budgets[-1])),
        )
        result.sentence = (
            f"median distance {estimate_text(norm, median)}, half-accuracy eps "
            f"{estimate_text(norm, curve.half_accuracy_eps())} ({unit(norm)})"
        )
        return result

    def tables(self, results: Sequence[AnalysisResult]) -> list[AnalysisTable]:
        from freqrobust.results.robustness_tables import accuracy_table, summary_table

        shown = only(results, RobustnessCurveResult)
        if not shown:
            return []
        norm, eps = shown[0].norm, [budget.eps for budget in shown[0].accuracies]
        curves = [(result.label, _curve(result)) for result in shown]
        return [summary_table("model", curves, norm, eps[-1]), accuracy_table("model", curves, norm, eps)]

    def draw(self, results: Sequence[AnalysisResult]) -> Figure | None:
        from freqrobust.results.figures import stacked

        shown = only(results, RobustnessCurveResult)
        return stacked(_panel(shown, {"linear": False, "log": True}.get(self.scale))) if shown else None

    def _attack(self) -> PluginSpec[Attack]:
        """The attack with the norm set, where it has the choice.

        Raises:
            SpecError: it is unknown, a sweep, no minimum-norm attack, or minimises another norm.
        """
        from freqrobust.numerics.threat import check_eps
        from freqrobust.plugins.registry import attacks

        parsed = attacks.parse(self.attack, {"norm": [self.norm]} if self.norm is not None else None)
        if len(parsed) != 1:
            raise SpecError(f"robustness-curve: {self.attack!r} is a sweep of {len(parsed)}; give one attack")
        (attack,) = parsed
        norm = attack.plugin.minimizes()
        if norm is None:
            raise SpecError(
                f"robustness-curve needs a minimum-norm attack, such as fmn, but {attack.spec} has a budget or none; "
                f"freqrobust eval measures the robust accuracy at a budget"
            )
        if self.norm not in (None, norm):
            raise SpecError(f"robustness-curve: {attack.spec} minimises {norm_name(norm)}, not {norm_name(self.norm)}")
        try:
            check_eps(norm, self.eps[-1] if self.eps else 0.0)
        except ValueError as error:
            raise SpecError(f"robustness-curve: {error}") from None
        return attack

    def _budgets(self, norm: Norm) -> list[float]:
        from freqrobust.results.robustness_curve import BUDGETS

        return list(self.eps) or list(BUDGETS[norm])


def _norm_of(attack: PluginSpec[Attack]) -> Norm:
    norm = attack.plugin.minimizes()
    assert norm is not None
    return norm


def _finite(value: float) -> float | None:
    return value if value != float("inf") else None


def _quantity(estimate: Estimate) -> Quantity:
    return Quantity(value=_finite(estimate.value), ci95=(_finite(estimate.low), _finite(estimate.high)))


def _curve(result: RobustnessCurveResult) -> RobustnessCurve:
    import numpy as np

    from freqrobust.results.robustness_curve import RobustnessCurve

    values = [float("inf") if distance is None else distance for distance in result.distances]
    return RobustnessCurve(result.norm, np.asarray(values, dtype=np.float32))


def _panel(
    results: Sequence[RobustnessCurveResult], logarithmic: bool | None
) -> tuple[float, Callable[[SubFigure | Figure], None]]:
    """Curves of all results with their bands, and the line of half accuracy."""
    from freqrobust.results.figures import Line, draw_lines
    from freqrobust.results.robustness_tables import eps_axis, scale, unit

    def draw(figure: SubFigure | Figure) -> None:
        axes = figure.subplots()
        curves = [_curve(result) for result in results]
        norm, factor = results[0].norm, scale(results[0].norm)
        budgets = [budget.eps for budget in results[0].accuracies]
        axis = eps_axis(curves, (), logarithmic)
        lines = []
        for result, curve in zip(results, curves, strict=True):
            x, y = _stairs(curve, max(axis.high, budgets[-1]))
            width = 100 * curve.half_width
            band = [max(0.0, value - width) for value in y], [min(100.0, value + width) for value in y]
            lines.append(Line(result.label, [factor * eps for eps in x], y, band))
        draw_lines(axes, lines)
        axes.axhline(50, color="0.5", linewidth=0.6, linestyle=":")
        if axis.logarithmic:
            from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlim(factor * axis.low, factor * axis.high)
        axes.set_ylim(0, 100)
        axes.set_xlabel(f"eps ({unit(norm)})")
        axes.set_ylabel("robust accuracy (%)")

    return 2.1, draw


def _stairs(curve: RobustnessCurve, end: float) -> tuple[list[float], list[float]]:
    """The corners of the curve from 0 to ``end``, in percent."""
    import numpy as np

    eps, shares = curve.steps(STEPS)
    x = np.concatenate([np.repeat(eps, 2)[1:], [max(end, float(eps[-1]))]])
    return x.tolist(), (100 * np.repeat(shares, 2)).tolist()
