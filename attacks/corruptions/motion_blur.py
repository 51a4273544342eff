"""Motion blur."""

from __future__ import annotations

import numpy as np
import torch

from freqrobust.attacks.corruptions._draws import Draws
from freqrobust.attacks.corruptions._table import Constants, Definition

#: Taps and singular values below this share of the largest are left out: far below one 8-bit level.
_NEGLIGIBLE = 1e-6


def motion_blur(images: torch.Tensor, c: Constants, draws: Draws) -> torch.Tensor:
    """One-sided Gaussian smear of ``2 * radius + 1`` whole-pixel steps at an angle in [-45, 45) degrees."""
    return smear(images, c[0], c[1], draws.uniform((), "angle", -45, 45))


def smear(images: torch.Tensor, radius: float, sigma: float, degrees: torch.Tensor) -> torch.Tensor:
    """Motion blur of ``images (N, C, H, W)`` at each image's own angle ``(N,)``; edges are extended.

    Step ``i`` is ``ceil(i sin - 1/2)`` down and ``ceil(i cos - 1/2)`` to the right, the rounding of ImageMagick's
    ``MotionBlurImage``, which made the published files.
    """
    n, channels, height, width = images.shape
    weights = np.exp(-0.5 * (np.arange(2 * int(radius) + 1) / sigma) ** 2)
    weights /= weights.sum()
    radians = torch.deg2rad(degrees.cpu().double())  # not every device has float64
    steps = torch.arange(len(weights), dtype=torch.float64)[:, None]
    downs, rights = (torch.ceil(steps * part - 0.5).long().to(images.device) for part in (radians.sin(), radians.cos()))
    y, x = (torch.arange(size, device=images.device) for size in (height, width))
    flat = images.reshape(n, channels, -1)
    total = torch.zeros_like(flat)
    for i, weight in enumerate(weights.tolist()):
        if weight < _NEGLIGIBLE:
            break
        rows, columns = (y + downs[i, :, None]).clamp_(0, height - 1), (x + rights[i, :, None]).clamp_(0, width - 1)
        index = (rows[:, :, None] * width + columns[:, None, :]).view(n, 1, -1).expand(-1, channels, -1)
        total.add_(flat.gather(2, index), alpha=weight)
    return total.view(images.shape)


CORRUPTION = Definition(
    motion_blur,
    meaning="radius, sigma",
    cifar=((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)),
    imagenet=((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)),
)
