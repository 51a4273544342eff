"""DeepFool."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from freqrobust.core.numbers import Count, Number
from freqrobust.numerics.threat import Norm
from freqrobust.plugins.base import Attack

if TYPE_CHECKING:
    import torch
    from torch import nn

    from freqrobust.plugins.context import AttackContext


class DeepFool(Attack):
    """Repeated steps onto the nearest linearised boundary.  (Moosavi-Dezfooli et al. 2016, alg. 2)

    For every other class k, ``f_k = z_k - z_y`` and ``w_k = grad f_k``; the step is the one to the class with the
    smallest ``|f_k| / ||w_k||_*`` (dual norm): ``|f_k| / ||w_k||_2^2 * w_k`` in L2, ``|f_k| / ||w_k||_1 * sign(w_k)`` in Linf.
    The image is ``x_0 + (1 + overshoot) * sum of all steps``, clipped to [0, 1]; it stops at the first adversarial image.
    Unlike in the paper, pixels that a step would move out of [0, 1] are left out of ``w_k``, and clipping shortens the sum.
    Under a criterion other than misclassification its margin is linearised instead.
    """

    any_criterion: ClassVar[bool] = True
    deterministic_only: ClassVar[bool] = True

    norm: Literal["linf", "l2"] = Field("l2", description="norm of the steps")
    steps: Count = Field(50, description="steps per sample, at most")
    candidates: Count = Field(
        9, description="other classes that are compared, those with the largest logits; each costs a backward pass"
    )
    overshoot: Number = Field(0.02, ge=0, description="share by which the sum of all steps is lengthened")

    def minimizes(self) -> Norm | None:
        return self.norm

    def perturb(
        self, model: nn.Module, images: torch.Tensor, labels: torch.Tensor, context: AttackContext
    ) -> torch.Tensor:
        from freqrobust.attacks.minimum_norm.linearized import search

        return search(model, images, labels, context, self.norm, self.steps, self.candidates, self.overshoot)
