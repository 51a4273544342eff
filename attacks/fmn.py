"""Fast minimum-norm attack."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from freqrobust.core.numbers import Count, Number
from freqrobust.numerics.threat import Norm, StepNorm
from freqrobust.plugins.base import Attack

if TYPE_CHECKING:
    import torch
    from torch import nn

    from freqrobust.plugins.context import AttackContext


class FMN(Attack):
    """The nearest adversarial example, by steps in a ball whose radius follows the boundary.  (Pintor et al. 2021, alg. 1)

    With the margin ``m(x)``, which is positive where an image is adversarial, a step is
    ``x <- project(x + a_k * g / ||g||_2)``, ``g = grad m(x)``, onto the ball of radius eps and [0, 1]. Until an
    adversarial image has been found, ``eps = ||x - x_0|| + |m(x)| / ||g||_*`` (the distance to the linearised boundary;
    dual norm); then ``eps <- min(eps * (1 - c_k), best)`` where x is adversarial, else ``eps * (1 + c_k)``. Step size
    and c decrease by cosine annealing, to 1 % of ``step_size`` and to 0.001.
    """

    any_criterion: ClassVar[bool] = True
    deterministic_only: ClassVar[bool] = True

    norm: StepNorm = Field("linf", description="norm that is minimised")
    steps: Count = Field(100, description="forward passes per sample")
    step_size: Number = Field(1.0, gt=0, description="first step size, in L2; the last is 1 % of it")
    gamma: Number = Field(0.05, gt=0, lt=1, description="first relative change of the radius; the last is 0.001")

    def minimizes(self) -> Norm | None:
        return self.norm

    def perturb(
        self, model: nn.Module, images: torch.Tensor, labels: torch.Tensor, context: AttackContext
    ) -> torch.Tensor:
        from freqrobust.attacks.minimum_norm.adaptive import search

        return search(model, images, labels, context, self.norm, self.steps, self.step_size, self.gamma)
