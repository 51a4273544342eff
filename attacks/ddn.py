"""Decoupled direction and norm attack."""

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


class DDN(Attack):
    """The nearest adversarial example in L2, direction and norm apart.  (Rony et al. 2019, alg. 1)

    A step is ``delta <- eps_k * d / ||d||_2`` with ``d = delta + a_k * g / ||g||_2``, where g is the gradient of the
    cross-entropy; then the image is clipped to [0, 1]. ``eps_{k+1} = eps_k * (1 - gamma)`` where the image is
    adversarial, else ``eps_k * (1 + gamma)``. The step size ``a_k`` decreases from 1 to 0.01 by cosine annealing. Images
    are not rounded to 8 bits. Cross-entropy follows several classes at once where their probabilities are similar: on
    linear models of six classes with nearly equal logits the distance is up to 38 % above the optimum, with 200 as with 1000
    steps. Under a criterion other than misclassification its loss replaces the cross-entropy.
    """

    any_criterion: ClassVar[bool] = True
    deterministic_only: ClassVar[bool] = True

    norm: Literal["l2"] = Field("l2", description="norm that is minimised")
    steps: Count = Field(100, description="forward passes per sample")
    initial: Number = Field(1.0, gt=0, description="L2 norm of the perturbation after the first step")
    gamma: Number = Field(0.05, gt=0, lt=1, description="relative change of the norm in a step")

    def minimizes(self) -> Norm | None:
        return self.norm

    def perturb(
        self, model: nn.Module, images: torch.Tensor, labels: torch.Tensor, context: AttackContext
    ) -> torch.Tensor:
        from freqrobust.attacks.minimum_norm.decoupled import search

        return search(model, images, labels, context, self.steps, self.initial, self.gamma)
