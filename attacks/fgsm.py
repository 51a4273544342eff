"""The fast gradient sign method."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field, model_validator

from freqrobust.core.numbers import Number
from freqrobust.numerics.threat import StepNorm, check_eps
from freqrobust.plugins.base import Attack

if TYPE_CHECKING:
    import torch
    from torch import nn

    from freqrobust.plugins.context import AttackContext


class FGSM(Attack):
    """x' = clip(x + eps * sign(grad CE(x))): one full step, no random start.  (Goodfellow et al. 2015, eq. 2)

    With ``norm=l2`` the step is along the normalised gradient (fast gradient method). With ``norm=l1`` the pixels with the
    largest gradients are set to 0 or 1 until the budget is spent, which maximises a linear loss in the intersection of
    the L1 ball and [0, 1]. Under a criterion other than misclassification its loss replaces the cross-entropy.
    """

    averages_draws: ClassVar[bool] = True
    any_criterion: ClassVar[bool] = True

    eps: Number = Field(8 / 255, ge=0, description="budget, in the norm's unit; 8/255 is accepted")
    norm: StepNorm = Field("linf", description="norm of the budget")
    eight_bit: bool = Field(
        False, description="examples whose pixels are multiples of 1/255, rounded within the budget"
    )

    @model_validator(mode="after")
    def _eps_in_pixels(self) -> Any:
        check_eps(self.norm, self.eps)
        return self

    def perturb(
        self, model: nn.Module, images: torch.Tensor, labels: torch.Tensor, context: AttackContext
    ) -> torch.Tensor:
        from freqrobust.attacks.gradient.ascent import loss_and_gradient, loss_for
        from freqrobust.numerics.eight_bit import nearest_within
        from freqrobust.numerics.norms import farthest_l1, project, steepest

        _, _, gradient = loss_and_gradient(model, images, labels, None, loss_for(context.criterion), context.eot)
        if self.norm == "l1":
            found = farthest_l1(gradient, images, self.eps)
        else:
            found = project(images + self.eps * steepest(gradient, self.norm), images, self.norm, self.eps)
        return nearest_within(found, images, self.norm, self.eps) if self.eight_bit else found
