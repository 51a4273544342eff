"""Mean spectra of images, differences and gradients, accumulated over batches; radial profiles and shares of energy.

The DFT is unitary (``norm="ortho"``), so energies add up to the energy of the pixels (Parseval). Maps have the
zero frequency at ``(H // 2, W // 2)``; distances are in cycles per image, as in :mod:`freqrobust.numerics.frequency`.
"""

from __future__ import annotations

from typing import Literal

import torch

from freqrobust.numerics.frequency import distances
from freqrobust.results.analysis import SpectrumRecord


def centred_distances(height: int, width: int) -> torch.Tensor:
    """Distance of every frequency from DC, float64 ``(H, W)``, DC at ``(H // 2, W // 2)``."""
    centred: torch.Tensor = torch.fft.fftshift(distances(height, width))
    return centred


def radial_profile(values: torch.Tensor) -> torch.Tensor:
    """Mean of a map ``(H, W)`` over the frequencies at rounded distance 0, 1, 2, ...; 0 where there is no frequency."""
    ring = centred_distances(*values.shape).round().long().flatten()
    size = int(ring.max()) + 1
    totals = torch.zeros(size, dtype=torch.float64).index_add_(0, ring, values.double().flatten())
    return totals / torch.bincount(ring, minlength=size).clamp_min(1)


def share_above(energy: torch.Tensor, radius: float) -> float:
    """Share of a map of energies ``(H, W)`` at distances ``>= radius``; 0 where there is no energy."""
    total = float(energy.sum())
    return float(energy[centred_distances(*energy.shape) >= radius].sum()) / total if total > 0 else 0.0


def band_means(values: torch.Tensor, radius: float) -> tuple[float, float]:
    """Mean of a map ``(H, W)`` over the frequencies below the radius, without DC, and over those at or above it."""
    distance = centred_distances(*values.shape)
    low, high = values[(distance > 0) & (distance < radius)], values[distance >= radius]
    return (float(low.mean()) if low.numel() else 0.0), (float(high.mean()) if high.numel() else 0.0)


def rounded(values: torch.Tensor) -> list[float]:
    """Every value ``(N,)`` rounded to six digits, to keep files small."""
    return [float(f"{value:.6g}") for value in values.tolist()]


def rows(values: torch.Tensor) -> list[list[float]]:
    """Every value ``(H, W)`` rounded to six digits."""
    return [rounded(row) for row in values]


def band_numbers(spectrum: SpectrumRecord) -> list[str]:
    """The energy of a spectrum above and below its radius, for a row of a table."""
    return [f"{100 * spectrum.above:.1f}", f"{spectrum.low:.3g}", f"{spectrum.high:.3g}"]


def band_columns(radius: float) -> list[str]:
    """The headings of :func:`band_numbers`."""
    return [f"energy from radius {radius:g} (%)", "energy per frequency below", "energy per frequency above"]


class Spectrum:
    """Amplitude and energy at every frequency, accumulated over batches; memory does not depend on the number of samples."""

    def __init__(self, height: int, width: int) -> None:
        self.amplitudes = torch.zeros(height, width, dtype=torch.float64)
        self.energies = torch.zeros(height, width, dtype=torch.float64)
        self.maps = 0  # samples times channels
        self.samples = 0

    def add(self, images: torch.Tensor) -> None:
        """Add the spectra of ``(N, C, H, W)``."""
        wide = images if images.device.type == "mps" else images.double()
        amplitude = torch.fft.fftshift(torch.fft.fft2(wide, norm="ortho").abs(), dim=(-2, -1))
        self.amplitudes += amplitude.sum(dim=(0, 1)).cpu().double()
        self.energies += amplitude.square().sum(dim=(0, 1)).cpu().double()
        self.maps += images.shape[0] * images.shape[1]
        self.samples += images.shape[0]

    @property
    def amplitude(self) -> torch.Tensor:
        """Mean amplitude, float64 ``(H, W)``."""
        return self.amplitudes / max(self.maps, 1)

    @property
    def energy(self) -> torch.Tensor:
        """Mean energy, float64 ``(H, W)``."""
        return self.energies / max(self.maps, 1)

    def record(
        self, source: str, kind: Literal["images", "shift", "adversarial", "gradient"], radius: float
    ) -> SpectrumRecord:
        """The spectrum as part of a result."""
        low, high = band_means(self.energy, radius)
        return SpectrumRecord(
            source=source,
            kind=kind,
            n=self.samples,
            amplitude=rows(self.amplitude),
            profile=rounded(radial_profile(self.amplitude)),
            radius=radius,
            above=share_above(self.energies, radius),
            low=low,
            high=high,
        )
