"""Smooth convolution kernels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from freqrobust.core.errors import SpecError
from freqrobust.core.numbers import Number
from freqrobust.plugins.training import Regularizer

if TYPE_CHECKING:
    import torch
    from torch import nn


class KernelSmoothness(Regularizer):
    """Penalise differences of adjacent weights of the convolution kernels.  (Wang et al. 2020, reported as tried, without a formula)

    The penalty is ``weight * sum((w[..., i, j + 1] - w[..., i, j])^2 + (w[..., i + 1, j] - w[..., i, j])^2)`` over all
    adjacent weights of all kernels.
    """

    weight: Number = Field(0.01, ge=0, description="weight of the penalty")
    layers: Literal["all", "first"] = Field(
        "all", description="all convolutions with kernels larger than 1x1, or the first one"
    )

    def penalty(self, model: nn.Module) -> torch.Tensor:
        import torch
        from torch import nn

        found = [m.weight for m in model.modules() if isinstance(m, nn.Conv2d) and max(m.kernel_size) > 1]
        kernels = list({id(kernel): kernel for kernel in found}.values())  # several layers may share one
        if not kernels:
            raise SpecError("kernel-smoothness: the network has no convolution with a kernel larger than 1x1")
        if self.weight == 0:
            return torch.zeros((), device=kernels[0].device)
        chosen = kernels[:1] if self.layers == "first" else kernels
        return self.weight * torch.stack([roughness(kernel) for kernel in chosen]).sum()


def roughness(kernels: torch.Tensor) -> torch.Tensor:
    """The sum of squared differences of horizontally and vertically adjacent weights of ``(out, in, kh, kw)``."""
    return kernels.diff(dim=2).square().sum() + kernels.diff(dim=3).square().sum()
