"""Frequency filters as attacks of kind "shift": the test sets LFC, HFC and band-pass."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, model_validator

from freqrobust.plugins.base import Attack

if TYPE_CHECKING:
    import torch
    from torch import nn

    from freqrobust.plugins.context import AttackContext


class _FrequencyFilter(Attack):
    kind: ClassVar[Literal["adversarial", "shift"]] = "shift"
    needs_gradient: ClassVar[bool] = False

    shape: Literal["circle", "square"] = Field(
        "circle", description="circle: Euclidean distance from DC; square: largest coordinate"
    )
    clip: bool = Field(False, description="clip the result to [0, 1]")
    rescale: Literal["none", "max"] = Field(
        "none", description="max: divide each image by its largest value, as in the code of Wang et al."
    )

    def _finish(self, images: torch.Tensor) -> torch.Tensor:
        from freqrobust.numerics.frequency import over_maximum

        images = over_maximum(images) if self.rescale == "max" else images
        return images.clamp(0, 1) if self.clip else images


class LowFrequencyComponent(_FrequencyFilter):
    """The image rebuilt from the frequencies with distance < radius from DC.  (Wang et al., CVPR 2020, sec. 3)"""

    radius: float = Field(ge=0, description="cycles per image", examples=["12"])

    def perturb(
        self, model: nn.Module, images: torch.Tensor, labels: torch.Tensor, context: AttackContext
    ) -> torch.Tensor:
        from freqrobust.numerics.frequency import low_pass

        return self._finish(low_pass(images, self.radius, self.shape))


class HighFrequencyComponent(_FrequencyFilter):
    """The image rebuilt from the frequencies with distance >= radius from DC.  (Wang et al., CVPR 2020, sec. 3)"""

    radius: float = Field(ge=0, description="cycles per image", examples=["12"])
    keep_mean: bool = Field(False, description="add the mean of each channel (DC) back")

    def perturb(
        self, model: nn.Module, images: torch.Tensor, labels: torch.Tensor, context: AttackContext
    ) -> torch.Tensor:
        from freqrobust.numerics.frequency import high_pass

        result = high_pass(images, self.radius, self.shape)
        if self.keep_mean and self.radius > 0:
            result = result + images.mean(dim=(-2, -1), keepdim=True)
        return self._finish(result)


class BandPass(_FrequencyFilter):
    """The image rebuilt from the frequencies with low <= distance < high."""

    low: float = Field(ge=0, description="inner radius, cycles per image", examples=["4"])
    high: float = Field(gt=0, description="outer radius, cycles per image", examples=["12"])

    @model_validator(mode="after")
    def _ordered(self) -> Any:
        if self.high <= self.low:
            raise ValueError(f"parameter 'high' ({self.high:g}) should be greater than 'low' ({self.low:g})")
        return self

    def perturb(
        self, model: nn.Module, images: torch.Tensor, labels: torch.Tensor, context: AttackContext
    ) -> torch.Tensor:
        from freqrobust.numerics.frequency import band_pass

        return self._finish(band_pass(images, self.low, self.high, self.shape))
