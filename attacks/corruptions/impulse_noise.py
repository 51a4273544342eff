"""Impulse noise (salt and pepper)."""

from __future__ import annotations

import torch

from freqrobust.attacks.corruptions._draws import Draws
from freqrobust.attacks.corruptions._table import Constants, Definition


def impulse_noise(images: torch.Tensor, c: Constants, draws: Draws) -> torch.Tensor:
    """Each value is black with probability ``c / 2``, white with ``c / 2``."""
    u = draws.uniform(images.shape[1:], "noise")
    images = images.masked_fill(u < c[0] / 2, 0.0)
    return images.masked_fill_((u >= c[0] / 2) & (u < c[0]), 1.0)


CORRUPTION = Definition(
    impulse_noise,
    meaning="share of the values that are replaced",
    cifar=((0.01,), (0.02,), (0.03,), (0.05,), (0.07,)),
    imagenet=((0.03,), (0.06,), (0.09,), (0.17,), (0.27,)),
)
