"""Accuracy change under a shift against the share of high-frequency energy of that shift."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from freqrobust.analyses._base import Record, SplitAnalysis, only
from freqrobust.core.errors import SpecError
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


class Point(Record):
    """One shift; accuracies and shares are means over its severities."""

    shift: str
    high_share: float = Field(description="share of the difference's energy at or above the radius")
    accuracy: float
    reference_accuracy: float
    change: float = Field(description="accuracy minus that of the reference")


class FittedLine(Record):
    """Least squares: ``change = intercept + slope * high_share``."""

    slope: float
    slope_ci95: tuple[float, float] = Field(description="Student's t, n - 2 degrees of freedom")
    intercept: float
    residual: float = Field(description="standard error of the points about the line, n - 2 degrees of freedom")
    r_squared: float | None = Field(description="null if all changes are equal")


class EnergyResult(AnalysisResult):
    """One point per shift, and the line fitted to them."""

    reference: str
    radius: float
    clean_accuracy: float
    clean_change: float
    points: list[Point]
    line: FittedLine | None = Field(description="null with fewer than three points, or if all have the same share")


class Energy(SplitAnalysis):
    """Accuracy change relative to a naturally trained model, against the high-frequency energy of each shift.

    A rising line means: more accurate than the reference under shifts that change high frequencies, less accurate
    under shifts that change low frequencies.  (Yin et al. 2019, fig. 6)
    """

    shifts: list[str] = Field(
        [], description="shifts or suites of shifts, may be repeated; default: the suite corruptions"
    )
    severities: list[Annotated[int, Field(ge=1, le=5)]] = Field(
        [], description="severities of the shifts that have one; default all"
    )
    reference: str | None = Field(None, description="naturally trained model; default: the first model, undefended")

    def run(self, model: nn.Module, data: ImageData, context: AnalysisContext) -> EnergyResult:
        from freqrobust.analyses._shifts import shift_groups

        lab = context.laboratory
        if lab.subjects == 1 and self.reference is None:
            raise SpecError("energy compares with a natural model; give it as --reference or as the first --model")
        radius = self.split(data.shape)
        groups = shift_groups(self.shifts, data.shape, self.severities)
        name, reference = lab.reference(self.reference)
        is_reference = self.reference is None and context.label == name
        known, shares = context.once("energy reference", lambda: _measure(context, reference, groups, radius))
        own = known if is_reference else _measure(context, context.target_model, groups, None)[0]
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
        if is_reference:
            result.sentence = "this is the reference"
        elif line is not None:
            low, high = line.slope_ci95
            result.reading = "low" if low > 0 else "high" if high < 0 else "both"
            result.sentence = (
                f"slope {100 * line.slope:+.1f} points [{100 * low:.1f}, {100 * high:.1f}] from a share of 0 to 1 "
                f"of high-frequency energy, residual {100 * line.residual:.1f}"
            )
        return result

    def tables(self, results: Sequence[AnalysisResult]) -> list[AnalysisTable]:
        energies = only(results, EnergyResult)
        first = energies[0]
        lines = []
        for result in energies:
            clean = [f"{100 * result.clean_accuracy:.1f}", f"{100 * result.clean_change:+.1f}"]
            if result.line is None:
                lines.append([result.label, *clean, "-", "-", "-"])
                continue
            low, high = result.line.slope_ci95
            slope = f"{100 * result.line.slope:+.1f} [{100 * low:.1f}, {100 * high:.1f}]"
            fitted = "-" if result.line.r_squared is None else f"{result.line.r_squared:.2f}"
            lines.append([result.label, *clean, slope, f"{100 * result.line.residual:.1f}", fitted])
        rows = [
            [point.shift, f"{100 * point.high_share:.1f}", f"{100 * point.reference_accuracy:.1f}"]
            + [f"{100 * r.points[i].accuracy:.1f} ({100 * r.points[i].change:+.1f})" for r in energies]
            for i, point in enumerate(first.points)
        ]
        columns = ["model", "clean", "change", "slope (points)", "residual", "R squared"]
        shifts = [
            "shift",
            f"energy from radius {first.radius:g} (%)",
            "reference",
            *(result.label for result in energies),
        ]
        return [
            AnalysisTable(
                title=f"Lines fitted to the accuracy changes from {first.reference}", columns=columns, rows=lines
            ),
            AnalysisTable(title="Accuracy in percent (change from the reference)", columns=shifts, rows=rows),
        ]

    def draw(self, results: Sequence[AnalysisResult]) -> Figure:
        from freqrobust.results.figures import stacked

        energies = only(results, EnergyResult)
        shown = [result for result in energies if result.label != result.reference] or energies
        return stacked((2.9 + 0.12 * len(shown), lambda part: _scatter(part, shown)))


def _scatter(part: SubFigure | Figure, shown: Sequence[EnergyResult]) -> None:
    """One point per shift and one line per model; the names of the shifts above, connected to their points."""
    from freqrobust.results.figures import COLOURS, LINES, MARKERS, wrapped

    axes = part.subplots()
    for number, result in enumerate(shown):
        colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
        x = [100 * point.high_share for point in result.points]
        y = [100 * point.change for point in result.points]
        if result.line is None:
            axes.plot(x, y, marker, color=colour, label=result.label)
            continue
        ends = [min(x), max(x)]
        fitted = [100 * result.line.intercept + result.line.slope * end for end in ends]
        style = LINES[number % len(LINES)]
        label = wrapped(f"{result.label}: slope {100 * result.line.slope:+.0f} points", 60)
        axes.plot(x, y, marker, color=colour, alpha=0.8, markeredgewidth=0)
        axes.plot(ends, fitted, style, color=colour)
        axes.plot([], [], style, marker=marker, color=colour, label=label)
    axes.axhline(0, color="0.5", linewidth=0.6, linestyle=":")
    axes.set_xlabel(f"energy from {shown[0].radius:g} cycles per image (%)")
    axes.set_ylabel(f"accuracy change from\n{wrapped(shown[0].reference, 30)} (points)")
    axes.set_xlim(-3, 103)
    axes.margins(y=0.08)
    points = sorted(shown[0].points, key=lambda point: point.high_share)
    bottom, top = axes.get_ylim()
    for point in points:  # from the frame, where the label's line ends, down to the points of the shift
        lowest = min(100 * other.change for result in shown for other in result.points if other.shift == point.shift)
        axes.vlines(100 * point.high_share, lowest, top, color="0.75", linewidth=0.4, zorder=0, label="_nolegend_")
    axes.set_ylim(bottom, top)
    connection = {"arrowstyle": "-", "linewidth": 0.4, "color": "0.5", "shrinkA": 1, "shrinkB": 0, "relpos": (0.5, 0)}
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
            arrowprops=connection,
        )
    part.legend(*axes.get_legend_handles_labels(), loc="outside lower center", fontsize=6)


def fit(x: Sequence[float], y: Sequence[float]) -> FittedLine | None:
    """Least squares through points, with the 95 % interval of the slope; None where no line can be fitted.

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
    unexplained = math.fsum((b - intercept - slope * a) ** 2 for a, b in zip(x, y, strict=True))
    total = math.fsum((b - mean_y) ** 2 for b in y)
    residual = math.sqrt(unexplained / (n - 2))
    half = float(stats.t.ppf(0.975, n - 2)) * residual / math.sqrt(spread)
    return FittedLine(
        slope=slope,
        slope_ci95=(slope - half, slope + half),
        intercept=intercept,
        residual=residual,
        r_squared=1 - unexplained / total if total > 0 else None,
    )


