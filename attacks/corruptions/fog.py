"""Fog."""

from __future__ import annotations

import torch

from freqrobust.attacks.corruptions._draws import Draws
from freqrobust.attacks.corruptions._table import Constants, Definition


def fog(images: torch.Tensor, c: Constants, draws: Draws) -> torch.Tensor:
    """``(x + w f) m / (m + w)`` with a plasma fractal ``f`` and the image's largest value ``m``."""
    weight, decay = c
    height, width = images.shape[-2:]
    size = 1 << (max(height, width) - 1).bit_length()
    plasma = plasma_fractal(size, decay, draws)[:, None, :height, :width]
    highest = images.amax(dim=(1, 2, 3), keepdim=True)
    return (images + weight * plasma).mul_(highest / (highest + weight))


def plasma_fractal(size: int, decay: float, draws: Draws) -> torch.Tensor:
    """Diamond-square heights in [0, 1] on a torus, ``(N, size, size)``; ``size`` is a power of two.

    Each step halves the distance of the points and divides the random part by ``decay`` (twice: the scripts scale
    it by its own half-width). Every point but the first is drawn exactly once.
    """
    if size < 2:
        return torch.zeros(len(draws.ids), size, size, device=draws.ids.device)
    heights = draws.uniform((size, size), "plasma", -1, 1)
    heights[:, 0, 0] = 0
    step, wibble = size, 100.0
    while step >= 2:
        half, scale = step // 2, wibble * wibble
        corners = heights[:, ::step, ::step]
        pairs = corners + corners.roll(-1, 1)
        squares = heights[:, half::step, half::step]
        squares.mul_(scale).add_((pairs + pairs.roll(-1, 2)) / 4)
        above = squares + squares.roll(1, 1) + corners + corners.roll(-1, 2)
        heights[:, ::step, half::step].mul_(scale).add_(above / 4)
        beside = squares + squares.roll(1, 2) + corners + corners.roll(-1, 1)
        heights[:, half::step, ::step].mul_(scale).add_(beside / 4)
        step, wibble = half, wibble / decay
    heights -= heights.amin(dim=(1, 2), keepdim=True)
    return heights.div_(heights.amax(dim=(1, 2), keepdim=True))


CORRUPTION = Definition(
    fog,
    meaning="weight, decay of the fractal",
    cifar=((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)),
    imagenet=((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)),
)
