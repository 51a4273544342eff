"""The random numbers of one corruption at one severity, seeded per sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from freqrobust.numerics import noise


@dataclass(frozen=True)
class Draws:
    """Random numbers that do not depend on the batch: seeded by seed, sample id, corruption, severity and use."""

    ids: torch.Tensor
    seed: int
    name: str

    def uniform(self, shape: Sequence[int], use: str, low: float = 0.0, high: float = 1.0) -> torch.Tensor:
        """Uniform in ``[low, high)``, ``(N, *shape)``."""
        values = noise.uniform(self.ids, shape, seed=self.seed, stream=f"{self.name} {use}")
        return values if (low, high) == (0.0, 1.0) else values.mul_(high - low).add_(low)

    def normal(self, shape: Sequence[int], use: str) -> torch.Tensor:
        """Standard normal, ``(N, *shape)``."""
        return noise.normal(self.ids, shape, seed=self.seed, stream=f"{self.name} {use}")

    def integers(self, high: int, shape: Sequence[int], use: str) -> torch.Tensor:
        """Integers ``0 ... high - 1``, int64 ``(N, *shape)``."""
        return (self.uniform(shape, use) * high).long().clamp_(max=high - 1)
