"""Zoom blur."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch

from freqrobust.attacks.corruptions import _linear as linear
from freqrobust.attacks.corruptions._draws import Draws
from freqrobust.attacks.corruptions._table import Constants, Definition


def zoom_blur(images: torch.Tensor, c: Constants, draws: Draws) -> torch.Tensor:
    """The mean of the image and of its zooms by 1, 1 + step, ... below ``c[0]``."""
    height, width = images.shape[-2:]
    return linear.sum_between(images, _zoom_operators(height, width, c[0], c[1], images.device))


def zoom_factors(end: float, step: float) -> np.ndarray:
    """``1, 1 + step, ...`` as the published scripts write them; rounding decides whether the end is among them."""
    return np.arange(1, end, step)


@lru_cache(maxsize=32)
def _zoom_operators(
    height: int, width: int, end: float, step: float, device: torch.device
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """One pair for each distinct zoom: many factors crop and enlarge by the same whole pixels."""
    factors = [1.0, *zoom_factors(end, step).tolist()]  # the image itself counts once more
    counts: dict[tuple[int, ...], tuple[int, float]] = {}
    for factor in factors:
        key = tuple(n for size in (height, width) for n in (math.ceil(size / factor), _zoomed(size, factor)))
        count, _ = counts.get(key, (0, factor))
        counts[key] = (count + 1, factor)
    like = torch.empty(0, device=device)
    return [
        (
            linear.tensor(linear.zoom_matrix(height, factor) * (count / len(factors)), like),
            linear.tensor(linear.zoom_matrix(width, factor), like),
        )
        for count, factor in counts.values()
    ]


def _zoomed(size: int, factor: float) -> int:
    return round(math.ceil(size / factor) * factor)


CORRUPTION = Definition(
    zoom_blur,
    meaning="end of the zoom factors (not reached), their step",
    cifar=((1.06, 0.01), (1.11, 0.01), (1.16, 0.01), (1.21, 0.01), (1.26, 0.01)),
    imagenet=((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03)),
)
