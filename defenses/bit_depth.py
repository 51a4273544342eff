"""Bit-depth reduction of the input."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from freqrobust.plugins.base import InputDefense

if TYPE_CHECKING:
    import torch


class BitDepth(InputDefense):
    """Round every pixel to ``bits`` bits. The gradient is that of the identity (BPDA).  (Xu et al. 2018, sec. III-A)"""

    differentiable: ClassVar[bool] = False

    bits: int = Field(3, ge=1, le=8, description="number of bits kept")

    def transform(self, images: torch.Tensor) -> torch.Tensor:
        levels = 2**self.bits - 1
        rounded: torch.Tensor = (images * levels).round() / levels
        return rounded
