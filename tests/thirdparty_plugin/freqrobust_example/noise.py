"""Two attacks: the best of a few random draws, and a change of brightness."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import nn

from freqrobust import Attack, AttackContext, Number, Pixel
from freqrobust.numerics.norms import project
from freqrobust.numerics.threat import Norm


class UniformNoise(Attack):
    """The worst of a few points drawn at random from the ball; asks only for predictions."""

    needs_gradient: ClassVar[bool] = False
    any_criterion: ClassVar[bool] = True

    eps: Number = Field(8 / 255, ge=0, description="budget, in the norm's unit")
    norm: Norm = Field("linf", description="norm of the budget")
    draws: int = Field(3, ge=1, description="points that are tried")
    reach: Pixel = Field(1, description="largest change of a pixel, inside the ball")

    def perturb(
        self, model: nn.Module, images: torch.Tensor, labels: torch.Tensor, context: AttackContext
    ) -> torch.Tensor:
        margin = context.criterion.margin
        best, highest = images, margin(model(images), labels)
        for draw in range(self.draws):
            noise = 2 * context.uniform(images.shape[1:], f"draw {draw}") - 1
            reach = min(self.reach, self.eps if self.norm == "linf" else self.eps / images[0].numel() ** 0.5)
            tried = project(images + reach * noise, images, self.norm, self.eps)
            values = margin(model(tried), labels)
            higher = values > highest
            best = torch.where(higher[:, None, None, None], tried, best)
            highest = torch.where(higher, values, highest)
        return best


class Brightness(Attack):
    """Every pixel brighter by the same amount."""

    kind: ClassVar[Literal["adversarial", "shift"]] = "shift"
    needs_gradient: ClassVar[bool] = False

    severity: Number = Field(ge=-1, le=1, description="what is added to every pixel", examples=["0.2"])

    def perturb(
        self, model: nn.Module, images: torch.Tensor, labels: torch.Tensor, context: AttackContext
    ) -> torch.Tensor:
        return (images + self.severity).clamp(0, 1)
