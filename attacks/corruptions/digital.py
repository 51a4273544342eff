"""Brightness, contrast, saturation, elastic transform, pixelation and JPEG."""

from __future__ import annotations

import torch
from torch.nn.functional import grid_sample

from freqrobust.attacks.corruptions import linear
from freqrobust.attacks.corruptions.constants import Constants
from freqrobust.attacks.corruptions.draws import Draws

#: Added before rounding down: halves are rounded up, also where a sum falls short of them by its rounding error.
_HALF = 0.5 + 1e-3


def brightness(images: torch.Tensor, c: Constants, draws: Draws) -> torch.Tensor:
    """The value of HSV raised by ``c`` and clipped: every channel times the new value over the old."""
    value = images.amax(dim=1, keepdim=True)
    raised = (value + c[0]).clamp_(0, 1)
    return torch.where(value > 0, images * (raised / value.clamp_min(1e-12)), raised)


def contrast(images: torch.Tensor, c: Constants, draws: Draws) -> torch.Tensor:
    """Differences from the mean of each channel shrunk to the share ``c``."""
    means = images.mean(dim=(-2, -1), keepdim=True)
    return (images * c[0]).add_(means * (1 - c[0]))


def saturate(images: torch.Tensor, c: Constants, draws: Draws) -> torch.Tensor:
    """The saturation of HSV times ``c[0]`` plus ``c[1]``, clipped; gray turns red where ``c[1]`` is not 0."""
    value, lowest = images.amax(dim=1, keepdim=True), images.amin(dim=1, keepdim=True)
    spread = value - lowest
    saturation = (spread / value.clamp_min(1e-12) * c[0]).add_(c[1]).clamp_(0, 1)
    red = torch.tensor([0.0, 1.0, 1.0], device=images.device).view(1, 3, 1, 1)
    share = torch.where(spread > 0, (value - images) / spread.clamp_min(1e-12), red)
    return value * (1 - saturation * share)


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


def jpeg_compression(images: torch.Tensor, c: Constants, draws: Draws) -> torch.Tensor:
    """JPEG at quality ``c``, by libjpeg on the CPU."""
    from torchvision.io import ImageReadMode, decode_jpeg, encode_jpeg

    mode = ImageReadMode.GRAY if images.shape[1] == 1 else ImageReadMode.RGB
    pixels = (images.clamp(0, 1) * 255).round_().to(torch.uint8).cpu()
    files = encode_jpeg(list(pixels), quality=int(c[0]))
    return torch.stack(decode_jpeg(files, mode=mode)).to(images.device).float().div_(255)


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
