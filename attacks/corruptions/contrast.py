"""Contrast."""

from __future__ import annotations

import torch

from freqrobust.attacks.corruptions._draws import Draws
from freqrobust.attacks.corruptions._table import Constants, Definition


def contrast(images: torch.Tensor, c: Constants, draws: Draws) -> torch.Tensor:
    """Differences from the mean of each channel shrunk to the share ``c``."""
    means = images.mean(dim=(-2, -1), keepdim=True)
    return (images * c[0]).add_(means * (1 - c[0]))


CORRUPTION = Definition(
    contrast,
    meaning="share of the contrast",
    cifar=((0.75,), (0.5,), (0.4,), (0.3,), (0.15,)),
    imagenet=((0.4,), (0.3,), (0.2,), (0.1,), (0.05,)),
)
