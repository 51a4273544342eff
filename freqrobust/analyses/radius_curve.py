"""Accuracy on low and on high frequencies alone, against the radius that separates them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from freqrobust.analyses._base import ComponentAnalysis, Record, only, reading
from freqrobust.results.analysis import AnalysisResult, AnalysisTable

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure, SubFigure
    from torch import nn

    from freqrobust.data.dataset import ImageData
    from freqrobust.harness.analysis_context import AnalysisContext, Reading

#: Radii of the curve, for a side of 32 pixels; no frequency is farther from DC than the last one.
RADII = (0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 18, 20, 23)
#: Bootstrap resamples for each interval.
RESAMPLES = 1000


class Curve(Record):
    """Accuracy by radius, and the radius at which half of the clean accuracy above chance is lost."""

    part: Literal["LFC", "HFC"]
    correct: list[int] = Field(description="correctly predicted samples at each radius")
    ci95: list[tuple[float, float]] = Field(description="Wilson intervals of the accuracies")
    half_radius: float | None = Field(
        description="LFC: below this radius, HFC: above it, more than half of the accuracy above chance is lost; "
        "null if the clean accuracy is no better than chance or the curve does not fall that far"
    )
    half_radius_ci95: tuple[float, float] | None = Field(description="percentile bootstrap over the samples")


class ClassCurve(Record):
    """Curves of the samples of one class."""

    label: int
    n: int
    lfc: list[float]
    hfc: list[float]


class RadiusCurveResult(AnalysisResult):
    """Accuracies on the frequencies below each radius (LFC) and at or above it (HFC)."""

    n: int
    radii: list[float]
    clean_accuracy: float
    chance: float = Field(description="accuracy of the clean predictions if they were independent of the labels")
    lfc: Curve
    hfc: Curve
    classes: list[ClassCurve] = []


class RadiusCurve(ComponentAnalysis):
    """Accuracy on LFC and HFC against the radius, and the radius at which half of it is lost.

    Half of the accuracy above chance: the curve is interpolated linearly between the radii, and followed from the
    full image on (LFC downwards, HFC upwards). The interval is a percentile bootstrap over the samples.
    """

    per_class: bool = Field(False, description="add the curves of each class")

    def run(self, model: nn.Module, data: ImageData, context: AnalysisContext) -> RadiusCurveResult:
        from freqrobust.analyses._components import predict_components, scaled
        from freqrobust.harness.analysis_context import split_radius
        from freqrobust.harness.report_builder import chance_of

        radii = sorted(set(self.radii)) or scaled(RADII, data.shape)
        components = predict_components(context, radii, self.shape)
        labels = components.labels
        clean, low, high = (part == labels for part in (components.clean, components.low, components.high))
        chance = chance_of(components.clean, labels)
        result = RadiusCurveResult(
            n=len(data),
            radii=list(radii),
            clean_accuracy=float(clean.mean()),
            chance=chance,
            lfc=_curve("LFC", radii, clean, low, chance, context),
            hfc=_curve("HFC", radii, clean, high, chance, context),
        )
        if self.per_class:
            for label in sorted(set(labels.tolist())):
                members = labels == label
                lfc, hfc = (part[:, members].mean(axis=1).tolist() for part in (low, high))
                result.classes.append(ClassCurve(label=label, n=int(members.sum()), lfc=lfc, hfc=hfc))
        result.reading = _read(result, split_radius(data.shape))
        halves = [_with_interval(curve) for curve in (result.lfc, result.hfc)]
        result.sentence = f"half of the accuracy above chance is lost at radius {halves[0]} (LFC) and {halves[1]} (HFC)"
        return result

    def tables(self, results: Sequence[AnalysisResult]) -> list[AnalysisTable]:
        tables = []
        summary = []
        for result in only(results, RadiusCurveResult):
            halves = [_with_interval(curve) for curve in (result.lfc, result.hfc)]
            accuracies = [f"{100 * value:.1f}" for value in (result.clean_accuracy, result.chance)]
            summary.append([result.label, *accuracies, *halves, str(result.reading)])
            rows = [
                [f"{radius:g}", *(f"{100 * curve.correct[i] / result.n:.1f}" for curve in (result.lfc, result.hfc))]
                for i, radius in enumerate(result.radii)
            ]
            title = f"{result.label}: accuracy in percent"
            tables.append(AnalysisTable(title=title, columns=["radius", "LFC", "HFC"], rows=rows))
        columns = ["model", "clean", "chance", "LFC half radius", "HFC half radius", "depends on"]
        title = "Radius at which half of the accuracy above chance is lost (cycles per image)"
        return [AnalysisTable(title=title, columns=columns, rows=summary), *tables]

    def draw(self, results: Sequence[AnalysisResult]) -> Figure:
        from freqrobust.results.figures import stacked

        shown = only(results, RadiusCurveResult)
        parts = [_panel(shown, "LFC"), _panel(shown, "HFC")]
        return stacked(*parts, *(_class_panel(result) for result in shown if result.classes))


def half_radius(radii: np.ndarray, accuracy: np.ndarray, level: np.ndarray, part: str) -> np.ndarray:
    """Radius at which curves fall to a level, followed from the full image on; linear between the radii.

    Args:
        radii: increasing, ``(R,)``.
        accuracy: ``(B, R)``.
        level: ``(B,)``.
        part: ``LFC`` (from the largest radius down) or ``HFC`` (from the smallest up).

    Returns:
        ``(B,)``; NaN where a curve starts below its level or stays above it.
    """
    import numpy as np

    if part == "LFC":
        radii, accuracy = radii[::-1], accuracy[:, ::-1]
    below = accuracy <= level[:, None]
    at = below.argmax(axis=1)
    crosses = below.any(axis=1) & (at > 0)
    rows = np.arange(len(accuracy))
    before = np.maximum(at - 1, 0)
    high, low = accuracy[rows, before], accuracy[rows, at]
    share = (high - level) / np.where(high > low, high - low, 1.0)
    values = radii[before] + share * (radii[at] - radii[before])
    return np.where(crosses, values, np.nan)


def _curve(
    part: Literal["LFC", "HFC"],
    radii: Sequence[float],
    clean: np.ndarray,
    right: np.ndarray,
    chance: float,
    context: AnalysisContext,
) -> Curve:
    import numpy as np

    from freqrobust.numerics.statistics import wilson

    n = len(clean)
    points = np.asarray(radii, dtype=float)
    half = interval = None
    if clean.mean() > chance:
        level = np.array([(clean.mean() + chance) / 2])
        value = half_radius(points, right.mean(axis=1)[None], level, part)[0]
        half = float(value) if np.isfinite(value) else None
    if half is not None:
        values = _bootstrap(points, clean, right, chance, part, context.seed)
        values = values[np.isfinite(values)]
        if len(values) >= 0.9 * RESAMPLES:
            low, high = np.percentile(values, [2.5, 97.5])
            interval = (float(low), float(high))
    counts = right.sum(axis=1).tolist()
    return Curve(
        part=part,
        correct=counts,
        ci95=[wilson(count, n) for count in counts],
        half_radius=half,
        half_radius_ci95=interval,
    )


def _bootstrap(
    radii: np.ndarray, clean: np.ndarray, right: np.ndarray, chance: float, part: str, seed: int
) -> np.ndarray:
    """Half radii of samples drawn with replacement, ``(RESAMPLES,)``; the draws are seeded."""
    import numpy as np
    import torch

    from freqrobust.numerics import noise

    n = len(clean)
    outcomes = np.concatenate([clean[None], right]).T.astype(np.float32)  # (N, 1 + R)
    halves = []
    for block in torch.arange(RESAMPLES).split(max(1, 2**22 // n)):
        draw = (noise.uniform(block, (n,), seed=seed, stream="bootstrap") * n).long().clamp_(max=n - 1)
        weights = torch.zeros(len(block), n).scatter_add_(1, draw, torch.ones(draw.shape))
        shares = weights.numpy() @ outcomes / n
        halves.append(half_radius(radii, shares[:, 1:], (shares[:, 0] + chance) / 2, part))
    return np.concatenate(halves)


def _read(result: RadiusCurveResult, split: float) -> Reading | None:
    """Which components, at the split, keep half of the accuracy above chance."""
    if result.lfc.half_radius is None and result.hfc.half_radius is None:
        return None
    low = result.lfc.half_radius is not None and result.lfc.half_radius < split
    high = result.hfc.half_radius is not None and result.hfc.half_radius > split
    return reading(low, high)


def _with_interval(curve: Curve) -> str:
    if curve.half_radius is None:
        return "-"
    if curve.half_radius_ci95 is None:
        return f"{curve.half_radius:.1f}"
    return f"{curve.half_radius:.1f} [{curve.half_radius_ci95[0]:.1f}, {curve.half_radius_ci95[1]:.1f}]"


def _panel(
    results: Sequence[RadiusCurveResult], part: Literal["LFC", "HFC"]
) -> tuple[float, Callable[[SubFigure | Figure], None]]:
    """Curves of all results, with their intervals, the half radii, and chance."""
    from freqrobust.results.figures import COLOURS, Line, draw_lines

    def draw(figure: SubFigure | Figure) -> None:
        axes = figure.subplots()
        curves = [(result, result.lfc if part == "LFC" else result.hfc) for result in results]
        lines = [
            Line(
                result.label,
                result.radii,
                [100 * count / result.n for count in curve.correct],
                ([100 * low for low, _ in curve.ci95], [100 * high for _, high in curve.ci95]),
            )
            for result, curve in curves
        ]
        draw_lines(axes, lines, markers=True)
        for number, (result, curve) in enumerate(curves):
            if curve.half_radius is not None:
                level = 50 * (result.clean_accuracy + result.chance)
                axes.plot([curve.half_radius], [level], "*", color=COLOURS[number % len(COLOURS)], markersize=7)
        axes.axhline(100 * results[0].chance, color="0.5", linewidth=0.6, linestyle=":")
        axes.set_ylim(0, 100)
        axes.set_xlim(left=0)
        axes.set_ylabel(f"{part} accuracy (%)")
        axes.set_xlabel("radius (cycles per image); star: half radius" if part == "HFC" else "")

    return 1.65, draw


def _class_panel(result: RadiusCurveResult) -> tuple[float, Callable[[SubFigure | Figure], None]]:
    """Accuracy by class and radius, as two maps on one scale."""

    def draw(figure: SubFigure | Figure) -> None:
        figure.suptitle(result.label, fontsize=7)
        axes = figure.subplots(1, 2, sharey=True)
        image: Any = None
        for axis, part in zip(axes, ("lfc", "hfc"), strict=True):
            values = [[100 * share for share in getattr(curve, part)] for curve in result.classes]
            image = axis.imshow(values, cmap="viridis", vmin=0, vmax=100, aspect="auto")
            step = max(1, len(result.radii) // 6)
            axis.set_xticks(range(0, len(result.radii), step), [f"{r:g}" for r in result.radii[::step]])
            axis.set_title(part.upper())
            axis.set_xlabel("radius")
        step = max(1, len(result.classes) // 10)
        axes[0].set_yticks(range(0, len(result.classes), step), [str(c.label) for c in result.classes[::step]])
        axes[0].set_ylabel("class")
        figure.colorbar(image, ax=list(axes), pad=0.03).set_label("accuracy (%)")

    return 1.9, draw
