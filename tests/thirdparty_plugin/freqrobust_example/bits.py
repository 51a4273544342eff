"""Two defenses: fewer levels for every pixel, and logits on another scale."""

from __future__ import annotations

import copy
from typing import ClassVar

import torch
from pydantic import Field
from torch import nn

from freqrobust import Defense, DefenseContext, InputDefense


class BitDepth(InputDefense):
    """Pixels rounded to ``2 ** bits`` levels; gradients pass straight through."""

    differentiable: ClassVar[bool] = False

    bits: int = Field(ge=1, le=8, description="bits that are kept", examples=["4"])

    def transform(self, images: torch.Tensor) -> torch.Tensor:
        levels = 2**self.bits - 1
        return (images * levels).round() / levels


class ScaledLogits(Defense):
    """Logits times a factor: no defense at all, and differentiable."""

    factor: float = Field(0.5, gt=0, description="what logits are multiplied by")

    def apply(self, model: nn.Module, context: DefenseContext) -> nn.Module:
        return Scaled(copy.deepcopy(model), self.factor)


class Scaled(nn.Module):
    """A model and a factor."""

    def __init__(self, model: nn.Module, factor: float) -> None:
        super().__init__()
        self.model, self.factor = model, factor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.factor * self.model(x)
