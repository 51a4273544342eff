"""Brightness."""

from __future__ import annotations

import torch

from freqrobust.attacks.corruptions._draws import Draws
from freqrobust.attacks.corruptions._table import Constants, Definition


def brightness(images: torch.Tensor, c: Constants, draws: Draws) -> torch.Tensor:
    """The value of HSV raised by ``c`` and clipped: every channel times the new value over the old."""
    value = images.amax(dim=1, keepdim=True)
    raised = (value + c[0]).clamp_(0, 1)
    return torch.where(value > 0, images * (raised / value.clamp_min(1e-12)), raised)


CORRUPTION = Definition(
    brightness,
    meaning="added to the value of HSV",
    cifar=((0.05,), (0.1,), (0.15,), (0.2,), (0.3,)),
    imagenet=((0.1,), (0.2,), (0.3,), (0.4,), (0.5,)),
)
