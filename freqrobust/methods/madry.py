"""Adversarial training with PGD."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from freqrobust.core.numbers import Count, Number
from freqrobust.numerics.threat import StepNorm
from freqrobust.plugins.training import Batch, StepContext, TrainingMethod

if TYPE_CHECKING:
    import torch
    from torch import nn


class Madry(TrainingMethod):
    """Minimise the cross-entropy at the worst point of the eps-ball that PGD finds.  (Madry et al. 2018, eq. 2.1)"""

    eps: Number = Field(8 / 255, ge=0, description="perturbation budget of the training attack")
    norm: StepNorm = Field("linf", description="norm of the budget")
    steps: Count = Field(7, description="gradient steps of the training attack")
    step_size: Number | None = Field(None, gt=0, description="step size of the training attack; default as for pgd")

    def losses(self, model: nn.Module, batch: Batch, context: StepContext) -> tuple[torch.Tensor, torch.Tensor]:
        import torch.nn.functional as F

        from freqrobust.attacks.pgd import PGD

        attack = PGD(eps=self.eps, norm=self.norm, steps=self.steps, step_size=self.step_size)
        with context.attacked(model):
            images = attack.perturb(model, batch.images, batch.labels, context.attack_context())
        logits = model(images)
        return F.cross_entropy(logits, batch.labels, reduction="none"), logits

    def probes(self) -> list[str]:
        from freqrobust.core.numbers import pixel_text

        return [f"pgd:eps={pixel_text(self.eps)},norm={self.norm},steps=10"]
