"""Saturation."""

from __future__ import annotations

import torch

from freqrobust.attacks.corruptions._draws import Draws
from freqrobust.attacks.corruptions._table import Constants, Definition


def saturate(images: torch.Tensor, c: Constants, draws: Draws) -> torch.Tensor:
    """The saturation of HSV times ``c[0]`` plus ``c[1]``, clipped; gray turns red where ``c[1]`` is not 0."""
    value, lowest = images.amax(dim=1, keepdim=True), images.amin(dim=1, keepdim=True)
    spread = value - lowest
    saturation = (spread / value.clamp_min(1e-12) * c[0]).add_(c[1]).clamp_(0, 1)
    red = torch.tensor([0.0, 1.0, 1.0], device=images.device).view(1, 3, 1, 1)
    share = torch.where(spread > 0, (value - images) / spread.clamp_min(1e-12), red)
    return value * (1 - saturation * share)


CORRUPTION = Definition(
    saturate,
    meaning="factor and summand of the saturation of HSV",
    cifar=((0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2)),
    imagenet=((0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (20, 0.2)),
    channels=(3,),
    why="only colours have a saturation",
)
