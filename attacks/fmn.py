"""Fast minimum-norm attack."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from freqrobust.core.numbers import Count, Number
from freqrobust.numerics.threat import Norm, StepNorm
from freqrobust.plugins.base import Attack

if TYPE_CHECKING:
    import torch
    from torch import nn

    from freqrobust.plugins.context import AttackContext

#: The default of ``step_size``.
STEP_SIZES = {"linf": 1.0, "l2": 1.0, "l1": 0.5}
#: Of Linf the vertex of the ball changes with every step; for L2 and L1 momentum did not help.
MOMENTUM = {"linf": 0.75, "l2": 0.0, "l1": 0.0}


class FMN(Attack):
    """The nearest adversarial example, by steps in a ball whose radius follows the boundary.  (Pintor et al. 2021, alg. 1)

    With the margin ``m(x)`` of the criterion, which is positive where an image is adversarial, and ``g = grad m(x)``, a
    step is ``x <- project(x + a * g / ||g||_2)`` onto the ball of radius eps and [0, 1]. Where x is adversarial,
    ``eps <- min(eps * (1 - c), best)``; else ``eps <- eps * (1 + c)`` or, until an adversarial image has been found,
    the distance to the linearised boundary ``||x - x_0|| + |m(x)| / ||g||_*`` if that is more (dual norm).

    It differs from the paper in four ways. There ``a`` and ``c`` decrease by cosine annealing over all steps; here ``c``
    is reduced by 30 % whenever a sample crosses the boundary, and ``a``, a share of eps, with it: a sample is finished
    when c is 0.001. The first gradient is that of the class whose linearised boundary is the nearest, where the criterion
    is misclassification. Linf steps follow the sign of the gradient with momentum 0.75. For L1 the projection onto the
    intersection of the ball and [0, 1] is exact, the first step leads to the point of that set where the linearised
    margin is largest, and every further one changes the pixels with the largest gradients by the same amount, 1.75 times
    fewer than differ from the image; a sample is finished when c is 0.002.
    """

    any_criterion: ClassVar[bool] = True
    deterministic_only: ClassVar[bool] = True

    norm: StepNorm = Field("linf", description="norm that is minimised")
    steps: Count = Field(100, description="forward passes per sample, at most")
    step_size: Number | None = Field(
        None,
        gt=0,
        description="first step size as a share of the radius; default 1, or 0.5 for L1",
    )
    gamma: Number = Field(0.05, gt=0, lt=1, description="first relative change of the radius in a step")

    candidates: Count = Field(
        9, description="other classes whose boundaries are compared at the clean image; each costs a backward pass"
    )

    def minimizes(self) -> Norm | None:
        return self.norm

    def resolved_params(self) -> dict[str, Any]:
        """The parameters whose defaults depend on others."""
        return {"step_size": self.step_size if self.step_size is not None else STEP_SIZES[self.norm]}

    def perturb(
        self, model: nn.Module, images: torch.Tensor, labels: torch.Tensor, context: AttackContext
    ) -> torch.Tensor:
        from freqrobust.attacks.minimum_norm.adaptive import Adaptive

        size = self.resolved_params()["step_size"]
        run = Adaptive(self.norm, self.steps, size, MOMENTUM[self.norm], self.gamma, self.candidates)
        return run.search(model, images, labels, context)
