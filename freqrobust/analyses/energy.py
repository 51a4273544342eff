"""How robustness to a shift goes with the share of high frequencies in what the shift changes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from pydantic import BaseModel, ConfigDict, Field

from freqrobust.core.errors import SpecError
from freqrobust.harness.analysis import Analysis
from freqrobust.results.analysis import AnalysisResult, AnalysisTable

if TYPE_CHECKING:
    import torch
    from matplotlib.figure import Figure, SubFigure
    from torch import nn

    from freqrobust.data.dataset import ImageData
    from freqrobust.harness.analysis_context import AnalysisContext
    from freqrobust.harness.target_model import TargetModel
    from freqrobust.plugins.base import Attack
    from freqrobust.plugins.specs import PluginSpec


class Point(BaseModel):
    """One shift; accuracies and shares are means over its severities."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    shift: str
    high_share: float = Field(description="share of the difference's energy at or above the radius")
    accuracy: float
    reference_accuracy: float
    change: float = Field(description="accuracy less that of the reference")


class FittedLine(BaseModel):
    """Least squares: ``change = intercept + slope * high_share``."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    slope: float
    slope_ci95: tuple[float, float] = Field(description="Student's t, n - 2 degrees of freedom")
    intercept: float
    residual: float = Field(description="standard error of the points about the line, n - 2 degrees of freedom")
    r_squared: float | None = Field(description="null where the changes are all equal")


class EnergyResult(AnalysisResult):
    """A point a shift, and the line through them."""

    reference: str
    radius: float
    clean_accuracy: float
    clean_change: float
    points: list[Point]
    line: FittedLine | None = Field(description="null with fewer than three points, or all at one share")


class Energy(Analysis):
    """Accuracy change against a natural model, over the share of high-frequency energy of each shift.

    A line that rises says: better than the natural model where high frequencies are changed, worse where low ones
    are.  (Yin et al. 2019, fig. 6)
    """

    shifts: list[str] = Field(
        [], description="shifts or suites of them, may be repeated; default corruptions, else the suite frequency"
    )
    severities: list[Annotated[int, Field(ge=1, le=5)]] = Field(
        [], description="of shifts that have a severity, only these; default all"
    )
    reference: str | None = Field(None, description="naturally trained model; default the first one, undefended")
    radius: float | None = Field(
        None, gt=0, description="where the high frequencies begin, cycles per image; default half of Nyquist"
    )

    def run(self, model: nn.Module, data: ImageData, context: AnalysisContext) -> EnergyResult:
        from freqrobust.analyses._shifts import shift_groups
        from freqrobust.harness.analysis_context import split_radius

        lab = context.laboratory
        if lab.subjects == 1 and self.reference is None:
            raise SpecError(
                "energy compares with a naturally trained model: give it as --reference or as first --model"
            )
        radius = self.radius if self.radius is not None else split_radius(data.shape)
        groups = shift_groups(self.shifts, data.shape, self.severities)
        name, reference = lab.reference(self.reference)
        itself = self.reference is None and context.label == name
        known, shares = context.once("energy reference", lambda: _measure(context, reference, groups, radius))
        own = known if itself else _measure(context, context.target_model, groups, None)[0]
        points = [
            Point(
                shift=shift,
                high_share=shares[shift],
                accuracy=own[shift],
                reference_accuracy=known[shift],
                change=own[shift] - known[shift],
            )
            for shift in groups
        ]
        line = fit([point.high_share for point in points], [point.change for point in points])
        result = EnergyResult(
            reference=name,
            radius=radius,
            clean_accuracy=own[""],
            clean_change=own[""] - known[""],
            points=points,
            line=line,
        )
        if itself:
            result.sentence = "this is the reference"
        elif line is not None:
            low, high = line.slope_ci95
            result.reading = "low" if low > 0 else "high" if high < 0 else "both"
            result.sentence = (
                f"slope {100 * line.slope:+.1f} points [{100 * low:.1f}, {100 * high:.1f}] from no to only "
                f"high-frequency energy, residual {100 * line.residual:.1f}"
            )
        return result

    def tables(self, results: Sequence[AnalysisResult]) -> list[AnalysisTable]:
        found = [one for one in results if isinstance(one, EnergyResult)]
        lines = []
        for one in found:
            clean = [f"{100 * one.clean_accuracy:.1f}", f"{100 * one.clean_change:+.1f}"]
            if one.line is None:
                lines.append([one.label, *clean, "-", "-", "-"])
                continue
            low, high = one.line.slope_ci95
            slope = f"{100 * one.line.slope:+.1f} [{100 * low:.1f}, {100 * high:.1f}]"
            fitted = "-" if one.line.r_squared is None else f"{one.line.r_squared:.2f}"
            lines.append([one.label, *clean, slope, f"{100 * one.line.residual:.1f}", fitted])
        rows = [
            [point.shift, f"{100 * point.high_share:.1f}", f"{100 * point.reference_accuracy:.1f}"]
            + [f"{100 * one.points[i].accuracy:.1f} ({100 * one.points[i].change:+.1f})" for one in found]
            for i, point in enumerate(found[0].points)
        ]
        columns = ["", "clean", "change", "slope, points", "residual", "r squared"]
        shifts = ["shift", f"energy from {found[0].radius:g} on, %", "reference", *(one.label for one in found)]
        return [
            AnalysisTable(title=f"Lines through the changes against {found[0].reference}", columns=columns, rows=lines),
            AnalysisTable(title="Accuracy in percent (change)", columns=shifts, rows=rows),
        ]

    def draw(self, results: Sequence[AnalysisResult]) -> Figure:
        from freqrobust.results.figures import stacked

        found = [one for one in results if isinstance(one, EnergyResult)]
        shown = [one for one in found if one.label != one.reference] or found
        return stacked((2.9 + 0.12 * len(shown), lambda part: _scatter(part, shown)))


def _scatter(part: SubFigure | Figure, shown: Sequence[EnergyResult]) -> None:
    """A point a shift and a line a model; the names of the shifts above, each led to its points."""
    from freqrobust.results.figures import COLOURS, LINES, MARKERS, wrapped

    axes = part.subplots()
    for number, one in enumerate(shown):
        colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
        x = [100 * point.high_share for point in one.points]
        y = [100 * point.change for point in one.points]
        if one.line is None:
            axes.plot(x, y, marker, color=colour, label=one.label)
            continue
        ends = [min(x), max(x)]
        fitted = [100 * one.line.intercept + one.line.slope * end for end in ends]
        style = LINES[number % len(LINES)]
        label = wrapped(f"{one.label}: slope {100 * one.line.slope:+.0f} points", 60)
        axes.plot(x, y, marker, color=colour, alpha=0.8, markeredgewidth=0)
        axes.plot(ends, fitted, style, color=colour)
        axes.plot([], [], style, marker=marker, color=colour, label=label)
    axes.axhline(0, color="0.5", linewidth=0.6, linestyle=":")
    axes.set_xlabel(f"energy at {shown[0].radius:g} cycles per image and above (%)")
    axes.set_ylabel(f"accuracy change against\n{wrapped(shown[0].reference, 30)} (points)")
    axes.set_xlim(-3, 103)
    axes.margins(y=0.08)
    points = sorted(shown[0].points, key=lambda point: point.high_share)
    bottom, top = axes.get_ylim()
    for point in points:  # from the frame, where the label's line ends, down to the points of the shift
        lowest = min(100 * other.change for one in shown for other in one.points if other.shift == point.shift)
        axes.vlines(100 * point.high_share, lowest, top, color="0.75", linewidth=0.4, zorder=0, label="_nolegend_")
    axes.set_ylim(bottom, top)
    for place, point in enumerate(points):
        axes.annotate(
            point.shift,
            (100 * point.high_share, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=((place + 0.5) / len(points), 1.08),
            textcoords="axes fraction",
            rotation=90,
            ha="center",
            va="bottom",
            fontsize=6,
            arrowprops={
                "arrowstyle": "-",
                "linewidth": 0.4,
                "color": "0.5",
                "shrinkA": 1,
                "shrinkB": 0,
                "relpos": (0.5, 0),
            },
        )
    part.legend(*axes.get_legend_handles_labels(), loc="outside lower center", fontsize=6)


def fit(x: Sequence[float], y: Sequence[float]) -> FittedLine | None:
    """Least squares through points, with the 95 % interval of the slope; None where there is no such line.

    Example:
        >>> round(fit([0.0, 0.5, 1.0], [0.0, 1.0, 2.0]).slope, 6)
        2.0
    """
    n = len(x)
    if n < 3:
        return None
    mean_x, mean_y = math.fsum(x) / n, math.fsum(y) / n
    spread = math.fsum((a - mean_x) ** 2 for a in x)
    if spread <= 1e-12:
        return None
    from scipy import stats

    slope = math.fsum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True)) / spread
    intercept = mean_y - slope * mean_x
    left = math.fsum((b - intercept - slope * a) ** 2 for a, b in zip(x, y, strict=True))
    total = math.fsum((b - mean_y) ** 2 for b in y)
    residual = math.sqrt(left / (n - 2))
    half = float(stats.t.ppf(0.975, n - 2)) * residual / math.sqrt(spread)
    return FittedLine(
        slope=slope,
        slope_ci95=(slope - half, slope + half),
        intercept=intercept,
        residual=residual,
        r_squared=1 - left / total if total > 0 else None,
    )


def _measure(
    context: AnalysisContext,
    target_model: TargetModel,
    groups: dict[str, list[PluginSpec[Attack]]],
    radius: float | None,
) -> tuple[dict[str, float], dict[str, float]]:
    """Accuracy of a model by shift, clean under the empty name; with a radius also the shares of energy."""
    from freqrobust.analyses._spectra import Spectrum, share_above

    n = len(context.data)
    right: dict[tuple[str, int], int] = {}
    energies: dict[tuple[str, int], torch.Tensor] = {}
    attackers = {name: [context.attacker(attack) for attack in group] for name, group in groups.items()}

    def work(images: torch.Tensor, labels: torch.Tensor, ids: torch.Tensor, chunk: torch.Tensor) -> None:
        found = {("", 0): int(target_model.predict(images, ids).is_correct(labels).sum())}
        changes = {}
        for name, group in groups.items():
            for number in range(len(group)):
                changed = attackers[name][number](images, labels, ids)
                found[name, number] = int(target_model.predict(changed, ids).is_correct(labels).sum())
                if radius is not None:
                    spectrum = Spectrum(*images.shape[-2:])
                    spectrum.add(changed - images)
                    changes[name, number] = spectrum.energies
        for key, count in found.items():  # last: a batch that runs out of memory is repeated
            right[key] = right.get(key, 0) + count
        for key, energy in changes.items():
            energies[key] = energies[key] + energy if key in energies else energy

    context.each_batch(f"{sum(map(len, groups.values()))} shifts", work)
    accuracies = {"": right["", 0] / n}
    shares = {}
    for name, group in groups.items():
        accuracies[name] = sum(right[name, number] for number in range(len(group))) / (n * len(group))
        if radius is not None:
            each = [share_above(energies[name, number], radius) for number in range(len(group))]
            shares[name] = sum(each) / len(each)
    return accuracies, shares
