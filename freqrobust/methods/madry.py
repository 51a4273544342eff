"""Adversarial training with PGD."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from freqrobust.core.numbers import Count
from freqrobust.methods._multi_step import MultiStepMethod
from freqrobust.plugins.training import Batch, StepContext

if TYPE_CHECKING:
    import torch
    from torch import nn


class Madry(MultiStepMethod):
    """Minimise the cross-entropy at a point of the eps-ball that PGD ascends to.  (Madry et al. 2018, eq. 2.1)

    ``steps + 1`` forward and backward passes for each batch. Examples are generated in eval mode, from a random
    initialisation, and the example of the last step is used.
    """

    steps: Count = Field(7, description="gradient steps of the training attack")

    def losses(self, model: nn.Module, batch: Batch, context: StepContext) -> tuple[torch.Tensor, torch.Tensor]:
        import torch.nn.functional as F

        from freqrobust.numerics.losses import cross_entropy

        with context.attacked(model) as attacked:
            images = self.examples(attacked, batch, self.random_start(batch, context), cross_entropy)
        logits = model(images)
        return F.cross_entropy(logits, batch.labels, reduction="none"), logits
