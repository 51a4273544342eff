"""Networks trained on true and on randomised labels and pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from freqrobust.core.training_config import Recipe
from freqrobust.data.dataset import ImageData
from freqrobust.numerics.statistics import wilson
from freqrobust.reproductions._fitting import epochs_misclassified, first_fitted, right_by_epoch, watch_correct
from freqrobust.reproductions._networks import classifier
from freqrobust.training.randomization import randomized_labels, randomized_pixels

if TYPE_CHECKING:
    from freqrobust.experiments.bench import Bench

#: Randomised pixels, by the name that is printed.
PIXELS = {"shuffled pixels": "shuffled", "random pixels": "random", "Gaussian images": "gaussian"}


@dataclass(frozen=True)
class Condition:
    """One randomisation, and the network that was trained on it.

    Attributes:
        name: as it is printed.
        level: share of corrupted labels; None where pixels are randomised.
        right: which training images are correct after each epoch, ``(epochs, n)``.
        test: which test images are correct after the last epoch, by their true labels.
    """

    name: str
    level: float | None
    right: NDArray[np.bool_]
    test: NDArray[np.bool_]

    @property
    def training_error(self) -> float:
        """Share of the training images that are misclassified after the last epoch."""
        return 1 - float(self.right[-1].mean())

    @property
    def slowness(self) -> NDArray[np.float64]:
        """After how many epochs each training image was misclassified."""
        return epochs_misclassified(self.right)

    @property
    def test_interval(self) -> tuple[float, float]:
        """The 95 % interval of the test accuracy."""
        return wilson(int(self.test.sum()), len(self.test))

    def fitted(self, share: float) -> int | None:
        """The first epoch after which this share of the training images is correct."""
        return first_fitted(self.right, share)


def conditions(bench: Bench, recipe: Recipe, n: int, levels: Sequence[float]) -> list[Condition]:
    """Train on n images with each share of corrupted labels, and with each randomisation of the pixels."""
    train, test = bench.train.limit(n, bench.seed), bench.test
    jobs: list[tuple[str, float | None, ImageData, ImageData]] = []
    for level in levels:
        name = {0.0: "true labels", 1.0: "random labels"}.get(level, f"{level:.0%} corrupted labels")
        jobs.append((name, level, randomized_labels(train, f"corrupted:p={level:g}", bench.seed), test))
    for name, spec in PIXELS.items():
        changed = randomized_pixels(test, spec, bench.seed, like=train)
        jobs.append((name, None, randomized_pixels(train, spec, bench.seed), changed))
    found = []
    for name, share, data, unseen in jobs:
        watch = watch_correct(bench, train=data)
        fitted = bench.fit(classifier(bench), data, recipe, name=name, watch=watch)
        found.append(
            Condition(name, share, right_by_epoch(fitted.watched, "train"), bench.correct(fitted.model, unseen))
        )
    return found
