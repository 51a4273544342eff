"""Networks learn low frequencies first: sums of sines, perturbed parameters, images with noise of one frequency."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from freqrobust.experiments.experiment import Experiment

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from freqrobust.experiments.bench import Bench
    from freqrobust.reproductions._spectral_bias import Noise, Sines
    from freqrobust.results.findings import Curve, Findings, Trend

EQUAL, GROWING = "equal", "growing"
#: The panels that are drawn as maps: what is across, and what the colours are.
MAPS = {
    f"spectrum, {EQUAL} amplitudes": ("frequency k", "amplitude relative to the target"),
    f"spectrum, {GROWING} amplitudes": ("frequency k", "amplitude relative to the target"),
    "perturbed parameters": ("frequency k", "amplitude relative to that before"),
    "images with noise, spectrum": ("eigenvectors, low to high frequency", "relative error"),
}


class SpectralBias(Experiment):
    """ReLU networks learn low frequencies before high ones, and lose high ones first when parameters are perturbed."""

    source: ClassVar[str] = "Rahaman et al. 2019, figs. 1-5"

    def run(self, bench: Bench) -> Findings:
        import numpy as np

        from freqrobust.reproductions._spectral_bias import noisy_images, sines
        from freqrobust.results.findings import Findings

        given, noise = _settings(bench)
        count = len(given.frequencies)
        targets = {EQUAL: [1.0] * count, GROWING: np.linspace(0.1, 1, count).round(6).tolist()}
        found = {kind: sines(bench, kind, heights, given) for kind, heights in targets.items()}
        images = noisy_images(bench, noise)
        trends = [trend for kind, one in found.items() for trend in _sine_trends(kind, given, one)]
        curves = [curve for kind, one in found.items() for curve in _sine_curves(kind, given, one)]
        settings = {
            "sines": f"frequencies {', '.join(map(str, given.frequencies))}, {given.points} points, random phases; "
            "amplitudes 1, or growing from 0.1 to 1",
            "network": f"{given.layers} linear layers with {given.width} hidden units, ReLU; {given.repetitions} repetitions",
            "training": f"Adam {given.lr:g}, all points in every step, {given.steps} steps",
            "perturbation": f"{given.draws} random directions at the distances {', '.join(f'{d:g}' for d in given.distances)}",
            "images": f"classes 0 and 1 plus {noise.beta:g} sin(2 pi k u), where u is the rescaled norm of the image; "
            f"k = {', '.join(f'{k:g}' for k in noise.frequencies)}; {noise.layers} layers with {noise.width} units, "
            f"Adam {noise.lr:g}, {noise.steps} steps",
        }
        return Findings(
            settings=settings,
            tables=[_table(given, found)],
            trends=[*trends, *_image_trends(noise, images)],
            curves=[*curves, *_image_curves(noise, images)],
            notes=_notes(bench),
        )

    def draw(self, findings: Findings) -> Figure | None:
        from freqrobust.experiments.pictures import draw_panels, heat_map
        from freqrobust.results.figures import COLUMN, figure

        others = [curve for curve in findings.curves if curve.panel not in MAPS]
        drawn = figure(8.2, 2 * COLUMN)
        (above,), (below,) = drawn.subfigures(2, 1, squeeze=False, height_ratios=[1.8, 3.6])
        for axes, (panel, (across, label)) in zip(above.subplots(1, len(MAPS)), MAPS.items(), strict=True):
            heat_map(axes, [curve for curve in findings.curves if curve.panel == panel], across, label)
        draw_panels(below, others)
        return drawn


def _settings(bench: Bench) -> tuple[Sines, Noise]:
    from freqrobust.reproductions._spectral_bias import Noise, Sines

    published = tuple(range(5, 51, 5))
    given: Sines = bench.pick(
        digits=Sines((1, 2, 4, 8), points=64, layers=4, width=48, lr=2e-3, steps=500, repetitions=5),
        cpu=Sines(published, points=200, layers=6, width=64, lr=1e-3, steps=8000, repetitions=5),
        paper=Sines(published, points=200, layers=6, width=256, lr=3e-4, steps=80_000, repetitions=10, draws=100),
    )
    noise: Noise = bench.pick(
        digits=Noise((1, 4, 16), beta=0.5, images=250, layers=4, width=48, lr=2e-3, steps=300, repetitions=5),
        cpu=Noise((1, 4, 16, 64), beta=0.5, images=400, layers=6, width=64, lr=1e-3, steps=600, repetitions=3),
        paper=Noise(
            (1, 4, 16, 64), beta=0.5, images=10_000, layers=6, width=256, lr=3e-4, steps=10_000, repetitions=10
        ),
    )
    return given, noise


def _sine_trends(kind: str, given: Sines, one: dict[str, Any]) -> list[Trend]:
    from freqrobust.experiments.trends import mean_above_zero
    from freqrobust.reproductions._spectral_bias import learned_at, rank_correlation

    first = learned_at(one["steps"], one["spectrum"])
    order = [rank_correlation(given.frequencies, row) for row in first]
    growth = (one["norms"][-1] / one["norms"][0]).log().mean(dim=0).tolist()
    kept = one["perturbed"].mean(dim=0)
    half = len(given.frequencies) // 2
    losses = (kept[:, :half].mean(dim=1) - kept[:, half:].mean(dim=1)).tolist()
    over = f"mean over {given.repetitions} repetitions"
    return [
        mean_above_zero(
            f"With {kind} amplitudes, low frequencies are learned before high ones.",
            order,
            f"rank correlation of the frequency and the step at which half of its amplitude is reached, {over}",
        ),
        mean_above_zero(
            f"With {kind} amplitudes, the spectral norms of the layers grow during training.",
            growth,
            f"logarithm of the spectral norm over that before training, mean of the layers, {over}",
        ),
        mean_above_zero(
            f"With {kind} amplitudes, perturbed parameters change high frequencies more than low ones.",
            losses,
            f"remaining share of the amplitude, lower half of the frequencies minus upper half, {over}",
        ),
    ]


def _image_trends(noise: Noise, found: dict[str, Any]) -> list[Trend]:
    from freqrobust.experiments.trends import mean_above_zero

    validation = found["validation"]
    lowest, last = validation.min(dim=0).values, validation[-1]
    dip = (last / lowest).log()
    at = validation[:, -1].argmin(dim=0)  # where the error with the highest frequency is lowest
    spectrum = found["spectrum"][at, range(noise.repetitions)]  # (R, groups)
    half = noise.groups // 2
    missing = (spectrum[:, half:].mean(dim=1) - spectrum[:, :half].mean(dim=1)).tolist()
    over = f"mean over {noise.repetitions} repetitions"
    k = f"k = {noise.frequencies[0]:g} and k = {noise.frequencies[-1]:g}"
    return [
        mean_above_zero(
            "Label noise of a low frequency increases the validation error more than noise of a high one.",
            (lowest[0] - lowest[-1]).tolist(),
            f"difference of the lowest validation errors with {k}, {over}",
        ),
        mean_above_zero(
            "With noise of a high frequency, the validation error has a minimum early in training.",
            (dip[-1] - dip[0]).tolist(),
            f"logarithm of the last over the lowest validation error, with the highest frequency minus with the lowest, {over}",
        ),
        mean_above_zero(
            "At that minimum, the network has fitted low frequencies of the noisy target and not yet high ones.",
            missing,
            f"relative error of the upper half of the spectrum of a Gaussian kernel minus that of the lower half, {over}",
        ),
    ]


def _table(given: Sines, found: dict[str, dict[str, Any]]) -> Any:
    from freqrobust.reproductions._spectral_bias import learned_at
    from freqrobust.results.analysis import AnalysisTable

    rows = []
    for number, k in enumerate(given.frequencies):
        row = [f"k = {k}"]
        for one in found.values():
            first = learned_at(one["steps"], one["spectrum"])[:, number].double()
            never = int((first > given.steps).sum())
            row += [
                f"{first.median():.0f}" if never * 2 < len(first) else "never",
                f"{one['spectrum'][-1, :, number].mean():.2f}",
            ]
        rows.append(row)
    columns = [f"{what}, {kind} amplitudes" for kind in found for what in ("learned at step", "share at the end")]
    title = "Median step at which half of the amplitude is reached, and share of the amplitude at the end"
    return AnalysisTable(title=title, columns=["frequency", *columns], rows=rows)


def _sine_curves(kind: str, given: Sines, one: dict[str, Any]) -> list[Curve]:
    from freqrobust.results.findings import Curve

    steps = [float(step) for step in one["steps"]]
    spectrum, kept = one["spectrum"].mean(dim=1), one["perturbed"].mean(dim=1)
    z = [j / given.points for j in range(given.points)]
    curves = [
        Curve(panel=f"spectrum, {kind} amplitudes", label=f"{k}", x=steps, y=spectrum[:, number].tolist(), x_label="step",
              y_label="relative amplitude")
        for number, k in enumerate(given.frequencies)
    ]  # fmt: skip
    curves += [
        Curve(panel=f"layers, {kind} amplitudes", label=f"layer {layer + 1}", x=steps, y=norms.tolist(), x_label="step",
              y_label="spectral norm")
        for layer, norms in enumerate(one["norms"].mean(dim=2).T)
    ]  # fmt: skip
    if kind == EQUAL:
        curves += [
            Curve(panel="perturbed parameters", label=f"{k}", x=list(given.distances), y=kept[:, number].tolist(),
                  x_label="distance", y_label="relative amplitude")
            for number, k in enumerate(given.frequencies)
        ]  # fmt: skip
        shown = {"target": one["target"]}
        for part in (8, 2, 1):
            position = (len(steps) - 1) // part
            shown[f"step {one['steps'][position]}"] = one["outputs"][position]
        curves += [
            Curve(panel="network and target, equal amplitudes", label=label, x=z, y=values.tolist(), x_label="z",
                  y_label="output")
            for label, values in shown.items()
        ]  # fmt: skip
    return curves


def _image_curves(noise: Noise, found: dict[str, Any]) -> list[Curve]:
    from freqrobust.results.findings import Curve

    steps = [float(step) for step in found["steps"]]
    means = found["validation"].mean(dim=2)
    curves = [
        Curve(panel="images with noise of one frequency", label=f"k = {k:g}", x=steps, y=means[:, number].tolist(),
              x_label="step", y_label="validation error")
        for number, k in enumerate(noise.frequencies)
    ]  # fmt: skip
    spectrum = found["spectrum"].mean(dim=1)
    return curves + [
        Curve(panel="images with noise, spectrum", label=f"{g + 1}", x=steps, y=spectrum[:, g].tolist(), x_label="step",
              y_label="relative error")
        for g in range(noise.groups)
    ]  # fmt: skip


def _notes(bench: Bench) -> list[str]:
    notes = [
        "Intervals are over repetitions, which differ in initial weights and phases (Student's t).",
        "The wave on the images is sin(2 pi k u) of the norm rescaled to [0, 1], so that k counts cycles over the data; "
        "the paper uses sin(k |x|) of the norm itself.",
        "The spectrum of a function of images is taken in eigenvectors of a Gaussian kernel, in groups from large eigenvalues "
        "to small ones.",
    ]
    if bench.scale != "paper":
        notes.insert(
            0,
            "The paper fits 6 layers of 256 units to k = 5, 10, ..., 50 on 200 points with Adam 3e-4; network, frequencies and "
            "learning rate are those of this scale.",
        )
    return notes
