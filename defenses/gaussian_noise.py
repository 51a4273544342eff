"""Gaussian noise on the input at prediction time."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from freqrobust.core.numbers import Number
from freqrobust.plugins.base import InputDefense

if TYPE_CHECKING:
    import torch


class GaussianNoise(InputDefense):
    """Add Gaussian noise to every image at each prediction. Attacks average over the noise (EOT)."""

    stochastic: ClassVar[bool] = True

    sigma: Number = Field(8 / 255, ge=0, description="standard deviation of the noise; 8/255 is accepted")

    def transform(self, images: torch.Tensor) -> torch.Tensor:
        from freqrobust.numerics.noise import scoped_normal

        return images + self.sigma * scoped_normal(images)

    def smoothing_sigma(self) -> float | None:
        return self.sigma or None
