"""Frequency filters of the input. They are linear, so attacks differentiate through them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from freqrobust.plugins.base import InputDefense, RemovedBand

if TYPE_CHECKING:
    import torch


class LowPass(InputDefense):
    """Keep only the frequencies with distance < radius from DC.  (Wang et al., CVPR 2020, sec. 3)"""

    radius: float = Field(ge=0, description="cycles per image", examples=["12"])
    shape: Literal["circle", "square"] = Field("circle", description="Euclidean distance, or largest coordinate")

    def transform(self, images: torch.Tensor) -> torch.Tensor:
        from freqrobust.numerics.frequency import low_pass

        return low_pass(images, self.radius, self.shape)

    def removed_band(self) -> RemovedBand | None:
        return RemovedBand(self.radius, float("inf"), self.shape)


class HighPass(InputDefense):
    """Keep only the frequencies with distance >= radius from DC, and optionally the mean."""

    radius: float = Field(ge=0, description="cycles per image", examples=["4"])
    shape: Literal["circle", "square"] = Field("circle", description="Euclidean distance, or largest coordinate")
    keep_mean: bool = Field(False, description="add the mean of each channel (DC) back")

    def transform(self, images: torch.Tensor) -> torch.Tensor:
        from freqrobust.numerics.frequency import high_pass

        result = high_pass(images, self.radius, self.shape)
        return result + images.mean(dim=(-2, -1), keepdim=True) if self.keep_mean and self.radius > 0 else result

    def removed_band(self) -> RemovedBand | None:
        low = 1.0 if self.keep_mean else 0.0  # the distance of every frequency but DC is at least 1
        return RemovedBand(low, self.radius, self.shape) if self.radius > low else None
