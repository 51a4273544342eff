"""Keep only the highest bits of every pixel (feature squeezing, Xu et al. 2018)."""

import torch
from pydantic import Field

from freqrobust import InputDefense


class Quantize(InputDefense):
    """Round every pixel to a few bits."""

    differentiable = False  # rounding has no useful gradient; attacks use that of the identity (BPDA)

    bits: int = Field(4, ge=1, le=8, description="number of bits kept")

    def transform(self, images: torch.Tensor) -> torch.Tensor:
        levels = 2**self.bits - 1
        return torch.round(images * levels) / levels
