"""Where low frequencies are learned first, and where they are not."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from freqrobust.experiments.experiment import Experiment

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from freqrobust.experiments.bench import Bench
    from freqrobust.results.findings import Curve, Findings

#: Width of the features, two frequencies of the target, and the time that is followed, on either side of 2 / h.
ABOVE, BELOW = (1.0, (2, 3), 60.0), (0.25, (1, 5), 90.0)
#: Remaining share of the error at which a frequency counts as learned.
LEARNED = 0.1
#: Largest difference of the relative error from the closed form that counts as agreement.
MARGIN = 0.05


class FPrincipleLimits(Experiment):
    """Low frequencies are learned first above the frequency 2/h only, where h is the width of the features."""

    source: ClassVar[str] = "E, Ma and Wu 2019, equations 148 and 149"

    def run(self, bench: Bench) -> Findings:
        import numpy as np

        from freqrobust.experiments.trends import judged
        from freqrobust.reproductions._mean_field import descend, eigenvalue
        from freqrobust.results.analysis import AnalysisTable
        from freqrobust.results.findings import Findings, Measured

        points = bench.pick(digits=96, cpu=192, paper=768)
        findings = Findings()
        rows, largest = [], 0.0
        for (h, frequencies, duration), side in ((ABOVE, "above"), (BELOW, "below")):
            bench.progress.say(f"gradient descent with h = {h:g}")
            descent = descend(h, frequencies, points=points, step=0.2, steps=round(duration / 0.2))
            rates = eigenvalue(np.array(frequencies, dtype=float), h)
            expected = np.exp(-np.outer(rates, descent.times))
            largest = max(largest, float(np.abs(descent.errors - expected).max()))
            times, predicted = descent.time_to(LEARNED), -np.log(LEARNED) / rates
            for k, rate, time, closed in zip(frequencies, rates, times, predicted, strict=True):
                rows.append([f"{h:g}", f"{2 / h:g}", str(k), f"{rate:.4f}", f"{closed:.1f}", f"{time:.1f}"])
                findings.measured.append(Measured(name=f"time to learn k = {k}, h = {h:g}", value=float(time)))
            low, high = (float(time) for time in times)
            first, second = ("lower", "higher") if side == "above" else ("higher", "lower")
            findings.trends.append(
                judged(
                    f"With h = {h:g}, where k = {frequencies[0]} and {frequencies[1]} are "
                    f"{'at or above' if side == 'above' else 'below'} 2/h = {2 / h:g}, the {first} frequency is learned "
                    "first.",
                    high - low if side == "above" else low - high,
                    None,
                    f"time of the {second} frequency minus that of the {first} one, in gradient descent",
                )
            )
            findings.curves += _decrease(f"h = {h:g}, 2/h = {2 / h:g}", frequencies, descent.times, descent.errors)
        axis = np.linspace(0, 12, 241)
        findings.curves = [_rates(axis, h) for h, *_ in (ABOVE, BELOW)] + findings.curves
        findings.trends.append(
            judged(
                "The error of each frequency decreases as the eigenvalue of the kernel predicts.",
                MARGIN - largest,
                None,
                f"{MARGIN:g} minus the largest difference of the relative errors",
            )
        )
        columns = ["h", "2/h", "frequency k", "eigenvalue", "time, closed form", "time, gradient descent"]
        findings.tables.append(
            AnalysisTable(title=f"Time until {LEARNED:.0%} of the error remain", columns=columns, rows=rows)
        )
        findings.settings = {
            "network": f"mean of {points} periodic Gaussian features of width h; their positions are trained",
            "target": "the initial network plus 0.001 (sin(k1 x) + sin(k2 x))",
            "training": f"gradient descent with step size 0.2 on the squared error at {points} places",
            "closed form": "the error of frequency k decreases as exp(-h^2 k^2 / 2 exp(-h^2 k^2 / 2) t)",
        }
        findings.notes = [
            "The eigenvalues are largest at k = sqrt(2)/h and decrease from there on; 2/h is the bound that the paper states.",
            "The paper prints the eigenvalues with a further factor pi. The kernel that it gives does not have it; the factor "
            "changes the unit of time, and not the order.",
            "The experiment needs no images. It is exact, so that there are no intervals.",
        ]
        return findings


def _rates(k: NDArray[np.float64], h: float) -> Curve:
    from freqrobust.reproductions._mean_field import eigenvalue
    from freqrobust.results.findings import Curve

    return Curve(
        panel="Eigenvalues",
        label=f"h = {h:g}",
        x=k.tolist(),
        y=eigenvalue(k, h).tolist(),
        x_label="frequency k",
        y_label="eigenvalue",
    )


def _decrease(
    panel: str, frequencies: tuple[int, ...], times: NDArray[np.float64], errors: NDArray[np.float64]
) -> list[Curve]:
    from freqrobust.results.findings import Curve

    axes = {"panel": panel, "x_label": "time", "y_label": "relative error"}
    return [
        Curve(label=f"k = {k}", x=times.tolist(), y=measured.tolist(), **axes)
        for k, measured in zip(frequencies, errors, strict=True)
    ]
