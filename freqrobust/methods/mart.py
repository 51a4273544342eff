"""Misclassification-aware adversarial training."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from freqrobust.methods._multi_step import MultiStepMethod
from freqrobust.plugins.training import Batch, StepContext

if TYPE_CHECKING:
    import torch
    from torch import nn


class MART(MultiStepMethod):
    """Minimise BCE(adversarial) + weight * KL(clean || adversarial) * (1 - p_y(clean)).  (Wang et al. 2020, sec. 3.2)

    BCE is the cross-entropy plus the margin term ``-log(1 - max_{k != y} p_k)``. The examples are those of ``madry``; there are
    ``steps + 2`` forward and backward passes for each batch.  ("Improving Adversarial Robustness Requires Revisiting
    Misclassified Examples")
    """

    weight: float = Field(5.0, ge=0, description="weight of the KL divergence, lambda in the paper")

    def losses(self, model: nn.Module, batch: Batch, context: StepContext) -> tuple[torch.Tensor, torch.Tensor]:
        from freqrobust.numerics.losses import cross_entropy
        from freqrobust.numerics.training_losses import mart

        with context.attacked(model) as attacked:
            images = self.examples(attacked, batch, self.random_start(batch, context), cross_entropy)
        clean, adversarial = model(batch.images), model(images)
        return mart(clean, adversarial, batch.labels, self.weight), adversarial
