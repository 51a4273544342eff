"""Training on randomised labels and pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from freqrobust.experiments.experiment import Experiment

if TYPE_CHECKING:
    from collections.abc import Sequence

    from freqrobust.experiments.bench import Bench
    from freqrobust.reproductions._randomization import Condition
    from freqrobust.results.findings import Curve, Findings, Trend

#: Share of the training images that is correct when a network counts as having fitted them.
FITTED = 0.99
#: A test accuracy this close to chance counts as chance.
MARGIN = 0.05
#: Published test errors on CIFAR-10 without regularisation (table 1, Inception).
PUBLISHED = {"true labels": 0.1425, "random labels": 0.9022}
ERROR = "test error over the share of corrupted labels"


class ZhangRandomization(Experiment):
    """A network fits random labels and random pixels as well as real data, only more slowly."""

    source: ClassVar[str] = "Zhang et al. 2017, section 2, figure 1"

    def run(self, bench: Bench) -> Findings:
        from freqrobust.core.percent import interval, percent
        from freqrobust.core.training_config import Recipe
        from freqrobust.reproductions._networks import NAMES
        from freqrobust.reproductions._randomization import conditions
        from freqrobust.results.analysis import AnalysisTable
        from freqrobust.results.findings import Findings, Measured

        n, batch = bench.pick(digits=(200, 50), cpu=(500, 50), paper=(50_000, 128))
        levels = bench.pick(
            digits=(0.0, 0.5, 1.0), cpu=(0.0, 0.25, 0.5, 0.75, 1.0), paper=tuple(k / 10 for k in range(11))
        )
        recipe = Recipe(
            epochs=bench.pick(digits=35, cpu=35, paper=100),
            batch_size=batch,
            augment=[],
            optimizer="sgd:lr=0.1,momentum=0.9",
            schedule="exponential:decay=0.95",
        )
        found = conditions(bench, recipe, n, levels)
        findings = Findings()
        rows = []
        for condition in found:
            low, high = condition.test_interval
            fitted = condition.fitted(FITTED)
            error = 1 - float(condition.test.mean())
            findings.measured.append(
                Measured(
                    name=f"training error, {condition.name}", value=condition.training_error, published=0.0, unit="%"
                )
            )
            findings.measured.append(
                Measured(
                    name=f"test error, {condition.name}",
                    value=error,
                    ci95=(1 - high, 1 - low),
                    published=PUBLISHED.get(condition.name),
                    unit="%",
                )
            )
            rows.append(
                [
                    condition.name,
                    percent(condition.training_error),
                    str(fitted) if fitted is not None else f"more than {recipe.epochs}",
                    f"{condition.slowness.mean():.1f}",
                    f"{percent(error)} {interval((1 - high, 1 - low), 1)}",
                ]
            )
        labels = [condition for condition in found if condition.level is not None]
        findings.curves = _curves(found, labels, 1 / bench.train.classes)
        findings.trends = _trends({condition.name: condition for condition in found}, labels, bench.train.classes)
        columns = ["training data", "training error", f"epochs to {FITTED:.0%}", "epochs misclassified", "test error"]
        findings.tables.append(AnalysisTable(title="Randomised training data", columns=columns, rows=rows))
        findings.settings = {
            "network": NAMES[bench.scale],
            "training": f"{min(n, len(bench.train))} images, {recipe.epochs} epochs of batches of {batch}, SGD with learning "
            "rate 0.1 and momentum 0.9, multiplied by 0.95 after every epoch, no augmentation, no weight decay",
            "epochs misclassified": "after how many epochs a training image was misclassified, mean over the images",
            "test error": "on the true labels; test pixels are randomised as the training pixels are",
        }
        findings.notes = [
            f"Published are 50,000 images of CIFAR-10 and a small Inception; here {NAMES[bench.scale]} is trained on "
            f"{min(n, len(bench.train))} images, so that error rates on true labels are not comparable.",
            "The paper crops the central 28 x 28 pixels and normalises each image by itself; here all pixels are used, and "
            "normalised by mean and standard deviation of the training images.",
            f"Published is the time to a small training loss; here it is the epoch after which {FITTED:.0%} of the training "
            "images are correct.",
            "Intervals are over images for these networks, which were trained once each. They do not contain the differences "
            "between trainings, which can amount to a few epochs.",
        ]
        return findings


def _curves(found: Sequence[Condition], labels: Sequence[Condition], chance: float) -> list[Curve]:
    from freqrobust.results.findings import Curve

    curves = []
    for panel, shown in [
        ("Labels", labels),
        ("Pixels", [condition for condition in found if condition.level in (None, 0.0, 1.0)]),
    ]:
        for condition in shown:
            accuracy = condition.right.mean(axis=1).tolist()
            epochs = [float(epoch) for epoch in range(1, len(accuracy) + 1)]
            curves.append(
                Curve(panel=panel, label=condition.name, x=epochs, y=accuracy, y_label="accuracy on training images")
            )
    level = [condition.level for condition in labels if condition.level is not None]
    base = labels[0].slowness.mean()
    axis = {"x_label": "share of corrupted labels"}
    curves.append(
        Curve(
            panel="Slowdown",
            label="epochs misclassified",
            x=level,
            y=[float(condition.slowness.mean() / base) for condition in labels],
            y_label="relative to true labels",
            **axis,
        )
    )
    reached = [(condition.level, condition.fitted(FITTED)) for condition in labels]
    if reached[0][1] is not None:
        points = [(x, y / reached[0][1]) for x, y in reached if x is not None and y is not None]
        curves.append(
            Curve(
                panel="Slowdown",
                label=f"epochs to {FITTED:.0%}",
                x=[x for x, _ in points],
                y=[y for _, y in points],
                y_label="relative to true labels",
                **axis,
            )
        )
    ends = [condition.test_interval for condition in labels]
    curves.append(
        Curve(
            panel="Test error",
            label="measured",
            x=level,
            y=[1 - float(condition.test.mean()) for condition in labels],
            low=[1 - high for _, high in ends],
            high=[1 - low for low, _ in ends],
            y_label="test error",
            **axis,
        )
    )
    curves.append(
        Curve(panel="Test error", label="chance", x=level, y=[1 - chance] * len(level), y_label="test error", **axis)
    )
    return curves


def _trends(found: dict[str, Condition], labels: Sequence[Condition], classes: int) -> list[Trend]:
    import numpy as np

    from freqrobust.experiments.trends import judged, mean_above_zero
    from freqrobust.reproductions._fitting import slopes

    worst = max(found.values(), key=lambda condition: condition.training_error)
    level = [condition.level for condition in labels if condition.level is not None]
    random = found["random labels"]
    per_image = "epochs for which an image is misclassified, over training images"

    def slower(statement: str, first: str, second: str) -> Trend:
        difference = found[first].slowness - found[second].slowness
        return mean_above_zero(statement, difference.tolist(), f"difference of the {per_image}")

    low, high = (end - 1 / classes for end in random.test_interval)
    away = abs(float(random.test.mean()) - 1 / classes)
    nearest = 0.0 if low <= 0 <= high else min(abs(low), abs(high))
    return [
        judged(
            f"At least {FITTED:.0%} of the training images are fitted in every condition.",
            1 - worst.training_error - FITTED,
            None,
            f"lowest training accuracy ({worst.name}) minus {FITTED:g}",
        ),
        slower("Random labels are fitted later than true labels.", "random labels", "true labels"),
        mean_above_zero(
            "The more labels are corrupted, the later they are fitted.",
            slopes(level, np.stack([condition.slowness for condition in labels])).tolist(),
            f"slope over the share of corrupted labels of the {per_image}",
        ),
        slower("Shuffled pixels are fitted later than the original ones.", "shuffled pixels", "true labels"),
        slower("Random pixels are fitted earlier than random labels.", "random labels", "random pixels"),
        slower("Gaussian images are fitted earlier than random labels.", "random labels", "Gaussian images"),
        mean_above_zero(
            "The more labels are corrupted, the higher is the test error.",
            slopes(level, np.stack([(~condition.test).astype(float) for condition in labels])).tolist(),
            f"slope of the {ERROR}, over test images",
        ),
        judged(
            f"With random labels, the test accuracy is within {100 * MARGIN:g} percentage points of chance.",
            MARGIN - away,
            (MARGIN - max(abs(low), abs(high)), MARGIN - nearest),
            f"{MARGIN:g} minus the distance of the test accuracy from chance, over test images",
        ),
    ]
