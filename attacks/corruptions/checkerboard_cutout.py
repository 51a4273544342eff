"""Checkerboard cutout: gray squares of a rotated checkerboard.

E. Mintun, A. Kirillov and S. Xie, "On Interaction Between Augmentations and Corruptions in Natural Corruption
Robustness", NeurIPS 2021 (ImageNet-C-bar and CIFAR-10-C-bar). The constants are those of the repository
``facebookresearch/augmentation-corruption``, folder ``imagenet_c_bar``: the severities of ``cifar10_c_bar.csv`` and
``imagenet_c_bar.csv``, each over 10.
"""

from __future__ import annotations

import math

import torch

from freqrobust.attacks.corruptions._draws import Draws
from freqrobust.attacks.corruptions._table import Constants, Definition

_GRAY = 128 / 255
#: Range of the side of a square, over the shorter side of the image; it is at least one pixel.
_SMALLEST, _LARGEST = 0.1, 0.25


def checkerboard_cutout(images: torch.Tensor, c: Constants, draws: Draws) -> torch.Tensor:
    """The fields of one colour of the board turn gray with probability ``c``.

    The board is rotated by a random angle about the first pixel, and its fields have a random side. As in the
    published script, coordinates of fields are truncated towards zero when a field is looked up, so that fields on
    either side of an axis of the board turn gray together.
    """
    height, width = images.shape[-2:]
    side = min(height, width)
    scale = draws.uniform((1, 1), "scale", _SMALLEST, _LARGEST).mul_(side).clamp_min_(1)
    angle = draws.uniform((1, 1), "angle", 0, 2 * math.pi)
    y = torch.arange(height, dtype=torch.float32, device=images.device).view(-1, 1)
    x = torch.arange(width, dtype=torch.float32, device=images.device)
    down = (angle.cos() * y + angle.sin() * x) / scale
    right = (angle.cos() * x - angle.sin() * y) / scale
    farthest = math.ceil(math.hypot(height, width) / max(_SMALLEST * side, 1))
    fields = draws.uniform((2 * farthest + 1, 2 * farthest + 1), "fields") < c[0]
    row, column = down.trunc().long() + farthest, right.trunc().long() + farthest
    gray = fields.flatten(1).gather(1, (row * fields.shape[2] + column).flatten(1)).view(row.shape)
    same_colour = down.remainder(2).floor() == right.remainder(2).floor()
    return images.masked_fill((gray & same_colour)[:, None], _GRAY)


CORRUPTION = Definition(
    checkerboard_cutout,
    meaning="share of the fields of one colour that turn gray",
    cifar=((0.1,), (0.2,), (0.3,), (0.4,), (0.5,)),
    imagenet=((0.2,), (0.3,), (0.4,), (0.5,), (0.6,)),
)
