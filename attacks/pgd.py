"""Projected gradient descent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field, model_validator

from freqrobust.attacks.gradient.iterative import IterativeGradientAttack

if TYPE_CHECKING:
    from freqrobust.attacks.gradient.regions import Ball

#: Share of the pixels that an L1 step changes.
SPARSITY = 0.02


class PGD(IterativeGradientAttack):
    """Projected gradient ascent on a loss inside an Linf, L2 or L1 ball.  (Madry et al. 2018, eq. 1)

    ``step_size`` defaults to ``2.5 * eps / steps``, and to twice that for L1. With a target the attack minimises the loss of one
    other class; which examples are adversarial is decided by the criterion, by default by misclassification as any
    class. In an Linf sweep of eps the first restart is initialised at the vertex of the ball that has the signs of the
    perturbation found at the smaller eps.

    An L1 step changes the share ``sparsity`` of the pixels that have the largest gradients (Tramer and Boneh 2019,
    "SLIDE"), and is projected exactly onto the intersection of the ball and [0, 1] (Croce and Hein 2021, "Mind the
    box").
    """

    sparsity: float | None = Field(
        None, gt=0, le=1, description=f"norm=l1: share of the pixels that a step changes; default {SPARSITY}"
    )

    @model_validator(mode="after")
    def _only_for_l1(self) -> Any:
        if self.sparsity is not None and self.norm != "l1":
            raise ValueError(f"parameter 'sparsity' is for norm=l1, but norm is {self.norm}")
        return self

    def resolved_params(self) -> dict[str, Any]:
        """The parameters whose defaults depend on others."""
        sparsity = self.sparsity if self.sparsity is not None or self.norm != "l1" else SPARSITY
        return {**super().resolved_params(), "sparsity": sparsity}

    def space(self) -> Ball:
        """The eps-ball, within [0, 1]."""
        from freqrobust.attacks.gradient.regions import Ball

        resolved = self.resolved_params()
        return Ball(self.norm, self.eps, resolved["step_size"], resolved["sparsity"] or 0.0, self.eight_bit)
