"""Pixelation."""

from __future__ import annotations

import torch

from freqrobust.attacks.corruptions import _linear as linear
from freqrobust.attacks.corruptions._draws import Draws
from freqrobust.attacks.corruptions._table import Constants, Definition

#: Added before rounding down: halves are rounded up, also where a sum falls short of them by its rounding error.
_HALF = 0.5 + 1e-3


def pixelate(images: torch.Tensor, c: Constants, draws: Draws) -> torch.Tensor:
    """Averages over boxes, the share ``c`` of the side many, shown as boxes; 8 bits after each axis, as in Pillow."""
    height, width = images.shape[-2:]
    flat = images.reshape(-1, height, width)
    h, w = int(height * c[0]), int(width * c[0])
    columns, rows = (linear.tensor(linear.box_matrix(n, m), images) for n, m in ((width, w), (height, h)))
    small = torch.bmm(flat, (columns.t() * 255).contiguous().expand(len(flat), -1, -1)).add_(_HALF).floor_()
    small = torch.bmm(rows.expand(len(flat), -1, -1), small).add_(_HALF).floor_().div_(255)
    shown = _nearest(height, h, images)[:, None] * w + _nearest(width, w, images)
    return small.view(-1, h * w).index_select(1, shown.view(-1)).view(images.shape)


def _nearest(size: int, smaller: int, images: torch.Tensor) -> torch.Tensor:
    """The box that covers the centre of each pixel, in whole numbers."""
    return (2 * torch.arange(size, device=images.device) + 1) * smaller // (2 * size)


CORRUPTION = Definition(
    pixelate,
    meaning="share of the side",
    cifar=((0.95,), (0.9,), (0.85,), (0.75,), (0.65,)),
    imagenet=((0.6,), (0.5,), (0.4,), (0.3,), (0.25,)),
    least_side=lambda c: (next(n for n in range(1, 99) if int(n * c[0])), f"it keeps {c[0]:g} of the pixels of a side"),
)
