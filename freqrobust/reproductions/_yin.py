"""The networks of Yin et al. 2019, and their errors under noise of each frequency."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from freqrobust.core.training_config import Recipe
from freqrobust.numerics.frequency import conjugate, directions
from freqrobust.reproductions._networks import NAMES, classifier
from freqrobust.results.findings import Curve

if TYPE_CHECKING:
    from torch import nn

    from freqrobust.data.dataset import ImageData
    from freqrobust.experiments.bench import Bench

SGD = "sgd:lr=0.1,momentum=0.9,nesterov=true,weight_decay=0.0005"


def recipes(bench: Bench) -> dict[str, Recipe]:
    """How each network is trained, by its name; crops and flips belong to all but those for digits."""
    plain = [] if bench.scale == "digits" else ["flip-crop"]
    attack = bench.pick(
        digits="madry:eps=0.1,steps=2,step_size=0.07",
        cpu="madry:eps=8/255,steps=4",
        paper="madry:eps=8/255,steps=7,step_size=2/255",
    )
    common = {
        "epochs": bench.pick(digits=3, cpu=10, paper=200),
        "batch_size": bench.pick(digits=64, cpu=100, paper=128),
        "optimizer": bench.pick(digits="adam:lr=0.01", cpu="adam:lr=0.01", paper=SGD),
    }
    return {
        "natural": Recipe(augment=plain, **common),
        "Gaussian": Recipe(augment=[*plain, "gaussian-noise:sigma=0.1,random=true"], **common),
        "AutoAugment": Recipe(augment=[*plain, "autoaugment"], **common),
        "adversarial": Recipe(augment=plain, method=attack, **common),
    }


def networks(bench: Bench, names: tuple[str, ...]) -> dict[str, nn.Module]:
    """The trained networks of these names."""
    chosen = recipes(bench)
    return {
        name: bench.fit(classifier(bench), bench.train, chosen[name], name=f"{name} training").model for name in names
    }


def settings(bench: Bench, names: tuple[str, ...]) -> dict[str, str]:
    """The trainings in words."""
    chosen = recipes(bench)
    first = chosen[names[0]]
    described = {
        "network": NAMES[bench.scale],
        "training": f"{first.epochs} epochs, batches of {first.batch_size}, {first.optimizer}, {first.schedule}",
    }
    for name in names:
        recipe = chosen[name]
        described[f"training, {name}"] = f"{recipe.method}, augmentation {', '.join(recipe.augment) or 'none'}"
    return described


def wave_errors(bench: Bench, model: nn.Module, data: ImageData) -> NDArray[np.bool_]:
    """Which images are misclassified with a wave of each of :func:`directions` added, ``(directions, n)``."""
    waves = directions(*data.shape[1:])
    specs = [f"fourier-noise:u={u},v={v}" for u, v in waves]
    return np.stack([~right for right in bench.correct_each(model, data, specs)])


def band(shape: tuple[int, int, int], low: float, high: float) -> NDArray[np.bool_]:
    """Which of :func:`directions` have a distance from DC in ``[low, high)`` cycles per image."""
    return np.array([low <= math.hypot(u, v) < high for u, v in directions(*shape[1:])])


def map_curves(panel: str, values: NDArray[np.float64], shape: tuple[int, int, int]) -> list[Curve]:
    """A value of each direction as the rows of a map, a curve for each vertical frequency, from the lowest.

    Args:
        panel: title of the map.
        values: of each of :func:`directions`, ``(directions,)``.
        shape: of the images, ``(C, H, W)``.
    """
    height, width = shape[1:]
    rows = np.zeros((height, width))
    for value, (u, v) in zip(values, directions(height, width), strict=True):
        for a, b in ((u, v), conjugate(u, v, height, width)):
            rows[a + height // 2, b + width // 2] = value
    across = [float(v - width // 2) for v in range(width)]
    return [
        Curve(
            panel=panel,
            label=f"{u - height // 2}",
            x=across,
            y=row.tolist(),
            x_label="horizontal frequency (cycles per image)",
            y_label="error",
        )
        for u, row in enumerate(rows)
    ]
