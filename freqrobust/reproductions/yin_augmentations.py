"""Fourier heat maps and energy slopes of networks trained with augmentation and with adversarial examples."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from freqrobust.experiments.experiment import Experiment

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from freqrobust.analyses.energy import EnergyResult
    from freqrobust.experiments.bench import Bench
    from freqrobust.results.findings import Findings

NETWORKS = ("natural", "Gaussian", "AutoAugment", "adversarial")
TRAINING = {
    "Gaussian": "Gaussian augmentation",
    "AutoAugment": "AutoAugment",
    "adversarial": "adversarial training",
}
#: Bands of noise for images of 8 pixels, in cycles per image; the high frequencies begin at 2.
BANDS = ((0.5, 1.5), (0.5, 2.2), (0.5, 3.0), (1.2, 3.0), (2.0, 5.0))
#: The panel of a network's heat map begins with this.
MAP = "error, "


class YinAugmentations(Experiment):
    """Gaussian augmentation and adversarial training trade errors at high frequencies for errors at the lowest ones."""

    source: ClassVar[str] = "Yin et al. 2019, figs. 3, 4 and 6"

    def run(self, bench: Bench) -> Findings:
        from math import inf

        from freqrobust.experiments.trends import judged, mean_above_zero
        from freqrobust.harness.analysis_context import split_radius
        from freqrobust.numerics.frequency import wave_norm
        from freqrobust.reproductions._yin import band, map_curves, networks, settings, wave_errors
        from freqrobust.results.analysis import AnalysisTable
        from freqrobust.results.findings import Findings, Measured

        data = bench.test.limit(bench.pick(digits=100, cpu=100, paper=1000), bench.seed)
        shape = data.shape
        lowest, split = max(1.5, min(shape[1:]) / 16), split_radius(shape)
        bands = {"lowest": band(shape, 0.5, lowest), "high": band(shape, split, inf)}
        trained = networks(bench, NETWORKS)
        errors = {name: wave_errors(bench, model, data) for name, model in trained.items()}
        by_image = {
            (name, key): wrong[inside].mean(axis=0) for name, wrong in errors.items() for key, inside in bands.items()
        }
        curves = [curve for name in NETWORKS for curve in map_curves(f"{MAP}{name}", errors[name].mean(axis=1), shape)]
        energy = _energy(bench, trained)
        measured, trends, rows = [], [], []
        for name in NETWORKS:
            means = {key: float(by_image[name, key].mean()) for key in bands}
            measured += [
                Measured(name=f"{name}: error at the {key} frequencies", value=value, unit="%")
                for key, value in means.items()
            ]
            result = energy[name]
            line = result.line
            slope = "-"
            if name != "natural" and line is not None:
                low, high = line.slope_ci95
                slope = f"{100 * line.slope:+.1f} [{100 * low:.1f}, {100 * high:.1f}]"
                measured.append(
                    Measured(name=f"{name}: energy slope", value=line.slope, ci95=line.slope_ci95, unit="%")
                )
            rows.append(
                [
                    name,
                    f"{100 * (1 - result.clean_accuracy):.1f}",
                    *(f"{100 * value:.1f}" for value in means.values()),
                    slope,
                ]
            )
        for name in ("Gaussian", "adversarial"):
            gains = {key: by_image["natural", key] - by_image[name, key] for key in bands}
            trends.append(
                mean_above_zero(
                    f"With {TRAINING[name]}, the error under waves of high frequency is lower.",
                    gains["high"].tolist(),
                    f"mean difference of the errors from radius {split:g}, over images",
                )
            )
            trends.append(
                mean_above_zero(
                    f"With {TRAINING[name]}, the error under waves of the lowest frequencies is higher.",
                    (-gains["lowest"]).tolist(),
                    f"mean difference of the errors below radius {lowest:g}, over images",
                )
            )
            line = energy[name].line
            if line is not None:
                trends.append(
                    judged(
                        f"With {TRAINING[name]}, the accuracy change grows with the high-frequency energy of the shift.",
                        line.slope,
                        line.slope_ci95,
                        "slope of the accuracy change from natural training, over shifts",
                    )
                )
        trends.append(
            mean_above_zero(
                "AutoAugment raises the accuracy under shifts.",
                [point.change for point in energy["AutoAugment"].points],
                "mean change of the accuracy, over shifts",
            )
        )
        for name in NETWORKS[1:]:
            curves += _points(energy[name], name)
        notes = [
            "The paper uses Wide ResNet-28-10 on the full data for the trends on CIFAR-10, and ImageNet for AutoAugment.",
            "The intervals are over test images, those of slopes over shifts, for these networks.",
        ]
        if bench.scale == "digits":
            notes.append(
                "The common corruptions are for larger images; noise of five bands at two strengths takes their place."
            )
        return Findings(
            measured=measured,
            tables=[
                AnalysisTable(
                    title="Error in percent, and slope of the accuracy change in points",
                    columns=["training", "clean", "waves, lowest", "waves, high", "energy slope"],
                    rows=rows,
                )
            ],
            trends=trends,
            curves=curves,
            settings={
                **settings(bench, NETWORKS),
                "waves": f"each Fourier direction, L2 norm {wave_norm(*shape[1:]):.3g} in each channel, {len(data)} test "
                f"images; the lowest ones are below radius {lowest:g} without DC, the high ones from radius {split:g}",
                "energy": f"{len(energy['natural'].points)} shifts; share of the energy from radius {split:g}",
            },
            notes=notes,
        )

    def draw(self, findings: Findings) -> Figure | None:
        from freqrobust.results.figures import COLOURS, LINES, MARKERS, Maps, stacked

        panels: dict[str, Any] = {}
        for curve in findings.curves:
            if curve.panel.startswith(MAP):
                panels.setdefault(curve.panel.removeprefix(MAP), []).append(curve.y)
        maps = Maps(list(panels.items()), "error", 0.0, 1.0, percent=True)
        others = [curve for curve in findings.curves if not curve.panel.startswith(MAP)]

        def lines(part: Any) -> None:
            axes = part.subplots()
            for number, curve in enumerate(others):
                colour = COLOURS[number // 2 % len(COLOURS)]
                style = LINES[number // 2 % len(LINES)] if curve.label else MARKERS[number // 2 % len(MARKERS)]
                axes.plot(curve.x, curve.y, style, color=colour, label=curve.label or "_nolegend_")
            axes.axhline(0, color="0.5", linewidth=0.6, linestyle=":")
            axes.set_xlabel(others[0].x_label)
            axes.set_ylabel(others[0].y_label)
            axes.legend()

        return stacked((maps.height, maps.draw), (2.2, lines))


def _energy(bench: Bench, trained: dict[str, Any]) -> dict[str, EnergyResult]:
    """The analysis ``energy`` of all networks; the reference is the first one."""
    from typing import cast

    from freqrobust.harness.analyze import analyze

    parameters: dict[str, Any] = {"severities": [3]}
    if bench.scale == "paper":
        parameters = {}
    elif bench.scale == "digits":
        parameters = {"shifts": [_band_noise(low, high, norm) for low, high in BANDS for norm in (1.5, 2.5)]}
    from freqrobust.analyses.energy import Energy

    data = bench.test.limit(bench.pick(digits=150, cpu=300, paper=10_000), bench.seed)
    record = analyze(trained, data, Energy(**parameters), device=bench.device.type, seed=bench.seed)
    return {result.label: cast("EnergyResult", result) for result in record.results}


def _band_noise(low: float, high: float, norm: float) -> str:
    return f"filtered-noise:l2={norm:g},low={low:g},high={high:g}"


def _points(result: EnergyResult, name: str) -> list[Any]:
    """The shifts as points, and the line through them."""
    from freqrobust.results.findings import Curve

    points = sorted((100 * point.high_share, 100 * point.change) for point in result.points)
    labels = {
        "panel": "energy",
        "x_label": f"energy from {result.radius:g} cycles per image (%)",
        "y_label": "accuracy change from\nnatural training (points)",
    }
    curves = [Curve(label="", x=[x for x, _ in points], y=[y for _, y in points], **labels)]
    if result.line is not None:
        ends = [points[0][0], points[-1][0]]
        heights = [100 * result.line.intercept + result.line.slope * end for end in ends]
        curves.append(Curve(label=f"{name}: slope {100 * result.line.slope:+.0f} points", x=ends, y=heights, **labels))
    return curves
