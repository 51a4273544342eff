"""Training on LFC or HFC images, testing on the originals."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from freqrobust.reproductions._conventions import WangExperiment

if TYPE_CHECKING:
    from freqrobust.experiments.bench import Bench
    from freqrobust.results.findings import Findings

#: Radius on CIFAR-10, and the published accuracies: LFC in training and testing, HFC in training and testing.
PUBLISHED = {
    4: ((0.99, 0.64), (0.99, 0.35)),
    8: ((0.99, 0.79), (0.96, 0.14)),
    12: ((0.99, 0.84), (0.99, 0.10)),
    16: ((0.99, 0.86), (0.98, 0.11)),
}


class WangTable1(WangExperiment):
    """Networks trained on low-frequency images classify the originals; those trained on high-frequency images do not."""

    source: ClassVar[str] = "Wang et al. 2020, table 1"

    def run(self, bench: Bench) -> Findings:
        import numpy as np

        from freqrobust.experiments.trends import higher
        from freqrobust.numerics.statistics import wilson
        from freqrobust.reproductions import _wang
        from freqrobust.reproductions._networks import classifier
        from freqrobust.results.analysis import AnalysisTable
        from freqrobust.results.findings import Findings, Measured

        images = _wang.training_images(bench, at_cpu=2000)
        used, watched = _wang.recipe(bench, images), images.limit(len(_wang.watched_training_images(bench)))
        measured, trends, rows = [], [], []
        tested: dict[str, list[_wang.Outcomes]] = {"lfc": [], "hfc": []}
        for radius, published in PUBLISHED.items():
            row = [str(radius)]
            for kind, (in_training, in_testing) in zip(("lfc", "hfc"), published, strict=True):
                spec = _wang.component(bench, kind, radius, self.rescale)
                build = classifier(bench, arch=self.arch)
                fitted = bench.fit(build, bench.shifted(images, spec), used, name=spec, normalize=False)
                (train,) = _wang.correct_each(bench, fitted.model, watched, [spec], self.bn)
                (right,) = _wang.correct_each(bench, fitted.model, bench.test, [None], self.bn)
                tested[kind].append(right)
                measured.append(
                    Measured(
                        name=f"test accuracy, trained on {kind.upper()} r={radius}",
                        value=float(right.mean()),
                        ci95=wilson(int(right.sum()), len(right)),
                        published=in_testing,
                        unit="%",
                    )
                )
                row += [f"{_wang.percent(train)} ({100 * in_training:.0f})"]
                row += [f"{_wang.percent(right)} ({100 * in_testing:.0f})"]
            rows.append(row)
            trends.append(
                higher(
                    f"With r = {radius}, training on LFC gives the higher test accuracy.",
                    tested["lfc"][-1],
                    tested["hfc"][-1],
                )
            )
        table = AnalysisTable(
            title="Accuracy (%) on the training images as they were filtered, and on the original test images (published)",
            columns=["r", "LFC training", "LFC test", "HFC training", "HFC test"],
            rows=rows,
        )
        notes = [
            "The published values are those of an independent reproduction with ResNet-18 and the protocol of the paper.",
            *_wang.notes(bench, self),
        ]
        if min(bench.train.shape[1:]) < 16:
            notes.append("At 8 pixels, the LFC image of r = 4 contains the mean only, and the HFC image all the rest.")
        curves = []
        for kind, outcomes in tested.items():
            drawn = _wang.curve("original test images", f"trained on {kind.upper()}", np.array(outcomes))
            curves.append(drawn.model_copy(update={"x": [float(radius) for radius in PUBLISHED], "x_label": "r"}))
        return Findings(
            measured=measured,
            tables=[table],
            trends=trends,
            curves=curves,
            settings=_wang.settings(bench, self, used, images),
            notes=notes,
        )
