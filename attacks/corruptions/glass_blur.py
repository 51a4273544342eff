"""Glass blur."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch

from freqrobust.attacks.corruptions import _linear as linear
from freqrobust.attacks.corruptions._draws import Draws
from freqrobust.attacks.corruptions._table import Constants, Definition


def glass_blur(images: torch.Tensor, c: Constants, draws: Draws) -> torch.Tensor:
    """Blur, displace pixels, blur again; truncated to 8 bits in between, as in the published scripts."""
    sigma, reach, passes = c[0], int(c[1]), int(c[2])
    n, channels, height, width = images.shape
    blurred = linear.gaussian(images, sigma).clamp(0, 1).mul(255).add_(1e-3).floor_()
    source = shuffled(n, height, width, reach, passes, draws, images.device)
    moved = blurred.view(n, channels, -1).gather(2, source[:, None].expand(-1, channels, -1))
    return linear.gaussian(moved.view(images.shape).div_(255), sigma)


def shuffled(
    n: int, height: int, width: int, reach: int, passes: int, draws: Draws, device: torch.device
) -> torch.Tensor:
    """Which pixel each pixel shows after the moves, int64 ``(n, height * width)``.

    The published scripts visit the pixels from the last to the first, and should swap each with one at most ``reach``
    away; as they assign through views, the pixel becomes a copy of the other, which is not changed. Displacements that
    share no pixel commute, so that all pixels of a diagonal front are processed at once.
    """
    source = torch.arange(height * width, device=device).repeat(n, 1)
    fronts = _fronts(height, width, reach, device)
    for number in range(passes):
        step = draws.integers(2 * reach, (2, height * width), f"steps {number}").sub_(reach)
        away = step[:, 0].mul_(width).add_(step[:, 1])
        for front in fronts:
            source[:, front] = source.gather(1, away[:, front].add_(front))
    return source


@lru_cache(maxsize=16)
def _fronts(height: int, width: int, reach: int, device: torch.device) -> list[torch.Tensor]:
    """Positions by the earliest time at which all moves they depend on are done."""
    rows, columns = np.arange(height - reach, reach, -1), np.arange(width - reach, reach, -1)
    if not len(rows) or not len(columns):
        return []
    time = np.arange(len(rows))[:, None] * (reach + 1) + np.arange(len(columns))[None, :]
    position = rows[:, None] * width + columns[None, :]
    return [torch.as_tensor(position[time == t], device=device) for t in range(time.max() + 1) if (time == t).any()]


CORRUPTION = Definition(
    glass_blur,
    meaning="sigma, largest displacement, passes",
    cifar=((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)),
    imagenet=((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)),
    least_side=lambda c: (2 * int(c[1]) + 1, f"it moves pixels by up to {c[1]:g} in every direction"),
)
