"""Random noise within a budget: a control that every attack should outperform."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, model_validator

from freqrobust.core.numbers import Count, Number
from freqrobust.numerics.threat import Norm, check_eps
from freqrobust.plugins.base import Attack

if TYPE_CHECKING:
    import torch
    from torch import nn

    from freqrobust.plugins.context import AttackContext


class Noise(Attack):
    """The worst of several draws of random noise with a given budget: a control for attacks.

    Pixels are drawn independently: from [-1, 1] (``uniform``), standard normal (``gaussian``), or -1 and 1 (``sign``).
    For L2 and L1 the draw is then scaled to the norm ``eps``. For Linf it is multiplied by ``eps`` and clipped to
    [-eps, eps], which affects about a third of the pixels of a Gaussian. Finally the image is clipped to [0, 1], which
    only reduces the perturbation.
    """

    needs_gradient: ClassVar[bool] = False
    averages_draws: ClassVar[bool] = True
    any_criterion: ClassVar[bool] = True
    nested: ClassVar[bool] = False

    eps: Number = Field(8 / 255, ge=0, description="budget, in the norm's unit; 8/255 is accepted")
    norm: Norm = Field("linf", description="norm of the budget")
    distribution: Literal["uniform", "gaussian", "sign"] = Field("uniform", description="how pixels are drawn")
    draws: Count = Field(10, description="draws per sample; one adversarial draw is enough")

    @model_validator(mode="after")
    def _eps_in_pixels(self) -> Any:
        check_eps(self.norm, self.eps)
        return self

    def perturb(
        self, model: nn.Module, images: torch.Tensor, labels: torch.Tensor, context: AttackContext
    ) -> torch.Tensor:
        if context.goal == "maximize":
            return self._highest_loss(model, images, labels, context)
        return self._first_success(model, images, labels, context)

    def draw(self, images: torch.Tensor, context: AttackContext, number: int) -> torch.Tensor:
        """The images with the noise of one draw, within the budget and [0, 1]."""
        from freqrobust.numerics.norms import norms, per_sample, project

        stream, shape = f"noise {self.distribution} {number}", images.shape[1:]
        if self.distribution == "gaussian":
            drawn = context.normal(shape, stream)
        else:
            drawn = 2 * context.uniform(shape, stream) - 1
        if self.distribution == "sign":
            drawn = (drawn >= 0).to(drawn.dtype) * 2 - 1
        if self.norm != "linf":
            drawn = drawn / per_sample(norms(drawn, self.norm).clamp_min(1e-12), drawn)
        return project(images + self.eps * drawn, images, self.norm, self.eps)

    def _first_success(
        self, model: nn.Module, images: torch.Tensor, labels: torch.Tensor, context: AttackContext
    ) -> torch.Tensor:
        import torch

        from freqrobust.attacks.active_set import ActiveSet

        result = images.clone()
        active = ActiveSet(len(images), images.device)
        for number in range(self.draws - 1):
            changed = self.draw(images[active.rows], context.subset(active.rows), number)
            with torch.no_grad():
                adversarial = context.is_adversarial(model(changed), labels[active.rows])
            active.record(result, adversarial, changed)
            if active.leave(adversarial) is not None and len(active.rows) == 0:
                return result
        # the harness predicts the last one
        active.finish(result, self.draw(images[active.rows], context.subset(active.rows), self.draws - 1))
        return result

    def _highest_loss(
        self, model: nn.Module, images: torch.Tensor, labels: torch.Tensor, context: AttackContext
    ) -> torch.Tensor:
        from freqrobust.attacks.gradient.ascent import better, expected_loss, loss_for

        best = best_loss = None
        for number in range(self.draws):
            changed = self.draw(images, context, number)
            values = expected_loss(model, changed, labels, None, loss_for(context.criterion), context.eot)
            best, best_loss = better(best, best_loss, changed, values)
        assert best is not None
        return best
