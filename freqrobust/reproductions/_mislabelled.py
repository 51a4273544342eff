"""How well flagged samples agree with labels that were flipped on purpose."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from freqrobust.core.training_config import Recipe
from freqrobust.experiments.trends import higher, judged
from freqrobust.numerics.statistics import wilson
from freqrobust.results.analysis import AnalysisTable
from freqrobust.results.findings import Curve, Findings, Measured, Trend
from freqrobust.training.margins import Judgement

#: Points of each curve of a distribution.
POINTS = 60


@dataclass(frozen=True)
class Noise:
    """What was found with one share of flipped labels.

    Attributes:
        share: of the labels that were flipped.
        wrong: which labels were flipped, ``(n,)``.
        judged: by scores, the decision on every sample.
        indicators: by scores, the distances of the indicator samples from the threshold.
        outcomes: which test samples networks classify correctly, by what they were trained on.
    """

    share: float
    wrong: NDArray[np.bool_]
    judged: dict[str, Judgement]
    indicators: dict[str, list[float]]
    outcomes: dict[str, NDArray[np.bool_]]


def ranking(low: NDArray[np.float64], high: NDArray[np.float64]) -> float:
    """The probability that a value of ``low`` is below one of ``high``, ties counting half: the area under the ROC."""
    ranks = stats.rankdata(np.concatenate([low, high]))
    above = ranks[len(low) :].sum() - len(high) * (len(high) + 1) / 2
    return float(above / (len(low) * len(high)))


def mean_difference(first: NDArray[np.float64], second: NDArray[np.float64]) -> tuple[float, tuple[float, float]]:
    """Mean of the first minus that of the second sample, with Welch's t interval at 95 %."""
    a, b = (values.var(ddof=1) / len(values) for values in (first, second))
    freedom = (a + b) ** 2 / (a**2 / (len(first) - 1) + b**2 / (len(second) - 1))
    difference = float(first.mean() - second.mean())
    half = float(stats.t.ppf(0.975, freedom) * np.sqrt(a + b))
    return difference, (difference - half, difference + half)


def findings(noises: list[Noise], scores: str, scale: str, arch: str, until_drop: Recipe, training: Recipe) -> Findings:
    """Tables, curves and trends of all shares of flipped labels."""
    result = Findings(
        settings={
            "network": arch,
            "margins": f"2 runs of {until_drop.epochs} epochs at a constant learning rate, batches of "
            f"{until_drop.batch_size}, {until_drop.optimizer}; measured after every epoch on the images without "
            f"augmentation",
            "training": f"{training.epochs} epochs, batches of {training.batch_size}, {training.optimizer}, "
            f"{training.schedule}, augmentation {', '.join(training.augment) or 'none'}",
            "removal": f"by the margins of the {scores}",
        },
        notes=[
            "The margins are measured after each epoch; the paper measures them on the batches while it trains.",
            "A sample that is no indicator in both runs is judged by the mean of its distances from the two thresholds.",
            "The intervals of accuracies are over test images, those of the AUM over training samples, for these networks.",
        ],
    )
    if scale != "paper":
        result.notes.append("The paper trains ResNet-32 for 150 epochs until the first drop of the learning rate.")
    found, accuracy = [], []
    for noise in noises:
        if not noise.judged[scores].flagged.any():
            result.notes.append(
                f"With {noise.share:.0%} flipped labels no sample is flagged, so that there is no precision, and nothing to "
                f"remove."
            )
        for kind in ("logits", "softmax"):
            found.append(_row(noise, kind))
        accuracy.append([f"{noise.share:.0%}", *(f"{100 * right.mean():.1f}" for right in noise.outcomes.values())])
        result.measured += _measured(noise, scores)
        result.trends += _trends(noise, scores)
        result.curves += _curves(noise, scores)
    columns = ["flipped labels", "margins", "flagged", "precision (%)", "recall (%)", "flagged of correct (%)", "AUC"]
    result.tables = [
        AnalysisTable(title="Flagged samples beside labels that were flipped", columns=columns, rows=found),
        AnalysisTable(
            title="Test accuracy in percent after training",
            columns=["flipped labels", *noises[0].outcomes],
            rows=accuracy,
        ),
    ]
    return result


def _row(noise: Noise, kind: str) -> list[str]:
    judgement, wrong = noise.judged[kind], noise.wrong
    flagged = judgement.flagged
    hits = int((flagged & wrong).sum())
    precision = f"{100 * hits / flagged.sum():.1f}" if flagged.any() else "-"
    return [
        f"{noise.share:.0%}",
        kind,
        f"{int(flagged.sum())} of {len(wrong)}",
        precision,
        f"{100 * hits / wrong.sum():.1f}",
        f"{100 * (flagged & ~wrong).sum() / (~wrong).sum():.1f}",
        f"{ranking(judgement.distance[wrong], judgement.distance[~wrong]):.3f}",
    ]


def _measured(noise: Noise, scores: str) -> list[Measured]:
    flagged, wrong = noise.judged[scores].flagged, noise.wrong
    hits, name = int((flagged & wrong).sum()), f"{noise.share:.0%} flipped"
    values = [
        (f"{name}: recall", hits, int(wrong.sum())),
        *((f"{name}: test accuracy, {what}", int(right.sum()), len(right)) for what, right in noise.outcomes.items()),
    ]
    if flagged.any():
        values.insert(0, (f"{name}: precision", hits, int(flagged.sum())))
    return [Measured(name=name, value=k / n, ci95=wilson(k, n), unit="%") for name, k, n in values]


def _trends(noise: Noise, scores: str) -> list[Trend]:
    judgement, wrong = noise.judged[scores], noise.wrong
    name = f"With {noise.share:.0%} flipped labels"
    flagged = judgement.flagged
    trends = [
        judged(
            f"{name}, mislabelled samples have the lower AUM.",
            *mean_difference(judgement.aum[~wrong], judgement.aum[wrong]),
            f"difference of the mean AUM of the {scores}",
        )
    ]
    base = float(wrong.mean())
    if flagged.any():
        low, high = wilson(int((flagged & wrong).sum()), int(flagged.sum()))
        precision = float(wrong[flagged].mean())
        statement = f"{name}, flagged samples are mislabelled more often than others."
        measure = "precision minus the share of flipped labels"
        trends.append(judged(statement, precision - base, (low - base, high - base), measure))
        trends.append(
            higher(
                f"{name}, training without the flagged samples gives the higher test accuracy.",
                noise.outcomes["without flagged"],
                noise.outcomes["all samples"],
            )
        )
    return trends


def _curves(noise: Noise, scores: str) -> list[Curve]:
    """The distributions of the distances from the threshold, as shares of samples below each value."""
    judgement, panel = noise.judged[scores], f"{noise.share:.0%} of the labels flipped"
    groups = {
        "correct label": judgement.distance[~noise.wrong],
        "flipped label": judgement.distance[noise.wrong],
        "indicator": np.asarray(noise.indicators[scores]),
    }
    labels = {"x_label": "AUM minus the threshold", "y_label": "share of samples below"}
    levels = np.linspace(0, 1, POINTS)
    curves = [
        Curve(panel=panel, label=name, x=np.quantile(values, levels).tolist(), y=levels.tolist(), **labels)
        for name, values in groups.items()
    ]
    return [*curves, Curve(panel=panel, label="threshold", x=[0.0] * 20, y=np.linspace(0, 1, 20).tolist(), **labels)]
