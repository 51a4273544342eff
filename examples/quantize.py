"""Keep only the highest bits of every pixel (feature squeezing, Xu et al. 2018)."""

import torch
from pydantic import Field

from freqrobust import InputDefense


class Quantize(InputDefense):
    """Round every pixel to a few bits."""

    differentiable = False  # rounding has no useful gradient; attacks go straight through it

    bits: int = Field(4, ge=1, le=8, description="bits that are kept")

    def transform(self, images: torch.Tensor) -> torch.Tensor:
        levels = 2**self.bits - 1
        return torch.round(images * levels) / levels
