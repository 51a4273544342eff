"""Frequency masks and filters: pure functions on image batches.

Distances are in cycles per image, measured from DC: the frequency ``(u, v)`` of an ``H x W`` image is at
``sqrt(u**2 + v**2)`` for ``shape="circle"`` and at ``max(|u|, |v|)`` for ``shape="square"``. The
low-frequency part contains the distances ``< radius``, the high-frequency part ``>= radius``
(Wang et al., CVPR 2020, sec. 3).
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Literal

import torch

Shape = Literal["circle", "square"]
#: Largest pixel value that rounding may leave of a filtered image in [0, 1].
NEGLIGIBLE = 1e-5
#: Side and L2 norm per channel of the two Fourier heat maps of Yin et al. 2019: CIFAR-10 (fig. 4), ImageNet (fig. 3).
_PUBLISHED = ((32, 4.0), (224, 15.7))


def distances(height: int, width: int, shape: Shape = "circle") -> torch.Tensor:
    """Distance of every frequency from DC, float64 ``(H, W)``, in the order of ``torch.fft.fft2`` (DC first)."""
    rows = (
        torch.fft.fftfreq(height, 1 / height, dtype=torch.float64).abs().round()[:, None]
    )  # whole numbers, all but rounding
    columns = torch.fft.fftfreq(width, 1 / width, dtype=torch.float64).abs().round()[None, :]
    return torch.maximum(rows, columns) if shape == "square" else torch.sqrt(rows**2 + columns**2)


def band_mask(height: int, width: int, low: float, high: float, shape: Shape = "circle") -> torch.Tensor:
    """Boolean mask ``(H, W)`` of the frequencies with ``low <= distance < high``, DC first."""
    d = distances(height, width, shape)
    return (d >= low) & (d < high)


@lru_cache(maxsize=64)
def _half_mask(
    height: int, width: int, low: float, high: float, shape: Shape, device: torch.device, dtype: torch.dtype
) -> torch.Tensor:
    with torch.inference_mode(False):  # kept for callers that want gradients
        mask = band_mask(height, width, low, high, shape)[:, : width // 2 + 1]
        return mask.to(device=device, dtype=dtype)


def band_pass(images: torch.Tensor, low: float, high: float, shape: Shape = "circle") -> torch.Tensor:
    """Rebuild ``images (..., H, W)`` from the frequencies with ``low <= distance < high``. Linear; not clipped."""
    height, width = images.shape[-2:]
    mask = _half_mask(height, width, float(low), float(high), shape, images.device, images.dtype)
    rebuilt: torch.Tensor = torch.fft.irfft2(torch.fft.rfft2(images) * mask, s=(height, width))
    return rebuilt


def low_pass(images: torch.Tensor, radius: float, shape: Shape = "circle") -> torch.Tensor:
    """The low-frequency component (LFC) of ``images (..., H, W)``: distances ``< radius``.

    Example:
        >>> image = torch.rand(1, 3, 8, 8)
        >>> bool(torch.equal(low_pass(image, 100), image))
        True
    """
    height, width = images.shape[-2:]
    if distances(height, width, shape).max() < radius:
        return images
    return band_pass(images, 0.0, radius, shape)


def high_pass(images: torch.Tensor, radius: float, shape: Shape = "circle") -> torch.Tensor:
    """The high-frequency component (HFC) of ``images (..., H, W)``: distances ``>= radius``."""
    return images if radius <= 0 else band_pass(images, radius, float("inf"), shape)


def over_maximum(images: torch.Tensor) -> torch.Tensor:
    """``images (N, C, H, W)``, each divided by the largest value over its channels and pixels.

    The images of which no value exceeds ``NEGLIGIBLE`` stay as they are: filters leave no more than rounding there.
    """
    largest = images.amax(dim=(-3, -2, -1), keepdim=True)
    return images / torch.where(largest > NEGLIGIBLE, largest, torch.ones_like(largest))


def directions(height: int, width: int) -> list[tuple[int, int]]:
    """One frequency ``(u, v)`` of every conjugate pair, ``-(H // 2) <= u``, ``-(W // 2) <= v``, in cycles per image.

    A real image cannot tell ``(u, v)`` from ``(-u, -v)``; those that are their own conjugates, DC among them,
    stand for themselves. There are 514 of them at 32 x 32. Ordered by distance from DC.
    """
    kept: dict[tuple[int, int], None] = {}
    for u in range(-(height // 2), (height + 1) // 2):
        for v in range(-(width // 2), (width + 1) // 2):
            if conjugate(u, v, height, width) not in kept:
                kept[u, v] = None
    return sorted(kept, key=lambda uv: (uv[0] ** 2 + uv[1] ** 2, uv))


def conjugate(u: int, v: int, height: int, width: int) -> tuple[int, int]:
    """The frequency whose coefficient is the conjugate of that at ``(u, v)`` in a real image."""

    def mirrored(k: int, n: int) -> int:
        return (-k + n // 2) % n - n // 2

    return mirrored(u, height), mirrored(v, width)


def fourier_basis(height: int, width: int, u: int, v: int, phase: float = 0.0) -> torch.Tensor:
    """The real image ``(H, W)`` of L2 norm 1 whose Fourier transform is zero but at ``(u, v)`` and its conjugate.

    It is ``cos(2 pi (u y / H + v x / W) + phase)``, normalised (Yin et al. 2019, sec. 3).

    Raises:
        ValueError: the frequency is above the Nyquist frequency of that size.
    """
    if not (-height <= 2 * u <= height and -width <= 2 * v <= width):
        raise ValueError(f"frequency ({u}, {v}) does not exist at {height} x {width}")
    rows = torch.arange(height, dtype=torch.float64)[:, None] * (u / height)
    columns = torch.arange(width, dtype=torch.float64)[None, :] * (v / width)
    wave = torch.cos(2 * torch.pi * (rows + columns) + phase)
    unit: torch.Tensor = (wave / wave.norm()).float()
    return unit


def wave_norm(height: int, width: int) -> float:
    """The default L2 norm per channel of a Fourier wave that is added to images of that size.

    Yin et al. 2019 use two norms: 4 at 32 x 32 and 15.7 at 224 x 224. This is the power law through both points,
    ``4 (sqrt(H W) / 32) ** 0.703``. A power law, because norms are compared by their ratio: scaling the side by some
    factor scales the norm by the same factor at every size, and the norm goes to 0 with the side. The straight line
    through both points is 2.1 for a single pixel, more than the whole range of a pixel.

    Example:
        >>> round(wave_norm(32, 32), 6), round(wave_norm(224, 224), 6), round(wave_norm(8, 8), 2)
        (4.0, 15.7, 1.51)
    """
    (small, at_small), (large, at_large) = _PUBLISHED
    power = math.log(at_large / at_small) / math.log(large / small)
    return at_small * math.pow(math.sqrt(height * width) / small, power)
