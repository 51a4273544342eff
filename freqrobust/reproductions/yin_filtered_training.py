"""Training and testing on low-pass or high-pass filtered images."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from freqrobust.experiments.experiment import Experiment

if TYPE_CHECKING:
    from freqrobust.experiments.bench import Bench
    from freqrobust.results.findings import Findings

#: Radii for images of 32 pixels.
RADII = (4, 8, 12, 16)


class YinFilteredTraining(Experiment):
    """Networks that are trained and tested on filtered images classify those of high frequencies alone above chance."""

    source: ClassVar[str] = "Yin et al. 2019, fig. 1"

    shape: Literal["circle", "square"] = Field(
        "circle", description="circle: Euclidean distance from DC; square: largest coordinate, as in the paper"
    )

    def run(self, bench: Bench) -> Findings:
        import math

        from freqrobust.core.training_config import Recipe
        from freqrobust.experiments.trends import higher, judged
        from freqrobust.numerics.frequency import band_mask
        from freqrobust.numerics.statistics import wilson
        from freqrobust.reproductions._networks import NAMES, classifier
        from freqrobust.results.analysis import AnalysisTable
        from freqrobust.results.findings import Curve, Findings, Measured

        recipe = bench.pick(
            digits=Recipe(epochs=3, batch_size=100, augment=[], optimizer="adam:lr=0.01"),
            cpu=Recipe(epochs=10, batch_size=100, augment=["flip-crop"], optimizer="adam:lr=0.01"),
            paper=Recipe(epochs=200, batch_size=128, augment=["flip-crop"], optimizer=SGD, schedule="one-cycle"),
        )
        side = min(bench.train.shape[1:])
        chance = bench.test.labels.bincount().max().item() / len(bench.test)
        outcomes, kept = {}, {}
        for kind in ("lfc", "hfc"):
            for radius in RADII:
                spec = f"{kind}:radius={radius * side / 32:g},shape={self.shape}"
                data = bench.shifted(bench.train, spec)
                fitted = bench.fit(classifier(bench), data, recipe, name=f"filtered {spec}")
                outcomes[kind, radius] = bench.correct(fitted.model, bench.test, spec)
                low, high = (0.0, radius * side / 32) if kind == "lfc" else (radius * side / 32, math.inf)
                mask = band_mask(*bench.train.shape[1:], low, high, self.shape)
                kept[kind, radius] = float(mask.double().mean())
        measured, trends, curves, rows = [], [], [], []
        for (kind, radius), right in outcomes.items():
            name = f"{kind.upper()} with r = {radius}"
            ci = wilson(int(right.sum()), len(right))
            measured.append(Measured(name=name, value=float(right.mean()), ci95=ci, unit="%"))
            rows.append([kind.upper(), f"{radius}", f"{100 * kept[kind, radius]:.1f}", f"{100 * right.mean():.1f}"])
            if kind == "hfc":
                trends.append(
                    judged(
                        f"Trained and tested on HFC alone with r = {radius}, the network is above chance.",
                        float(right.mean()) - chance,
                        (ci[0] - chance, ci[1] - chance),
                        "accuracy minus the share of the largest class",
                    )
                )
        for kind, most, least in (("lfc", RADII[-1], RADII[0]), ("hfc", RADII[0], RADII[-1])):
            trends.append(
                higher(
                    f"Trained and tested on {kind.upper()}, the accuracy grows with the bandwidth: r = {most} gives more than "
                    f"r = {least}.",
                    outcomes[kind, most],
                    outcomes[kind, least],
                )
            )
        for panel, x_label in (("by radius", "radius r"), ("by bandwidth", "frequencies that are left (%)")):
            for kind in ("lfc", "hfc"):
                points = sorted(
                    (radius if panel == "by radius" else 100 * kept[kind, radius], outcomes[kind, radius])
                    for radius in RADII
                )
                bounds = [wilson(int(right.sum()), len(right)) for _, right in points]
                curves.append(
                    Curve(
                        panel=panel,
                        label=f"trained and tested on {kind.upper()}",
                        x=[x for x, _ in points],
                        y=[float(right.mean()) for _, right in points],
                        low=[low for low, _ in bounds],
                        high=[high for _, high in bounds],
                        x_label=x_label,
                    )
                )
        return Findings(
            measured=measured,
            tables=[
                AnalysisTable(
                    title="Trained and tested on images that were filtered with the same r",
                    columns=["images", "r", "frequencies left (%)", "accuracy (%)"],
                    rows=rows,
                )
            ],
            trends=trends,
            curves=curves,
            settings={
                "network": NAMES[bench.scale],
                "training": f"{recipe.epochs} epochs, batches of {recipe.batch_size}, {recipe.optimizer}, augmentation "
                f"{', '.join(recipe.augment) or 'none'}, {recipe.schedule}",
                "chance": f"{100 * chance:.1f} %, the share of the largest class among the test images",
                "radius": f"r is given for a side of 32 pixels; the images have {side}",
            },
            notes=[
                "The paper shows ImageNet, where the low-pass network stays above 30 % and the high-pass network reaches "
                "50 %; their values are not comparable with those of other data.",
                "The intervals are over test images, for these networks.",
            ],
        )


SGD = "sgd:lr=0.1,momentum=0.9,nesterov=true,weight_decay=0.0005"
