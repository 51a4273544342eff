"""A minimum-norm attack that is simple enough to be followed by hand: bisection along one direction."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import nn

from freqrobust.numerics.norms import steepest
from freqrobust.numerics.threat import Norm
from freqrobust.plugins.base import Attack
from freqrobust.plugins.context import AttackContext


class Bisection(Attack):
    """The nearest misclassified image along the gradient of the cross-entropy.

    A sample without one within ``farthest`` has no adversarial example.
    """

    deterministic_only: ClassVar[bool] = True

    steps: int = Field(12, ge=1, description="halvings of the interval")
    farthest: float = Field(1.0, gt=0, description="largest distance that is tried")

    def perturb(
        self, model: nn.Module, images: torch.Tensor, labels: torch.Tensor, context: AttackContext
    ) -> torch.Tensor:
        with torch.enable_grad():
            x = images.clone().requires_grad_(True)
            loss = F.cross_entropy(model(x), labels, reduction="sum")
            (gradient,) = torch.autograd.grad(loss, x)
        direction = steepest(gradient, "l2" if self.minimizes() == "l2" else "linf")
        low, high = torch.zeros(len(x), device=x.device), torch.full((len(x),), self.farthest, device=x.device)
        best = images.clone()
        with torch.no_grad():
            for step in range(self.steps + 1):
                size = high if step == 0 else (low + high) / 2
                tried = (images + size.view(-1, 1, 1, 1) * direction).clamp(0, 1)
                adversarial = context.is_adversarial(model(tried), labels)
                best[adversarial] = tried[adversarial]
                high = torch.where(adversarial, size, high)
                low = torch.where(adversarial, low, size)
        return best


class Nearest(Bisection):
    """For either norm."""

    norm: Literal["linf", "l2"] = Field("linf", description="norm that is minimised")

    def minimizes(self) -> Norm:
        return self.norm


class NearestL2(Bisection):
    """For L2 alone, without a parameter for the norm."""

    def minimizes(self) -> Norm:
        return "l2"
