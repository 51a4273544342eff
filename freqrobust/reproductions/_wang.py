"""What the experiments of Wang et al. 2020 measure: accuracies on LFC and HFC images after every epoch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from freqrobust.core.training_config import Recipe
from freqrobust.experiments.bench import Bench, Fitted
from freqrobust.experiments.trends import judged
from freqrobust.harness.opening import prepared_model
from freqrobust.models.batch_statistics import with_batch_statistics
from freqrobust.numerics.statistics import Z95, wilson
from freqrobust.plugins.context import AttackContext
from freqrobust.plugins.registry import attacks
from freqrobust.reproductions._conventions import Rescale, Statistics, WangExperiment
from freqrobust.reproductions._networks import architecture
from freqrobust.results.findings import Curve, Trend
from freqrobust.training.randomization import randomized_labels

if TYPE_CHECKING:
    from freqrobust.data.dataset import ImageData

#: Radii of the paper, for a side of 32 pixels.
RADII = (4, 8, 12, 16)
#: Images per forward pass.
BATCH = 100
#: Images whose statistics batch norm uses with ``bn=batch``, on every device.
STATISTICS_BATCH = 128
Outcomes = NDArray[np.bool_]


class View(NamedTuple):
    """One accuracy that is measured after every epoch.

    Attributes:
        name: of the record.
        data: the samples.
        spec: a shift; None for the images as they are.
        bn: the statistics that batch norm uses.
    """

    name: str
    data: ImageData
    spec: str | None
    bn: Statistics = "running"


def radius_text(bench: Bench, radius: float) -> str:
    """A radius for a side of 32 pixels, scaled to the images of the bench."""
    return f"{radius * min(bench.train.shape[1:]) / 32:g}"


def component(bench: Bench, kind: str, radius: float, rescale: Rescale) -> str:
    """The spec of ``lfc`` or ``hfc`` at a radius for a side of 32 pixels."""
    return f"{kind}:radius={radius_text(bench, radius)}" + (",rescale=max" if rescale == "max" else "")


def recipe(bench: Bench, images: ImageData | None = None, **changes: Any) -> Recipe:
    """Adam with a constant rate and without augmentation.

    Args:
        bench: the scale.
        images: the training images; by default those of :func:`training_images`.
        changes: further fields of the recipe.
    """
    count = len(training_images(bench) if images is None else images)
    values = {
        "epochs": bench.pick(digits=4, cpu=8, paper=100),
        "batch_size": bench.pick(digits=50, cpu=max(1, count // 40), paper=100),
        "optimizer": bench.pick(digits="adam:lr=0.005", cpu="adam:lr=0.002", paper="adam:lr=0.0001"),
        "schedule": "constant",
        "augment": [],
    }
    return Recipe(**{**values, **changes})


def training_images(bench: Bench, at_cpu: int = 1000) -> ImageData:
    """The training images: all of them, or at ``cpu`` a subset of that many, with as many of every class."""
    return bench.train.limit(at_cpu) if bench.scale == "cpu" else bench.train


def watched_training_images(bench: Bench) -> ImageData:
    """The training images on which accuracies are measured after every epoch."""
    return training_images(bench).limit(bench.pick(digits=300, cpu=300, paper=10_000))


def settings(bench: Bench, experiment: WangExperiment, used: Recipe, images: ImageData | None = None) -> dict[str, str]:
    """What was done, in words."""
    return {
        "network": architecture(bench, experiment.arch),
        "training images": f"{len(training_images(bench) if images is None else images):,}",
        "test images": f"{len(bench.test):,}",
        "training": f"{used.epochs} epochs, {used.optimizer}, constant rate, batch size {used.batch_size}, no augmentation",
        "LFC and HFC images": "divided by their largest value"
        if experiment.rescale == "max"
        else "inverse FFT, not clipped",
        "batch norm in evaluation": f"statistics of each test batch of at most {STATISTICS_BATCH} images"
        if experiment.bn == "batch"
        else "running statistics",
    }


def notes(bench: Bench, experiment: WangExperiment) -> list[str]:
    """Differences from the published protocol that all these experiments have at a scale."""
    remarks = []
    if bench.scale != "paper":
        remarks.append(
            f"The published protocol is ResNet-18 on all of CIFAR-10 with Adam at a rate of 1e-4 and batches of 100 for 100 "
            f"epochs; this is scale {bench.scale}."
        )
        remarks.append("Intervals are over images for these networks; another initialisation was not tried.")
    side = min(bench.train.shape[1:])
    if side != 32:
        remarks.append(
            f"Radii are given for 32 pixels and were multiplied by {side / 32:g} for images of {side} pixels."
        )
    if experiment.bn == "batch":
        remarks.append("With bn=batch a prediction depends on the other images of its batch.")
    return remarks


def evaluated(model: nn.Module, bn: Statistics) -> nn.Module:
    """The model as it is evaluated."""
    return with_batch_statistics(model) if bn == "batch" else model


def correct_each(
    bench: Bench, model: nn.Module, data: ImageData, specs: Sequence[str | None], bn: Statistics
) -> list[Outcomes]:
    """Which samples are correct after each shift, with batch norm as it is evaluated, ``(n,)`` each."""
    size = STATISTICS_BATCH if bn == "batch" else None
    return bench.correct_each(evaluated(model, bn), data, specs, size)


def watcher(bench: Bench, views: Sequence[View]) -> Callable[[nn.Module], dict[str, Any]]:
    """Records which samples are correct in each view."""
    groups: dict[tuple[int, Statistics], list[View]] = {}
    for view in views:
        groups.setdefault((id(view.data), view.bn), []).append(view)

    def watch(model: nn.Module) -> dict[str, Any]:
        record: dict[str, Any] = {}
        for (_, bn), members in groups.items():
            correct = correct_each(bench, model, members[0].data, [view.spec for view in members], bn)
            record.update({view.name: pack(samples) for view, samples in zip(members, correct, strict=True)})
        return record

    return watch


def pack(samples: Outcomes) -> str:
    """Which samples are correct, as text that a checkpoint can contain."""
    return f"{len(samples)}:{np.packbits(samples).tobytes().hex()}"


def unpack(text: str) -> Outcomes:
    """The inverse of :func:`pack`."""
    count, _, packed = text.partition(":")
    return np.unpackbits(np.frombuffer(bytes.fromhex(packed), np.uint8), count=int(count)).astype(bool)


def history(fitted: Fitted, name: str) -> Outcomes:
    """Which samples were correct before the first epoch and after every epoch, ``(epochs + 1, n)``."""
    return np.array([unpack(record[name]) for record in fitted.watched])


def curve(panel: str, label: str, outcomes: Outcomes) -> Curve:
    """The accuracy after every epoch, with Wilson's intervals."""
    n = outcomes.shape[1]
    counts = outcomes.sum(axis=1).tolist()
    ends = [wilson(count, n) for count in counts]
    return Curve(
        panel=panel,
        label=label,
        x=[float(epoch) for epoch in range(len(counts))],
        y=[count / n for count in counts],
        low=[low for low, _ in ends],
        high=[high for _, high in ends],
    )


