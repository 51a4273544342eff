"""Speckle noise."""

from __future__ import annotations

import torch

from freqrobust.attacks.corruptions._draws import Draws
from freqrobust.attacks.corruptions._table import Constants, Definition


def speckle_noise(images: torch.Tensor, c: Constants, draws: Draws) -> torch.Tensor:
    """``x + c x n`` with standard normal ``n``."""
    return draws.normal(images.shape[1:], "noise").mul_(c[0]).add_(1).mul_(images)


CORRUPTION = Definition(
    speckle_noise,
    meaning="standard deviation over the pixel",
    cifar=((0.06,), (0.1,), (0.12,), (0.16,), (0.2,)),
    imagenet=((0.15,), (0.2,), (0.35,), (0.45,), (0.6,)),
)
