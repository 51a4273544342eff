"""Elastic transform."""

from __future__ import annotations

import torch
from torch.nn.functional import grid_sample

from freqrobust.attacks.corruptions import _linear as linear
from freqrobust.attacks.corruptions._draws import Draws
from freqrobust.attacks.corruptions._table import Constants, Definition

#: The ImageNet-C script writes 244 times a factor for sides of 224 pixels.
_SHARE = 244 / 224


def elastic_transform(images: torch.Tensor, c: Constants, draws: Draws) -> torch.Tensor:
    """A random affine map, then a smooth random displacement; linear interpolation, mirrored edges.

    The affine map moves three points of the image by up to ``c[2]`` of the shorter side; the displacement is
    uniform noise blurred with sigma ``c[1]`` and multiplied by ``c[0]`` of that side.
    """
    height, width = images.shape[-2:]
    side = min(height, width)
    y, x = torch.meshgrid(
        *(torch.arange(n, dtype=torch.float32, device=images.device) for n in (height, width)), indexing="ij"
    )
    found = _sample(images, *_affine(x, y, height, width, c[2] * side, draws), corners=True)
    noise = draws.uniform((2, height, width), "displacement", -1, 1)
    shift = linear.gaussian(noise, c[1] * side, "symmetric", truncate=3).mul(c[0] * side)
    return _sample(found, x + shift[:, 0], y + shift[:, 1], corners=False)


def _affine(
    x: torch.Tensor, y: torch.Tensor, height: int, width: int, reach: float, draws: Draws
) -> tuple[torch.Tensor, torch.Tensor]:
    """Where each pixel ``(x, y)`` comes from, two ``(N, H, W)``: the map that takes the moved points back."""
    third = min(height, width) // 3
    middle = torch.tensor([width // 2, height // 2], dtype=torch.float64)
    corners = torch.tensor([[1, 1], [1, -1], [-1, -1]], dtype=torch.float64) * third + middle
    moved = corners + draws.uniform((3, 2), "affine", -reach, reach).cpu().double()  # not every device has float64
    first, second = (moved[:, 0] - moved[:, 2]), (moved[:, 1] - moved[:, 2])
    determinant = first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]
    determinant = torch.where(determinant.abs() < 1e-6, 1e-6, determinant)
    a, b = corners[0] - corners[2], corners[1] - corners[2]
    found = []
    for axis in (0, 1):
        along_x = (a[axis] * second[:, 1] - b[axis] * first[:, 1]) / determinant
        along_y = (b[axis] * first[:, 0] - a[axis] * second[:, 0]) / determinant
        start = corners[2, axis] - along_x * moved[:, 2, 0] - along_y * moved[:, 2, 1]
        slopes = [part.float().view(-1, 1, 1).to(x.device) for part in (along_x, along_y, start)]
        found.append(slopes[0] * x + slopes[1] * y + slopes[2])
    return found[0], found[1]


def _sample(images: torch.Tensor, x: torch.Tensor, y: torch.Tensor, corners: bool) -> torch.Tensor:
    """Linear interpolation at ``(x, y)``, each ``(N, H, W)``; mirrored at the edge pixels' centres or outer sides."""
    height, width = images.shape[-2:]
    if corners:
        grid = torch.stack([x * (2 / (width - 1)) - 1, y * (2 / (height - 1)) - 1], dim=-1)
    else:
        grid = torch.stack([(x * 2 + 1) / width - 1, (y * 2 + 1) / height - 1], dim=-1)
    return grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=corners)


CORRUPTION = Definition(
    elastic_transform,
    meaning="strength, sigma and affine shift, each over the side",
    cifar=(
        (0, 0, 0.08),
        (0.05, 0.2, 0.07),
        (0.08, 0.06, 0.06),
        (0.1, 0.04, 0.05),
        (0.1, 0.03, 0.03),
    ),
    imagenet=(
        (2 * _SHARE, 0.7 * _SHARE, 0.1 * _SHARE),
        (2 * _SHARE, 0.08 * _SHARE, 0.2 * _SHARE),
        (0.05 * _SHARE, 0.01 * _SHARE, 0.02 * _SHARE),
        (0.07 * _SHARE, 0.01 * _SHARE, 0.02 * _SHARE),
        (0.12 * _SHARE, 0.01 * _SHARE, 0.02 * _SHARE),
    ),
    least_side=lambda c: (3, "its affine part moves three points a third of the side apart"),
)
