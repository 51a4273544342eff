"""Training with and without explicit and implicit regularisation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from freqrobust.experiments.experiment import Experiment

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from freqrobust.core.training_config import Recipe
    from freqrobust.experiments.bench import Bench
    from freqrobust.results.findings import Findings, Trend

    Right = NDArray[np.bool_]

#: Share of the training images that is correct when a network counts as having fitted them.
FITTED = 0.99
#: Early stopping that gains less than this has no benefit.
MARGIN = 0.02
WEIGHT_DECAY, DROPOUT = 5e-4, 0.5


@dataclass(frozen=True)
class Setting:
    """Which kinds of regularisation are used; the published test accuracy on CIFAR-10 (table 1, Inception)."""

    name: str
    augment: bool = False
    decay: bool = False
    dropout: bool = False
    norm: bool = True
    published: float | None = None


NONE, ALL, WITHOUT_NORM = "none", "all three", "none, no batch norm"
SETTINGS = (
    Setting(NONE, published=0.8575),
    Setting("augmentation", augment=True, published=0.8931),
    Setting("weight decay", decay=True, published=0.8603),
    Setting("dropout", dropout=True),
    Setting(ALL, augment=True, decay=True, dropout=True),
    Setting(WITHOUT_NORM, norm=False, published=0.82),
)


class ZhangRegularization(Experiment):
    """A network without explicit regularisation fits the training images, and still classifies new images, less well."""

    source: ClassVar[str] = "Zhang et al. 2017, section 3, table 1"

    def run(self, bench: Bench) -> Findings:
        from freqrobust.core.percent import interval, percent
        from freqrobust.numerics.statistics import wilson
        from freqrobust.reproductions._fitting import right_by_epoch, watch_correct
        from freqrobust.reproductions._networks import NAMES, classifier
        from freqrobust.results.analysis import AnalysisTable
        from freqrobust.results.findings import Curve, Findings, Measured

        n, epochs, batch, decay = bench.pick(
            digits=(300, 15, 50, 0.85), cpu=(500, 40, 50, 0.93), paper=(50_000, 100, 128, 0.95)
        )
        train, test = bench.train.limit(n, bench.seed), bench.test
        chance = test.labels.bincount().max().item() / len(test)
        findings = Findings()
        rows = []
        fitted: dict[str, Right] = {}
        unseen: dict[str, Right] = {}
        for setting in SETTINGS:
            result = bench.fit(
                classifier(bench, norm=setting.norm, dropout=DROPOUT * setting.dropout),
                train,
                _recipe(bench, setting, epochs, batch, decay),
                name=setting.name,
                watch=watch_correct(bench, test=test),
            )
            seen, new = bench.correct(result.model, train), right_by_epoch(result.watched, "test")
            fitted[setting.name], unseen[setting.name] = seen, new
            low, high = wilson(int(new[-1].sum()), len(test))
            accuracy = float(new[-1].mean())
            findings.measured.append(
                Measured(
                    name=f"test accuracy, {setting.name}",
                    value=accuracy,
                    ci95=(low, high),
                    published=setting.published,
                    unit="%",
                )
            )
            rows.append(
                [
                    setting.name,
                    percent(float(seen.mean())),
                    f"{percent(accuracy)} {interval((low, high), 1)}",
                    percent(float(new.mean(axis=1).max())),
                ]
            )
            x = [float(epoch) for epoch in range(1, epochs + 1)]
            during = [numbers.accuracy for numbers in result.epochs]
            findings.curves += [
                Curve(panel=panel, label=setting.name, x=x, y=y)
                for panel, y in (("Training batches", during), ("Test images", new.mean(axis=1).tolist()))
            ]
        columns = ["regularisation", "training accuracy", "test accuracy", "highest test accuracy"]
        findings.tables.append(AnalysisTable(title="Explicit and implicit regularisation", columns=columns, rows=rows))
        findings.trends = _trends(fitted, unseen, chance)
        findings.settings = {
            "chance": f"{100 * chance:.1f} %, the share of the largest class among the test images",
            "network": NAMES[bench.scale],
            "training": f"{len(train)} images, {epochs} epochs of batches of {batch}, SGD with learning rate 0.1 and "
            f"momentum 0.9, multiplied by {decay:g} after every epoch",
            "augmentation": "random crops" + ("" if bench.scale == "digits" else " and horizontal flips"),
            "weight decay": f"{WEIGHT_DECAY:g}",
            "dropout": f"{DROPOUT:g}, before the last layer",
            "early stopping": "the epoch with the highest accuracy on one half of the test images, measured on the other "
            "half, for both halves; the highest test accuracy of the table is biased upwards",
        }
        findings.notes = [
            f"Published are 50,000 images of CIFAR-10 and a small Inception; here {NAMES[bench.scale]} is trained on "
            f"{len(train)} images, so that accuracies are not comparable.",
            "The paper uses dropout on ImageNet only. Its augmentation is random crops, here flips are added for "
            "photographs.",
            f"Without batch norm, convolutions have a bias instead, the learning rate is "
            f"{_rate(bench, SETTINGS[-1]):g}, and {fitted[WITHOUT_NORM].mean():.0%} of the training images are fitted; its "
            "test accuracy depends on that as well.",
            "Intervals are over test images for these networks, which were trained once each.",
        ]
        if decay != 0.95:
            findings.notes.append(
                f"The learning rate is multiplied by {decay:g} instead of 0.95 after every epoch, because there are only "
                f"{epochs} epochs."
            )
        return findings


def _recipe(bench: Bench, setting: Setting, epochs: int, batch: int, decay: float) -> Recipe:
    from freqrobust.core.training_config import Recipe

    crop = "flip-crop:flip=false" if bench.scale == "digits" else "flip-crop"
    penalty = WEIGHT_DECAY if setting.decay else 0.0
    return Recipe(
        epochs=epochs,
        batch_size=batch,
        augment=[crop] if setting.augment else [],
        optimizer=f"sgd:lr={_rate(bench, setting):g},momentum=0.9,weight_decay={penalty:g}",
        schedule=f"exponential:decay={decay:g}",
    )


def _rate(bench: Bench, setting: Setting) -> float:
    """The learning rate; the residual network of this scale is not trained at 0.1 without batch norm."""
    return 0.03 if bench.scale == "cpu" and not setting.norm else 0.1


def _trends(fitted: dict[str, Right], unseen: dict[str, Right], chance: float) -> list[Trend]:
    from freqrobust.experiments.trends import higher, judged, mean_above_zero
    from freqrobust.numerics.statistics import wilson
    from freqrobust.reproductions._fitting import stopped_early

    last = {name: right[-1] for name, right in unseen.items()}
    trends = [
        judged(
            f"Without explicit regularisation, at least {FITTED:.0%} of the training images are fitted.",
            float(fitted[NONE].mean()) - FITTED,
            None,
            f"training accuracy minus {FITTED:g}",
        )
    ]
    for name, what in [
        (NONE, "explicit regularisation"),
        (WITHOUT_NORM, "explicit regularisation and batch norm"),
    ]:
        low, high = wilson(int(last[name].sum()), len(last[name]))
        trends.append(
            judged(
                f"Without {what}, test images are classified better than chance.",
                float(last[name].mean()) - chance,
                (low - chance, high - chance),
                "test accuracy minus chance, over test images",
            )
        )
    for name in ("augmentation", "weight decay", "dropout", ALL):
        what = "All three together" if name == ALL else name[0].upper() + name[1:]
        verb = "raise" if name == ALL else "raises"
        trends.append(
            higher(
                f"{what} {verb} the test accuracy.",
                last[name],
                last[NONE],
                "difference of the accuracies, over test images",
            )
        )
    kept = 2.0 * last[NONE] - last[ALL] - chance
    trends.append(
        mean_above_zero(
            "Most of the accuracy above chance remains without explicit regularisation.",
            kept.tolist(),
            "accuracy above chance without explicit regularisation, minus the gain by all three, over test images",
        )
    )
    trends.append(
        higher(
            "Batch norm raises the test accuracy.",
            last[NONE],
            last[WITHOUT_NORM],
            "difference of the accuracies, over test images",
        )
    )
    gain = higher("", stopped_early(unseen[NONE]), last[NONE])
    assert gain.ci95 is not None
    trends.append(
        judged(
            f"Without explicit regularisation, early stopping gains less than {100 * MARGIN:g} percentage points.",
            MARGIN - gain.estimate,
            (MARGIN - gain.ci95[1], MARGIN - gain.ci95[0]),
            f"{MARGIN:g} minus the difference of the accuracies, over test images",
        )
    )
    return trends
