"""Linear operators along one axis as matrices, and images between two of them.

Blurs, zooms and box filters with their boundary rules are all sums of ``L @ image @ R^T``. One product per image
keeps the result of an image independent of its batch, to the last bit on a CPU.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Literal

import numpy as np
import torch

#: What lies beyond the edge: ``aaa|abc|ccc``, ``cba|abc|cba`` or ``dcb|abc|bca`` (the edge itself once).
Boundary = Literal["nearest", "symmetric", "reflect"]


def beyond(index: np.ndarray, size: int, boundary: Boundary) -> np.ndarray:
    """The pixel in ``0 ... size - 1`` that stands for each index, however far outside."""
    if boundary == "nearest" or size == 1:
        return index.clip(0, size - 1)
    period = 2 * size if boundary == "symmetric" else 2 * size - 2
    folded = index % period
    return np.where(folded < size, folded, period - folded - (boundary == "symmetric"))


def filter_matrix(size: int, weights: np.ndarray, boundary: Boundary) -> np.ndarray:
    """Correlation with ``weights (2 * radius + 1,)`` as a matrix ``(size, size)``."""
    radius = len(weights) // 2
    matrix = np.zeros((size, size))
    rows = np.arange(size)
    for offset, weight in zip(range(-radius, radius + 1), weights, strict=True):
        np.add.at(matrix, (rows, beyond(rows + offset, size, boundary)), weight)
    return matrix


def gaussian_weights(sigma: float, radius: int) -> np.ndarray:
    """Normalised samples of a Gaussian at ``-radius ... radius``."""
    offsets = np.arange(-radius, radius + 1)
    weights: np.ndarray = np.exp(-0.5 * (offsets / sigma) ** 2) if sigma > 0 else (offsets == 0).astype(float)
    weights /= weights.sum()
    return weights


def gaussian_matrix(size: int, sigma: float, boundary: Boundary, truncate: float = 4.0) -> np.ndarray:
    """Gaussian blur cut off at ``truncate`` sigmas, the convention of SciPy and scikit-image."""
    return filter_matrix(size, gaussian_weights(sigma, int(truncate * sigma + 0.5)), boundary)


def zoom_matrix(size: int, factor: float) -> np.ndarray:
    """Crop at the centre, zoom back linearly, trim at the centre: ``(size, size)``.

    The crop has ``ceil(size / factor)`` pixels; its first and last pixels stay the first and last of the zoomed
    ones, the convention of ``scipy.ndimage.zoom``.
    """
    crop = math.ceil(size / factor)
    zoomed = round(crop * factor)
    top, trim = (size - crop) // 2, (zoomed - size) // 2
    matrix = np.zeros((size, size))
    rows = np.arange(size)
    at = (rows + trim) * ((crop - 1) / max(zoomed - 1, 1))
    low = np.floor(at).astype(int).clip(0, crop - 1)
    high = (low + 1).clip(max=crop - 1)
    np.add.at(matrix, (rows, top + low), 1 - (at - low))
    np.add.at(matrix, (rows, top + high), at - low)
    return matrix


def box_matrix(size: int, smaller: int) -> np.ndarray:
    """Downscaling by averages over the pixels whose centres each box covers, ``(smaller, size)``."""
    scale = size / smaller
    centres = np.arange(size) + 0.5
    matrix = np.zeros((smaller, size))
    for i in range(smaller):
        inside = (centres > i * scale) & (centres <= (i + 1) * scale)
        matrix[i, inside] = 1 / inside.sum()
    return matrix


def between(images: torch.Tensor, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """``left @ image @ right^T`` for ``images (..., H, W)``, ``left (A, H)``, ``right (B, W)``: ``(..., A, B)``."""
    flat = images.reshape(-1, *images.shape[-2:])
    half = torch.bmm(left.expand(len(flat), -1, -1), flat)
    found = torch.bmm(half, right.t().contiguous().expand(len(flat), -1, -1))
    return found.view(*images.shape[:-2], *found.shape[-2:])


def sum_between(images: torch.Tensor, pairs: list[tuple[torch.Tensor, torch.Tensor]]) -> torch.Tensor:
    """The sum of :func:`between` over pairs of square operators."""
    flat = images.reshape(-1, *images.shape[-2:])
    total = torch.zeros_like(flat)
    for left, right in pairs:
        half = torch.bmm(left.expand(len(flat), -1, -1), flat)
        total.baddbmm_(half, right.t().contiguous().expand(len(flat), -1, -1))
    return total.view(images.shape)


def tensor(matrix: np.ndarray, like: torch.Tensor) -> torch.Tensor:
    """As float32 on the device of ``like``."""
    return torch.as_tensor(matrix, dtype=torch.float32, device=like.device)


@lru_cache(maxsize=64)
def _gaussian(size: int, sigma: float, boundary: Boundary, truncate: float, device: torch.device) -> torch.Tensor:
    return tensor(gaussian_matrix(size, sigma, boundary, truncate), torch.empty(0, device=device))


def gaussian(images: torch.Tensor, sigma: float, boundary: Boundary = "nearest", truncate: float = 4.0) -> torch.Tensor:
    """Gaussian blur of ``images (..., H, W)``."""
    height, width = images.shape[-2:]
    if int(truncate * sigma + 0.5) == 0:
        return images
    left, right = (_gaussian(n, float(sigma), boundary, truncate, images.device) for n in (height, width))
    return between(images, left, right)
