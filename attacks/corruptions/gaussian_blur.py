"""Gaussian blur."""

from __future__ import annotations

import torch

from freqrobust.attacks.corruptions import _linear as linear
from freqrobust.attacks.corruptions._draws import Draws
from freqrobust.attacks.corruptions._table import Constants, Definition


def gaussian_blur(images: torch.Tensor, c: Constants, draws: Draws) -> torch.Tensor:
    """Blur with sigma ``c``."""
    return linear.gaussian(images, c[0])


CORRUPTION = Definition(
    gaussian_blur,
    meaning="sigma",
    cifar=((0.4,), (0.6,), (0.7,), (0.8,), (1,)),
    imagenet=((1,), (2,), (3,), (4,), (6,)),
)
