"""Defocus blur."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch

from freqrobust.attacks.corruptions import _linear as linear
from freqrobust.attacks.corruptions._draws import Draws
from freqrobust.attacks.corruptions._table import Constants, Definition

#: Taps and singular values below this share of the largest are left out: far below one 8-bit level.
_NEGLIGIBLE = 1e-6


def defocus_blur(images: torch.Tensor, c: Constants, draws: Draws) -> torch.Tensor:
    """A disk of radius ``c[0]``, its edge blurred with sigma ``c[1]``."""
    height, width = images.shape[-2:]
    return linear.sum_between(images, _disk_operators(height, width, c[0], c[1], images.device))


def disk(radius: float, sigma: float) -> np.ndarray:
    """The normalised disk on a grid of whole pixels, blurred with sigma over 3 (radius up to 8) or 5 taps."""
    reach, taps = (8, 3) if radius <= 8 else (int(radius), 5)
    axis = np.arange(-reach, reach + 1)
    inside = (axis[:, None] ** 2 + axis[None, :] ** 2 <= radius**2).astype(float)
    blur = linear.filter_matrix(len(axis), linear.gaussian_weights(sigma, taps // 2), "reflect")
    blurred: np.ndarray = blur @ (inside / inside.sum()) @ blur.T
    return blurred


@lru_cache(maxsize=32)
def _disk_operators(
    height: int, width: int, radius: float, sigma: float, device: torch.device
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The disk as a short sum of separable filters: its singular value decomposition."""
    columns, values, rows = np.linalg.svd(disk(radius, sigma))
    like = torch.empty(0, device=device)
    return [
        (
            linear.tensor(linear.filter_matrix(height, columns[:, k] * values[k], "reflect"), like),
            linear.tensor(linear.filter_matrix(width, rows[k], "reflect"), like),
        )
        for k in range(int((values > _NEGLIGIBLE * values[0]).sum()))
    ]


CORRUPTION = Definition(
    defocus_blur,
    meaning="radius of the disk, sigma of its edge",
    cifar=((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),
    imagenet=((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)),
)