def _measure(
    context: AnalysisContext,
    target_model: TargetModel,
    groups: dict[str, list[PluginSpec[Attack]]],
    radius: float | None,
) -> tuple[dict[str, float], dict[str, float]]:
    """Accuracy of a model for each shift (clean: the empty name); with a radius also the shares of energy."""
    from freqrobust.analyses._spectra import Spectrum, share_above

    n = len(context.data)
    correct: dict[tuple[str, int], int] = {}
    energies: dict[tuple[str, int], torch.Tensor] = {}
    attackers = {name: [context.attacker(attack) for attack in group] for name, group in groups.items()}

    def work(images: torch.Tensor, labels: torch.Tensor, ids: torch.Tensor, chunk: torch.Tensor) -> None:
        counts = {("", 0): int(target_model.predict(images, ids).is_correct(labels).sum())}
        changes = {}
        for name, group in groups.items():
            for number in range(len(group)):
                changed = attackers[name][number](images, labels, ids)
                counts[name, number] = int(target_model.predict(changed, ids).is_correct(labels).sum())
                if radius is not None:
                    spectrum = Spectrum(*images.shape[-2:])
                    spectrum.add(changed - images)
                    changes[name, number] = spectrum.energies
        for key, count in counts.items():  # last: a batch that runs out of memory is repeated
            correct[key] = correct.get(key, 0) + count
        for key, energy in changes.items():
            energies[key] = energies[key] + energy if key in energies else energy

    context.each_batch(f"{sum(map(len, groups.values()))} shifts", work)
    accuracies = {"": correct["", 0] / n}
    shares = {}
    for name, group in groups.items():
        accuracies[name] = sum(correct[name, number] for number in range(len(group))) / (n * len(group))
        if radius is not None:
            by_severity = [share_above(energies[name, number], radius) for number in range(len(group))]
            shares[name] = sum(by_severity) / len(by_severity)
    return accuracies, shares
