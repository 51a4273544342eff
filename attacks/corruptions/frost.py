"""Frost."""

from __future__ import annotations

import torch

from freqrobust.attacks.corruptions._draws import Draws
from freqrobust.attacks.corruptions._table import Constants, Definition
from freqrobust.attacks.corruptions._textures import Textures
from freqrobust.attacks.corruptions.snow import luma


def frost(images: torch.Tensor, c: Constants, draws: Draws, textures: Textures) -> torch.Tensor:
    """``a x + b f`` with a piece ``f`` of a frost texture."""
    channels, height, width = images.shape[1:]
    texture = textures.pieces(height, width, draws)
    return c[0] * images + c[1] * (texture if channels == 3 else luma(texture))


CORRUPTION = Definition(
    frost,
    meaning="weight of the image, weight of the frost",
    cifar=((1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45)),
    imagenet=((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75)),
    channels=(1, 3),
    why="its textures are colour or grayscale",
    textured=True,
)
