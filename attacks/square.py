"""The Square Attack: random search over square-shaped changes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field, model_validator

from freqrobust.core.numbers import Count, Number
from freqrobust.numerics.threat import Norm, check_eps
from freqrobust.plugins.base import Attack

if TYPE_CHECKING:
    import torch
    from torch import nn

    from freqrobust.plugins.context import AttackContext

#: Queries whose random numbers are drawn together.
BLOCK = 100


class Square(Attack):
    """Random search over square-shaped changes, without gradients.  (Andriushchenko et al. 2020, algorithms 1 to 3)

    In every query one random square of the perturbation changes, and the change is kept where it increases the margin
    of the criterion. Squares cover the share ``p_init`` of the pixels at first, which is halved after 10, 50, 200, 500,
    1000, 2000, 4000, 6000 and 8000 queries, whatever ``queries`` is; as in AutoAttack. L1 is the adaptation of Croce
    and Hein (2021).
    """

    needs_gradient: ClassVar[bool] = False
    any_criterion: ClassVar[bool] = True

    eps: Number = Field(8 / 255, ge=0, description="budget, in the norm's unit; 8/255 is accepted")
    norm: Norm = Field("linf", description="norm of the budget")
    queries: Count = Field(5000, description="largest number of forward passes per sample")
    p_init: float = Field(0.8, gt=0, le=1, description="share of the pixels that the first squares cover")

    @model_validator(mode="after")
    def _eps_in_pixels(self) -> Any:
        check_eps(self.norm, self.eps)
        return self

    def perturb(
        self, model: nn.Module, images: torch.Tensor, labels: torch.Tensor, context: AttackContext
    ) -> torch.Tensor:
        import torch

        from freqrobust.attacks._squares import candidates, share
        from freqrobust.attacks.active_set import ActiveSet
        from freqrobust.attacks.gradient.ascent import better

        result = images.clone()
        if self.eps == 0 or len(images) == 0:
            return result
        space = candidates(images, self.norm, self.eps)
        active = ActiveSet(len(images), images.device)
        best = margin = numbers = None
        for query in range(self.queries):
            if query % BLOCK == 0:
                numbers = context.uniform((BLOCK, space.numbers), f"square {query // BLOCK}")
            assert numbers is not None
            if best is None:
                tried = space.start(context)
            else:
                tried = space.propose(best, numbers[:, query % BLOCK], share(query, self.p_init))
            with torch.no_grad():
                logits = model(tried).float()
            best, margin = better(best, margin, tried, context.criterion.margin(logits, labels))
            if context.goal == "maximize":
                continue
            success = context.is_adversarial(logits, labels)
            active.record(result, success, tried)
            keep = active.leave(success)
            if keep is not None:
                best, margin, numbers = best[keep], margin[keep], numbers[keep]
                if len(keep) == 0:
                    return result
                space, labels, context = space.keep(keep), labels[keep], context.subset(keep)
        assert best is not None
        active.finish(result, best)
        return result
