"""The two-layer ReLU network that is constructed, not trained, to fit any labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from freqrobust.experiments.experiment import Experiment

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from freqrobust.experiments.bench import Bench
    from freqrobust.numerics.two_layer_relu import TwoLayerReLU
    from freqrobust.results.findings import Curve, Findings

    Array = NDArray[np.float64]

#: A largest deviation of the output from the label that counts as an exact fit in float64.
EXACT = 1e-3
#: Images that the picture shows along the direction.
SHOWN = 14


class ZhangExpressivity(Experiment):
    """A two-layer ReLU network of 2n + d weights fits any labels of n images exactly, without learning about new ones."""

    source: ClassVar[str] = "Zhang et al. 2017, section 4, theorem 1"

    def run(self, bench: Bench) -> Findings:
        import numpy as np

        from freqrobust.core.percent import interval, percent
        from freqrobust.experiments.trends import judged
        from freqrobust.numerics.statistics import wilson
        from freqrobust.numerics.two_layer_relu import fit_exactly
        from freqrobust.reproductions._features import pixels
        from freqrobust.results.analysis import AnalysisTable
        from freqrobust.results.findings import Findings, Measured

        n = min(bench.pick(digits=1000, cpu=4000, paper=50_000), len(bench.train))
        train, test = bench.train.first(n), bench.test
        points, true = pixels(train), train.labels.numpy()
        unseen, answers = pixels(test), test.labels.numpy()
        generator = np.random.default_rng(bench.seed)
        random = generator.integers(train.classes, size=n)
        noise = generator.normal(points.mean(), points.std(), points.shape)
        findings = Findings()
        rows = []
        for name, images, labels in [
            ("true labels", points, true),
            ("random labels", points, random),
            ("random labels, Gaussian images", noise, random),
        ]:
            bench.progress.say(f"constructing: {name}")
            network = fit_exactly(images, labels.astype(float), seed=bench.seed)
            deviation = np.abs(network(images) - labels)
            error = float((deviation >= 0.5).mean())
            correct = int((np.round(network(unseen)) == answers).sum())
            low, high = wilson(correct, len(answers))
            findings.measured.append(Measured(name=f"training error, {name}", value=error, published=0.0, unit="%"))
            findings.trends.append(
                judged(
                    f"The network fits all {n} labels exactly: {name}.",
                    EXACT - float(deviation.max()),
                    None,
                    f"{EXACT:g} minus the largest deviation of an output from its label",
                )
            )
            on_test = f"{percent(1 - correct / len(answers))} {interval((1 - high, 1 - low), 1)}"
            rows.append(
                [
                    name,
                    str(network.size),
                    f"{deviation.max():.1e}",
                    percent(error),
                    on_test if images is points else "-",
                ]
            )
            if name == "random labels":
                findings.curves += _along(network, images, labels)
        findings.curves.append(_by_size(points, random, bench.seed))
        columns = ["data", "weights", "largest deviation", "training error", "test error"]
        findings.tables.append(AnalysisTable(title=f"Constructed for {n} images", columns=columns, rows=rows))
        findings.settings = {
            "network": "c(x) = sum over j of w_j max(<a, x> - b_j, 0), in float64; the output is the number of the class",
            "weights": f"2n + d = {2 * n + points.shape[1]} for n = {n} images of d = {points.shape[1]} pixels",
            "direction a": "of 16 random ones, the one with the largest smallest gap between the projections",
            "predicted class": "the whole number nearest to the output; all others count as errors",
        }
        findings.notes = [
            "Theorem 1 needs different projections of all images. An image that occurs twice with the same label is used "
            "once; with two labels, no function fits it, and the construction refuses it.",
            "The biases are the projections themselves, the limit b_(j+1) = z_j of the interleaving in lemma 1. The network "
            "is then a linear interpolation, and rounding errors do not add up over the units.",
        ]
        return findings


def _along(network: TwoLayerReLU, images: Array, labels: NDArray[np.int64]) -> list[Curve]:
    """The output along the direction, and the labels of some neighbouring images."""
    import numpy as np

    from freqrobust.results.findings import Curve

    projections = images @ network.direction
    order = np.argsort(projections)
    middle = order[len(order) // 2 : len(order) // 2 + SHOWN]
    place = projections[middle]
    along = np.sort(np.concatenate([np.linspace(place[0], place[-1], 300), place]))
    output = network(along[:, None] * network.direction)
    panel, axes = f"{len(middle)} of {len(order)} random labels", {"x_label": "projection", "y_label": "output"}
    start = place[0]  # shorter numbers at the axis
    return [
        Curve(panel=panel, label="labels", x=(place - start).tolist(), y=labels[middle].astype(float).tolist(), **axes),
        Curve(panel=panel, label="network", x=(along - start).tolist(), y=output.tolist(), **axes),
    ]


def _by_size(points: Array, labels: NDArray[np.int64], seed: int) -> Curve:
    """The largest deviation over the number of images."""
    import numpy as np

    from freqrobust.numerics.two_layer_relu import fit_exactly
    from freqrobust.results.findings import Curve

    sizes = [size for size in (len(points) // 2**k for k in range(6, -1, -1)) if size > 1]
    deviations = []
    for size in sizes:
        network = fit_exactly(points[:size], labels[:size].astype(float), seed=seed)
        deviations.append(float(np.abs(network(points[:size]) - labels[:size]).max()))
    return Curve(
        panel="Largest deviation from random labels",
        label="",
        x=[float(size) for size in sizes],
        y=[float(np.log10(max(deviation, 1e-16))) for deviation in deviations],
        x_label="images",
        y_label="log10 of the deviation",
    )
