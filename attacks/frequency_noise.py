"""Noise of given frequencies as attacks of kind "shift": one Fourier direction, a filtered Gaussian, an octave band."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, model_validator

from freqrobust.core.errors import SpecError
from freqrobust.plugins.base import Attack

if TYPE_CHECKING:
    import torch
    from torch import nn

    from freqrobust.plugins.context import AttackContext
    from freqrobust.plugins.dataset import ImageDataset

#: Mean of critical-band images: the mean of ImageNet's channel means.
_GRAY = 0.449


class _FrequencyNoise(Attack):
    kind: ClassVar[Literal["adversarial", "shift"]] = "shift"
    needs_gradient: ClassVar[bool] = False


class FourierNoise(_FrequencyNoise):
    """One wave of the Fourier basis added, with an independent random sign per channel.  (Yin et al. 2019, sec. 3)

    Each channel becomes ``x + r l2 U`` with ``r`` -1 or 1 and ``U`` the real wave of frequency (u, v) and L2 norm 1.
    """

    u: int = Field(description="vertical frequency, cycles per image", examples=[0])
    v: int = Field(description="horizontal frequency, cycles per image", examples=[2])
    l2: float | None = Field(
        None, ge=0, description="L2 norm per channel; default 4 at 32 px, 15.7 at 224 px, a power law elsewhere"
    )
    clip: bool = Field(False, description="clip the result to [0, 1]")

    def check_data(self, data: ImageDataset) -> None:
        height, width = data.shape[-2:]
        if not (2 * abs(self.u) <= height and 2 * abs(self.v) <= width):
            raise SpecError(
                f"fourier-noise: frequency ({self.u}, {self.v}) does not exist at {height} x {width} pixels: "
                f"u goes up to {height // 2}, v up to {width // 2}"
            )

    def perturb(
        self, model: nn.Module, images: torch.Tensor, labels: torch.Tensor, context: AttackContext
    ) -> torch.Tensor:
        from freqrobust.numerics.frequency import fourier_basis, wave_norm

        channels, height, width = images.shape[1:]
        l2 = wave_norm(height, width) if self.l2 is None else self.l2
        signs = 1 - 2 * (context.uniform((channels, 1, 1), "fourier-noise signs") < 0.5).to(images.dtype)
        changed = images + signs * (l2 * fourier_basis(height, width, self.u, self.v).to(images.device))
        return changed.clamp(0, 1) if self.clip else changed


class FilteredNoise(_FrequencyNoise):
    """Gaussian noise of the frequencies with low <= distance < high, scaled to an L2 norm.  (Yin et al. 2019, fig. 5)

    With ``high`` alone it is low-pass noise, with ``low`` alone high-pass, with both band-pass, with neither white.
    """

    l2: float = Field(ge=0, description="L2 norm of the noise over all channels of an image", examples=[4])
    low: float = Field(0, ge=0, description="inner radius, cycles per image")
    high: float | None = Field(None, gt=0, description="outer radius, cycles per image; default: none")
    shape: Literal["circle", "square"] = Field(
        "circle", description="circle: Euclidean distance from DC; square: largest coordinate"
    )
    clip: bool = Field(False, description="clip the result to [0, 1]")

    @model_validator(mode="after")
    def _ordered(self) -> Any:
        if self.high is not None and self.high <= self.low:
            raise ValueError(f"parameter 'high' ({self.high:g}) should be greater than 'low' ({self.low:g})")
        return self

    @property
    def _outer(self) -> float:
        return math.inf if self.high is None else self.high

    def check_data(self, data: ImageDataset) -> None:
        _refuse_empty_band("filtered-noise", data, self.low, self._outer, self.shape)

    def perturb(
        self, model: nn.Module, images: torch.Tensor, labels: torch.Tensor, context: AttackContext
    ) -> torch.Tensor:
        from freqrobust.numerics.frequency import band_pass

        noise = band_pass(context.normal(images.shape[1:], "filtered-noise"), self.low, self._outer, self.shape)
        norm = noise.square().sum(dim=(1, 2, 3), keepdim=True).sqrt().clamp_min(1e-12)
        changed = images + noise * (self.l2 / norm)
        return changed.clamp(0, 1) if self.clip else changed


class CriticalBand(_FrequencyNoise):
    """Noise of one octave on a gray image of low contrast: critical band masking.  (Subramanian et al. 2023)

    The image is made gray, its differences from its mean are multiplied by ``contrast``, and its mean becomes 0.449
    (ImageNet's). Gaussian noise, the same in all channels, is filtered to the frequencies with
    ``center / sqrt(2) <= distance < center * sqrt(2)`` and scaled to the standard deviation ``std`` whatever the band;
    the sum is clipped to [0, 1]. The authors filter with a Laplacian pyramid instead, give every band the power of the
    highest one (so that their ``std``, of the noise before filtering, is larger than the band's), and shift pixels that
    are outside the range; their bands at 224 pixels are centred at 1.75, 3.5, 7, 14, 28, 56 and 112.
    """

    center: float = Field(gt=0, description="middle of the octave, cycles per image", examples=[2])
    std: float = Field(0.16, ge=0, description="standard deviation of the noise in the band, in pixel values")
    contrast: float = Field(0.2, ge=0, le=1, description="factor of the image's contrast")
    grayscale: bool = Field(
        True, description="convert the image to gray; otherwise each channel keeps its values, with noise of its own"
    )

    @property
    def _band(self) -> tuple[float, float]:
        return self.center / math.sqrt(2), self.center * math.sqrt(2)

    def check_data(self, data: ImageDataset) -> None:
        _refuse_empty_band("critical-band", data, *self._band, "circle")

    def perturb(
        self, model: nn.Module, images: torch.Tensor, labels: torch.Tensor, context: AttackContext
    ) -> torch.Tensor:
        from freqrobust.numerics.frequency import band_pass

        if self.grayscale:
            images = _gray(images).expand_as(images)
        dims = (1, 2, 3) if self.grayscale else (2, 3)
        planes = 1 if self.grayscale else images.shape[1]
        noise = band_pass(context.normal((planes, *images.shape[2:]), "critical-band"), *self._band)
        deviation = noise.square().mean(dim=(2, 3), keepdim=True).sqrt().clamp_min(1e-12)
        low_contrast = (images - images.mean(dim=dims, keepdim=True)) * self.contrast + _GRAY
        return (low_contrast + noise * (self.std / deviation)).clamp(0, 1)


def _gray(images: torch.Tensor) -> torch.Tensor:
    """``(N, 1, H, W)``: brightness of colour images (ITU-R BT.601), the mean of any other number of channels."""
    if images.shape[1] != 3:
        return images.mean(dim=1, keepdim=True)
    red, green, blue = (images[:, i : i + 1] for i in range(3))
    return 0.299 * red + 0.587 * green + 0.114 * blue


def _refuse_empty_band(
    name: str, data: ImageDataset, low: float, high: float, shape: Literal["circle", "square"]
) -> None:
    """Refuse a band in which images of that size have no frequency.

    Raises:
        SpecError: there is none.
    """
    from freqrobust.numerics.frequency import band_mask, distances

    height, width = data.shape[-2:]
    if not bool(band_mask(height, width, low, high, shape).any()):
        farthest = float(distances(height, width, shape).max())
        raise SpecError(
            f"{name}: images of {height} x {width} pixels have no frequency from {low:.4g} to below {high:.4g} cycles; "
            f"theirs go up to {farthest:.4g}"
        )