def mean_over_samples(statement: str, values: NDArray[np.float64], measure: str) -> Trend:
    """The trend that the mean over samples of a quantity is positive, by the normal interval.

    Args:
        statement: the trend, as a complete sentence.
        values: the quantity of every sample, ``(n,)``.
        measure: what it is, with its unit.
    """
    mean = float(values.mean())
    half = Z95 * float(values.std(ddof=1)) / np.sqrt(len(values))
    return judged(statement, mean, (mean - half, mean + half), measure)


def beyond_chance(own: NDArray[np.int64], other: NDArray[np.int64], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """A value for each sample, the mean of which is the share of samples that only ``own`` classifies correctly, minus
    that share if the pairs of predictions were independent of the labels.

    The share by chance is estimated from the same samples: it is the mean over all pairs (i, j) of ``g(i, j)``, whether
    the predictions for i would be such for the label of j. The influence of a sample is ``g(i, i)`` minus the means of
    ``g`` over its row and its column, so that the variance of these values is that of the difference.

    Args:
        own: predicted classes, ``(n,)``.
        other: those that are not to be correct.
        labels: the classes.
    """
    found = (own == labels) & (other != labels)
    size = int(max(own.max(), other.max(), labels.max())) + 1
    row = np.where(other != own, np.bincount(labels, minlength=size)[own], 0) / len(labels)
    column = np.bincount(own[other != own], minlength=size)[labels] / len(labels)
    values: NDArray[np.float64] = found - row - column + row.mean()
    return values


def flatter(statement: str, first: NDArray[np.float64], second: NDArray[np.float64], measure: str) -> Trend:
    """The trend that a quantity changes less in the second case: ``|mean(first)| - |mean(second)|`` is positive.

    Where both means differ from zero, their signs are known, and the interval is that of the paired difference of the
    sizes. Otherwise it is the smallest and largest difference within the two intervals.

    Args:
        statement: the trend, as a complete sentence.
        first: the change of every sample in the first case, ``(n,)``.
        second: the same of the second case, for the same samples.
        measure: what is compared, with its unit.
    """
    means = [float(values.mean()) for values in (first, second)]
    halves = [Z95 * float(values.std(ddof=1)) / np.sqrt(len(values)) for values in (first, second)]
    if all(abs(mean) > half for mean, half in zip(means, halves, strict=True)):
        return mean_over_samples(statement, np.sign(means[0]) * first - np.sign(means[1]) * second, measure)
    (low, high), (low2, high2) = (
        (max(abs(mean) - half, 0.0), abs(mean) + half) for mean, half in zip(means, halves, strict=True)
    )
    return judged(statement, abs(means[0]) - abs(means[1]), (low - high2, high - low2), measure)


def larger_gap(statement: str, first: tuple[Outcomes, Outcomes], second: tuple[Outcomes, Outcomes]) -> Trend:
    """The trend that the first network has the larger generalisation gap, accuracy in training minus in testing.

    The difference of the two gaps is a mean over the training samples of paired differences, minus such a mean over the
    test samples; as these are independent, their variances add up.

    Args:
        statement: the trend, as a complete sentence.
        first: which training samples and which test samples the first network classifies correctly.
        second: the same of the second network, for the same samples.
    """
    parts = [a.astype(float) - b.astype(float) for a, b in zip(first, second, strict=True)]
    estimate = float(parts[0].mean() - parts[1].mean())
    half = Z95 * float(np.sqrt(sum(part.var(ddof=1) / len(part) for part in parts)))
    measure = "difference of the generalisation gaps (training minus test accuracy)"
    return judged(statement, estimate, (estimate - half, estimate + half), measure)


def percent(samples: Outcomes) -> str:
    """An accuracy for a table."""
    return f"{100 * samples.mean():.1f}"


def labelled(bench: Bench, labels: str) -> ImageData:
    """The training images with true or shuffled labels."""
    return randomized_labels(training_images(bench), labels, bench.seed)


def predicted(bench: Bench, model: nn.Module, data: ImageData) -> NDArray[np.int64]:
    """The predicted classes, ``(n,)``."""
    with prepared_model(model, bench.device), torch.no_grad():
        classes = [model(images).argmax(dim=1).cpu() for images in data.image_batches(BATCH, bench.device)]
    predictions: NDArray[np.int64] = torch.cat(classes).numpy()
    return predictions


def adversarial_images(bench: Bench, model: nn.Module, data: ImageData, spec: str) -> ImageData:
    """The data after an attack on a model that makes the best example it finds of every sample."""
    attack = attacks.parse(spec)[0].plugin
    parts = []
    with prepared_model(model, bench.device):
        for chunk in torch.arange(len(data)).split(BATCH):
            images, labels, ids = data.batch(chunk, bench.device)
            context = AttackContext(ids, seed=bench.seed, goal="maximize")
            parts.append(attack.perturb(model, images, labels, context).detach().cpu())
    return replace(data, images=torch.cat(parts), spec=f"{data.spec}+{spec}")
