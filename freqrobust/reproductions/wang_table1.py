"""Training on LFC or HFC images, testing on the originals."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from freqrobust.experiments.experiment import Experiment

if TYPE_CHECKING:
    from freqrobust.experiments.bench import Bench
    from freqrobust.results.findings import Findings

#: Radius on CIFAR-10, and the published test accuracies of networks trained on LFC and on HFC.
PUBLISHED = {4: (0.64, 0.35), 8: (0.79, 0.14), 12: (0.84, 0.10), 16: (0.86, 0.11)}


class WangTable1(Experiment):
    """Networks trained on low-frequency images classify the originals; those trained on high-frequency images do not."""

    source: ClassVar[str] = "Wang et al. 2020, table 1"

    def run(self, bench: Bench) -> Findings:
        from freqrobust.core.training_config import Recipe
        from freqrobust.experiments.trends import higher
        from freqrobust.reproductions._networks import classifier
        from freqrobust.results.findings import Findings, Measured

        recipe = Recipe(
            epochs=bench.pick(digits=4, cpu=10, paper=100), batch_size=100, augment=[], optimizer="adam:lr=0.01"
        )
        scale = min(bench.train.shape[1:]) / 32
        measured, trends = [], []
        for radius, published in PUBLISHED.items():
            outcomes = []
            for kind, value in zip(("lfc", "hfc"), published, strict=True):
                data = bench.shifted(bench.train, f"{kind}:radius={radius * scale:g}")
                fitted = bench.fit(
                    classifier(bench),
                    data,
                    recipe,
                    name=f"{kind} {radius * scale:g}",
                )
                right = bench.correct(fitted.model, bench.test)
                outcomes.append(right)
                measured.append(
                    Measured(name=f"{kind} r={radius}", value=float(right.mean()), published=value, unit="%")
                )
            trends.append(
                higher(f"With r = {radius}, training on LFC gives the higher test accuracy.", outcomes[0], outcomes[1])
            )
        return Findings(measured=measured, trends=trends)
