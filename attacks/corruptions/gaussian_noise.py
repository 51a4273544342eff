"""Gaussian noise."""

from __future__ import annotations

import torch

from freqrobust.attacks.corruptions._draws import Draws
from freqrobust.attacks.corruptions._table import Constants, Definition


def gaussian_noise(images: torch.Tensor, c: Constants, draws: Draws) -> torch.Tensor:
    """``x + c n`` with standard normal ``n``."""
    return draws.normal(images.shape[1:], "noise").mul_(c[0]).add_(images)


CORRUPTION = Definition(
    gaussian_noise,
    meaning="standard deviation",
    cifar=((0.04,), (0.06,), (0.08,), (0.09,), (0.10,)),
    imagenet=((0.08,), (0.12,), (0.18,), (0.26,), (0.38,)),
)
