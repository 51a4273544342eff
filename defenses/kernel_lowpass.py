"""Low-pass filtering of trained kernels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from freqrobust.plugins.base import Defense

if TYPE_CHECKING:
    from torch import nn

    from freqrobust.plugins.context import DefenseContext


class KernelLowPass(Defense):
    """Remove the frequencies with distance >= radius from trained kernels, on the kernel's own grid.

    The frequencies of a 3x3 kernel have the distances 0, 1 and 1.41: ``radius=1`` keeps the mean only, ``radius=1.2``
    the mean and the horizontal and vertical frequencies. 1x1 kernels are not changed.
    """

    radius: float = Field(1.2, gt=0, description="cycles per kernel")
    layers: Literal["first", "all"] = Field("first", description="first: the first convolution larger than 1x1")

    def apply(self, model: nn.Module, context: DefenseContext) -> nn.Module:
        from freqrobust.models.kernels import map_kernels
        from freqrobust.numerics.frequency import low_pass

        return map_kernels(model, lambda weight: low_pass(weight, self.radius), self.layers, "kernel-lowpass")
