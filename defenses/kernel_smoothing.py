"""Smoothing trained convolution kernels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from freqrobust.plugins.base import Defense

if TYPE_CHECKING:
    import torch
    from torch import nn

    from freqrobust.plugins.context import DefenseContext


class KernelSmoothing(Defense):
    """w'[i,j] = w[i,j] + rho * sum of w over the 8 spatial neighbours of (i,j).  (Wang et al., CVPR 2020, sec. 6)

    Smoothing also multiplies the gain of a layer by up to 1 + 8 rho and shifts the statistics of the following batch
    norm; ``rescale`` and ``recalibrate_bn`` correct for these two effects. 1x1 kernels are not changed.
    """

    rho: float = Field(1.0, ge=0, description="weight of each of the 8 neighbours")
    layers: Literal["first", "all"] = Field(
        "first", description="first: the first convolution larger than 1x1; all: every one"
    )
    boundary: Literal["zero", "symmetric"] = Field(
        "zero", description="values beyond the kernel's edge: zero, or those of the edge"
    )
    rescale: bool = Field(False, description="multiply the smoothed kernels by 1 / (1 + 8 rho)")
    recalibrate_bn: bool = Field(False, description="recompute the batch norm statistics on training data")

    @property
    def needs_train_data(self) -> bool:
        """Batch norm statistics are recomputed on training data."""
        return self.recalibrate_bn

    def apply(self, model: nn.Module, context: DefenseContext) -> nn.Module:
        from freqrobust.models.kernels import map_kernels, recalibrate_batch_norm

        gain = 1 + 8 * self.rho if self.rescale else 1.0
        smoothed = map_kernels(model, lambda w: smooth(w, self.rho, self.boundary) / gain, self.layers, "smooth")
        if self.recalibrate_bn:
            data = context.require_train_data("smooth: recalibrate_bn=true")
            context.progress.begin("recalibrating batch norm", len(data))
            recalibrate_batch_norm(
                smoothed, lambda size: data.image_batches(size, context.device), context.progress.advance
            )
            context.progress.end(f"batch norm recalibrated on {len(data)} training images")
        return smoothed


def smooth(weight: torch.Tensor, rho: float, boundary: Literal["zero", "symmetric"]) -> torch.Tensor:
    """Add ``rho`` times the sum of the 8 spatial neighbours; ``weight (out, in, kh, kw)``, smoothed over kh and kw."""
    import torch
    import torch.nn.functional as F

    stencil = torch.full((1, 1, 3, 3), rho, dtype=weight.dtype, device=weight.device)
    stencil[0, 0, 1, 1] = 1.0
    planes = weight.reshape(-1, 1, *weight.shape[-2:])
    planes = F.pad(planes, (1, 1, 1, 1), mode="replicate" if boundary == "symmetric" else "constant")
    return F.conv2d(planes, stencil).view_as(weight)
