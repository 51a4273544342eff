"""Accuracy under filtered Gaussian noise of growing bandwidth."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from freqrobust.experiments.experiment import Experiment

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from freqrobust.experiments.bench import Bench
    from freqrobust.results.findings import Findings

#: Bandwidths for images of 32 pixels.
BANDWIDTHS = (3, 7, 11, 15, 19, 23, 27, 31)
NETWORKS = ("natural", "Gaussian", "adversarial")


class YinBandwidth(Experiment):
    """Gaussian augmentation and adversarial training: more robust to high-pass noise, less to low-pass noise."""

    source: ClassVar[str] = "Yin et al. 2019, fig. 5"

    def run(self, bench: Bench) -> Findings:
        from freqrobust.experiments.trends import higher
        from freqrobust.numerics.frequency import wave_norm
        from freqrobust.numerics.statistics import wilson
        from freqrobust.reproductions._yin import networks, settings
        from freqrobust.results.analysis import AnalysisTable
        from freqrobust.results.findings import Curve, Findings, Measured

        side = min(bench.test.shape[1:])
        norm = 2 * wave_norm(side, side)  # 8 at 32 pixels, as published
        bandwidths = (
            BANDWIDTHS
            if side == 32
            else tuple(sorted({min(max(3, round(b * side / 32) | 1), (side - 2) | 1) for b in BANDWIDTHS}))
        )
        specs = {
            (kind, bandwidth): noise_spec(kind, bandwidth, side, norm)
            for kind in ("low-pass", "high-pass")
            for bandwidth in bandwidths
        }
        right: dict[tuple[str, str, int], NDArray[np.bool_]] = {}
        clean = {}
        for name, model in networks(bench, NETWORKS).items():
            clean[name], *outcomes = bench.correct_each(model, bench.test, [None, *specs.values()])
            right |= {(name, *key): outcome for key, outcome in zip(specs, outcomes, strict=True)}
        curves, rows = [], []
        for kind in ("low-pass", "high-pass"):
            for name in NETWORKS:
                outcomes = [right[name, kind, bandwidth] for bandwidth in bandwidths]
                bounds = [wilson(int(outcome.sum()), len(outcome)) for outcome in outcomes]
                curves.append(
                    Curve(
                        panel=f"{kind} noise",
                        label=name,
                        x=[float(bandwidth) for bandwidth in bandwidths],
                        y=[float(outcome.mean()) for outcome in outcomes],
                        low=[low for low, _ in bounds],
                        high=[high for _, high in bounds],
                        x_label="bandwidth of the noise",
                    )
                )
                rows.append([kind, name, *(f"{100 * outcome.mean():.1f}" for outcome in outcomes)])
        lowest, middle = bandwidths[0], bandwidths[len(bandwidths) // 2]
        trends = []
        for name, training in (("Gaussian", "Gaussian augmentation"), ("adversarial", "adversarial training")):
            trends.append(
                higher(
                    f"Under low-pass noise of bandwidth {lowest}, natural training gives the higher accuracy than {training}.",
                    right["natural", "low-pass", lowest],
                    right[name, "low-pass", lowest],
                )
            )
            trends.append(
                higher(
                    f"Under high-pass noise of bandwidth {middle}, {training} gives the higher accuracy than natural training.",
                    right[name, "high-pass", middle],
                    right["natural", "high-pass", middle],
                )
            )
        return Findings(
            measured=[
                Measured(
                    name=f"{name}: clean", value=float(one.mean()), ci95=wilson(int(one.sum()), len(one)), unit="%"
                )
                for name, one in clean.items()
            ],
            tables=[
                AnalysisTable(
                    title="Accuracy in percent under filtered noise, by its bandwidth",
                    columns=["noise", "training", *map(str, bandwidths)],
                    rows=rows,
                )
            ],
            trends=trends,
            curves=curves,
            settings={
                **settings(bench, NETWORKS),
                "noise": f"Gaussian, filtered, scaled to an L2 norm of {norm:.3g} over all channels, not clipped",
                "bandwidth B": "low-pass: frequencies in the central square of side B; high-pass: those outside of the "
                f"central square of side {side} - B",
            },
            notes=[
                "The paper uses Wide ResNet-28-10 on the full data, and shows curves without values.",
                "The intervals are over test images, for these networks.",
            ],
        )


def noise_spec(kind: str, bandwidth: int, side: int, norm: float) -> str:
    """The attack that adds noise of an odd bandwidth: low-pass keeps the central square of that side, high-pass removes
    the central square of side ``side - bandwidth``."""
    if kind == "low-pass":
        return f"filtered-noise:l2={norm:.6g},high={(bandwidth + 1) / 2:g},shape=square"
    return f"filtered-noise:l2={norm:.6g},low={(side - bandwidth + 1) / 2:g},shape=square"
