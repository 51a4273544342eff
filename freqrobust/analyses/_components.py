"""Predictions on the low and on the high frequencies of every sample, for several radii."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from freqrobust.harness.analysis_context import AnalysisContext
from freqrobust.numerics.frequency import Shape, high_pass, low_pass


@dataclass(frozen=True)
class Components:
    """Predicted classes, int64; -1 where the logits were not finite.

    Attributes:
        radii: cycles per image.
        labels: ``(N,)``.
        clean: of the images, ``(N,)``.
        low: of the frequencies below each radius (LFC), ``(R, N)``.
        high: of the frequencies at or above it (HFC), ``(R, N)``.
    """

    radii: tuple[float, ...]
    labels: np.ndarray
    clean: np.ndarray
    low: np.ndarray
    high: np.ndarray


def predict_components(context: AnalysisContext, radii: Sequence[float], shape: Shape = "circle") -> Components:
    """Predictions on LFC and HFC as the attacks ``lfc`` and ``hfc`` make them; pixels are not clipped."""
    n = len(context.data)
    clean = np.zeros(n, dtype=np.int64)
    low, high = np.zeros((2, len(radii), n), dtype=np.int64)

    def work(images: torch.Tensor, labels: torch.Tensor, ids: torch.Tensor, chunk: torch.Tensor) -> None:
        positions = chunk.numpy()
        clean[positions] = context.classes(images, ids).cpu().numpy()
        for row, radius in enumerate(radii):
            for predictions, component in ((low, low_pass), (high, high_pass)):
                changed = component(images, radius, shape)
                predictions[row, positions] = context.classes(changed, ids).cpu().numpy()

    context.each_batch(f"LFC and HFC at {len(radii)} radii", work)
    return Components(tuple(radii), context.data.labels.numpy(), clean, low, high)


def chance_joint(first: np.ndarray, second: np.ndarray, labels: np.ndarray) -> dict[tuple[bool, bool], float]:
    """Shares of (first correct, second correct) if the pairs of predictions were independent of the labels.

    The predictions keep their joint distribution: ``sum over k of p(label k) p(first = k or not, second = k or not)``.
    """
    shares = {(a, b): 0.0 for a in (True, False) for b in (True, False)}
    for label in np.unique(labels):
        weight = float((labels == label).mean())
        for a, b in shares:
            shares[a, b] += weight * float((((first == label) == a) & ((second == label) == b)).mean())
    return shares


def scaled(radii: Sequence[float], shape: tuple[int, ...]) -> list[float]:
    """Radii for 32-pixel images, scaled to the shorter side of ``(C, H, W)``, without duplicates."""
    from freqrobust.plugins.suites import scaled_radius

    return list(dict.fromkeys(round(scaled_radius(radius, shape), 6) for radius in radii))
