"""Defocus, glass, motion, zoom and Gaussian blur."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch

from freqrobust.attacks.corruptions import linear
from freqrobust.attacks.corruptions.constants import Constants
from freqrobust.attacks.corruptions.draws import Draws

#: Taps and singular values below this share of the largest are left out: far below one 8-bit level.
_NEGLIGIBLE = 1e-6


def gaussian_blur(images: torch.Tensor, c: Constants, draws: Draws) -> torch.Tensor:
    """Blur with sigma ``c``."""
    return linear.gaussian(images, c[0])


def defocus_blur(images: torch.Tensor, c: Constants, draws: Draws) -> torch.Tensor:
    """A disk of radius ``c[0]``, its edge blurred with sigma ``c[1]``."""
    height, width = images.shape[-2:]
    return linear.sum_between(images, _disk_operators(height, width, c[0], c[1], images.device))


def disk(radius: float, sigma: float) -> np.ndarray:
    """The normalised disk on a grid of whole pixels, blurred with sigma over 3 (radius up to 8) or 5 taps."""
    reach, taps = (8, 3) if radius <= 8 else (int(radius), 5)
    axis = np.arange(-reach, reach + 1)
    inside = (axis[:, None] ** 2 + axis[None, :] ** 2 <= radius**2).astype(float)
    blur = linear.filter_matrix(len(axis), linear.gaussian_weights(sigma, taps // 2), "reflect")
    blurred: np.ndarray = blur @ (inside / inside.sum()) @ blur.T
    return blurred


@lru_cache(maxsize=32)
def _disk_operators(
    height: int, width: int, radius: float, sigma: float, device: torch.device
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The disk as a short sum of separable filters: its singular value decomposition."""
    columns, values, rows = np.linalg.svd(disk(radius, sigma))
    like = torch.empty(0, device=device)
    return [
        (
            linear.tensor(linear.filter_matrix(height, columns[:, k] * values[k], "reflect"), like),
            linear.tensor(linear.filter_matrix(width, rows[k], "reflect"), like),
        )
        for k in range(int((values > _NEGLIGIBLE * values[0]).sum()))
    ]


def zoom_blur(images: torch.Tensor, c: Constants, draws: Draws) -> torch.Tensor:
    """The mean of the image and of its zooms by 1, 1 + step, ... below ``c[0]``."""
    height, width = images.shape[-2:]
    return linear.sum_between(images, _zoom_operators(height, width, c[0], c[1], images.device))


def zoom_factors(end: float, step: float) -> np.ndarray:
    """``1, 1 + step, ...`` as the published scripts write them; rounding decides whether the end is among them."""
    return np.arange(1, end, step)


@lru_cache(maxsize=32)
def _zoom_operators(
    height: int, width: int, end: float, step: float, device: torch.device
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """One pair for each distinct zoom: many factors crop and enlarge by the same whole pixels."""
    factors = [1.0, *zoom_factors(end, step).tolist()]  # the image itself counts once more
    counts: dict[tuple[int, ...], tuple[int, float]] = {}
    for factor in factors:
        key = tuple(n for size in (height, width) for n in (math.ceil(size / factor), _zoomed(size, factor)))
        count, _ = counts.get(key, (0, factor))
        counts[key] = (count + 1, factor)
    like = torch.empty(0, device=device)
    return [
        (
            linear.tensor(linear.zoom_matrix(height, factor) * (count / len(factors)), like),
            linear.tensor(linear.zoom_matrix(width, factor), like),
        )
        for count, factor in counts.values()
    ]


def _zoomed(size: int, factor: float) -> int:
    return round(math.ceil(size / factor) * factor)


def motion_blur(images: torch.Tensor, c: Constants, draws: Draws) -> torch.Tensor:
    """One-sided Gaussian smear of ``2 * radius + 1`` whole-pixel steps at an angle in [-45, 45) degrees."""
    return smear(images, c[0], c[1], draws.uniform((), "angle", -45, 45))


def smear(images: torch.Tensor, radius: float, sigma: float, degrees: torch.Tensor) -> torch.Tensor:
    """Motion blur of ``images (N, C, H, W)`` at each image's own angle ``(N,)``; edges are extended.

    Step ``i`` is ``ceil(i sin - 1/2)`` down and ``ceil(i cos - 1/2)`` to the right, the rounding of ImageMagick's
    ``MotionBlurImage``, which made the published files.
    """
    n, channels, height, width = images.shape
    weights = np.exp(-0.5 * (np.arange(2 * int(radius) + 1) / sigma) ** 2)
    weights /= weights.sum()
    radians = torch.deg2rad(degrees.cpu().double())  # not every device has float64
    steps = torch.arange(len(weights), dtype=torch.float64)[:, None]
    downs, rights = (torch.ceil(steps * part - 0.5).long().to(images.device) for part in (radians.sin(), radians.cos()))
    y, x = (torch.arange(size, device=images.device) for size in (height, width))
    flat = images.reshape(n, channels, -1)
    total = torch.zeros_like(flat)
    for i, weight in enumerate(weights.tolist()):
        if weight < _NEGLIGIBLE:
            break
        rows, columns = (y + downs[i, :, None]).clamp_(0, height - 1), (x + rights[i, :, None]).clamp_(0, width - 1)
        index = (rows[:, :, None] * width + columns[:, None, :]).view(n, 1, -1).expand(-1, channels, -1)
        total.add_(flat.gather(2, index), alpha=weight)
    return total.view(images.shape)


def glass_blur(images: torch.Tensor, c: Constants, draws: Draws) -> torch.Tensor:
    """Blur, move pixels about, blur again; 8 bits in between, as the published scripts have it."""
    sigma, reach, passes = c[0], int(c[1]), int(c[2])
    n, channels, height, width = images.shape
    blurred = linear.gaussian(images, sigma).clamp(0, 1).mul(255).add_(1e-3).floor_()
    source = shuffled(n, height, width, reach, passes, draws, images.device)
    moved = blurred.view(n, channels, -1).gather(2, source[:, None].expand(-1, channels, -1))
    return linear.gaussian(moved.view(images.shape).div_(255), sigma)


def shuffled(
    n: int, height: int, width: int, reach: int, passes: int, draws: Draws, device: torch.device
) -> torch.Tensor:
    """Which pixel each pixel shows after the moves, int64 ``(n, height * width)``.

    The published scripts go from the last pixel to the first, and mean to swap each with one at most ``reach``
    away; as they assign through views, the pixel becomes a copy of the other, which stays. Moves that touch
    neither's pixels commute, so all pixels of a slanted front move at once.
    """
    source = torch.arange(height * width, device=device).repeat(n, 1)
    fronts = _fronts(height, width, reach, device)
    for number in range(passes):
        step = draws.integers(2 * reach, (2, height * width), f"steps {number}").sub_(reach)
        away = step[:, 0].mul_(width).add_(step[:, 1])
        for front in fronts:
            source[:, front] = source.gather(1, away[:, front].add_(front))
    return source


@lru_cache(maxsize=16)
def _fronts(height: int, width: int, reach: int, device: torch.device) -> list[torch.Tensor]:
    """Positions by the earliest time at which all moves they depend on are done."""
    rows, columns = np.arange(height - reach, reach, -1), np.arange(width - reach, reach, -1)
    if not len(rows) or not len(columns):
        return []
    time = np.arange(len(rows))[:, None] * (reach + 1) + np.arange(len(columns))[None, :]
    position = rows[:, None] * width + columns[None, :]
    return [torch.as_tensor(position[time == t], device=device) for t in range(time.max() + 1) if (time == t).any()]
