"""The number of linear regions between two images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from freqrobust.experiments.experiment import Experiment

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from freqrobust.experiments.bench import Bench
    from freqrobust.results.findings import Findings

#: Epochs after which regions are counted.
COUNTED = (0, 1, 2, 4, 8, 16, 32, 64)
LABELS = {"true": "true labels", "shuffled": "shuffled labels"}


class LinearRegions(Experiment):
    """A small adversarial perturbation crosses many of the regions in which a ReLU network is linear."""

    source: ClassVar[str] = "Jiang et al. 2019, fig. 1; Novak et al. 2018"

    def run(self, bench: Bench) -> Findings:
        import numpy as np

        from freqrobust.core.training_config import Recipe
        from freqrobust.experiments.trends import mean_above_zero
        from freqrobust.reproductions._segments import Segments, density_row, mean_interval
        from freqrobust.results.analysis import AnalysisTable
        from freqrobust.results.findings import Curve, Findings, Measured
        from freqrobust.training.randomization import randomized_labels

        eps, eps_text = bench.pick(digits=(0.05, "0.05"), cpu=(1 / 255, "1/255"), paper=(1 / 255, "1/255"))
        epochs = bench.pick(digits=32, cpu=64, paper=64)
        rate = bench.pick(digits="0.003", cpu="0.001", paper="0.001")
        recipe = Recipe(epochs=epochs, batch_size=100, augment=[], optimizer=f"adam:lr={rate}", schedule="constant")
        epochs_counted = [epoch for epoch in COUNTED if epoch <= epochs]
        segments = Segments.of(bench.train, bench.pick(digits=20, cpu=40, paper=200), bench.seed)
        build = _mlp(bench)
        counts: dict[tuple[str, str], list[int]] = {}
        curves, rows, settings = [], [], {}
        for labels, name in LABELS.items():
            data = randomized_labels(bench.train, labels, bench.seed)
            fitted = bench.fit(
                build, data, recipe, name=f"regions {name} {len(segments.same[0])}", watch=_Watch(segments)
            )
            for kind in ("same", "different"):
                counted = [(epoch, fitted.watched[epoch][kind]) for epoch in epochs_counted]
                points = [mean_interval(values) for _, values in counted]
                curves.append(
                    Curve(
                        panel=f"images of {'the same class' if kind == 'same' else 'different classes'}",
                        label=name,
                        x=[float(epoch) for epoch, _ in counted],
                        y=[mean for mean, _ in points],
                        low=[low for _, (low, _) in points],
                        high=[high for _, (_, high) in points],
                        y_label="linear regions crossed",
                    )
                )
            near = segments.perturbed(fitted.model, eps, bench.device, bench.seed)
            found = segments.between_images() | near
            for kind, (starts, ends) in found.items():
                counts[labels, kind] = segments.count(fitted.model, starts, ends)
                rows.append([name, *density_row(kind, counts[labels, kind], starts, ends)])
            settings[f"accuracy on the training images, {name}"] = f"{fitted.epochs[-1].accuracy:.1%}"
        adversarial = np.asarray(counts["true", "adversarial"])
        trends = [
            mean_above_zero(
                f"An adversarial perturbation with eps = {eps_text} crosses several boundaries of linear regions.",
                (adversarial - 2).tolist(),
                "mean number of boundaries crossed, minus 1, over images",
            ),
            mean_above_zero(
                "After training on shuffled labels there are more linear regions between training images.",
                (np.asarray(counts["shuffled", "different"]) - np.asarray(counts["true", "different"])).tolist(),
                "mean difference of the number of regions, over pairs of images",
            ),
        ]
        measured = []
        for (labels, kind), values in counts.items():
            mean, interval = mean_interval(values)
            measured.append(Measured(name=f"{LABELS[labels]}: {kind}", value=mean, ci95=interval))
        return Findings(
            measured=measured,
            trends=trends,
            curves=curves,
            tables=[
                AnalysisTable(
                    title="Linear regions on straight segments",
                    columns=["trained on", "segment", "regions", "L2 length", "boundaries per unit of length"],
                    rows=rows,
                )
            ],
            settings={
                "network": f"fully connected, hidden layers {', '.join(map(str, _sizes(bench)))}, ReLU",
                "training": f"{recipe.epochs} epochs, batches of {recipe.batch_size}, {recipe.optimizer}",
                "perturbations": f"L-infinity, eps = {eps_text}; adversarial by PGD with 10 steps, random with random signs",
                "segments": f"{len(segments.same[0])} of each kind, between training images",
                **settings,
            },
            notes=[
                "Jiang et al. draw the regions of a small network and state the trend without numbers; Novak et al. count the "
                "regions on closed paths around images and report lower robustness after training on random labels.",
                "The intervals are over images or pairs of images, for these networks.",
            ],
        )


class _Watch:
    """Counts regions after the epochs of :data:`COUNTED`."""

    def __init__(self, segments: Any) -> None:
        self.segments, self.epoch = segments, -1

    def __call__(self, network: nn.Module) -> dict[str, Any]:
        self.epoch += 1
        if self.epoch not in COUNTED:
            return {}
        pairs = self.segments.between_images()
        return {kind: self.segments.count(network, *pair) for kind, pair in pairs.items()}


def _sizes(bench: Bench) -> tuple[int, ...]:
    sizes: tuple[int, ...] = bench.pick(digits=(64, 64), cpu=(256, 256, 256), paper=(1000, 1000, 1000))
    return sizes


def _mlp(bench: Bench) -> Callable[[], nn.Module]:
    """A builder of a fully connected network for the images and classes of the training data."""
    from itertools import pairwise
    from math import prod

    from torch import nn

    sizes = (prod(bench.train.shape), *_sizes(bench))
    classes = bench.train.classes

    def build() -> nn.Module:
        layers: list[nn.Module] = [nn.Flatten()]
        for before, after in pairwise(sizes):
            layers += [nn.Linear(before, after), nn.ReLU()]
        return nn.Sequential(*layers, nn.Linear(sizes[-1], classes))

    return build
