"""TRADES."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from freqrobust.methods._multi_step import MultiStepMethod
from freqrobust.plugins.training import Batch, StepContext

if TYPE_CHECKING:
    import torch
    from torch import nn

#: Standard deviation of the noise at which the training attack is initialised; at the images the gradient is zero.
NOISE = 0.001


class TRADES(MultiStepMethod):
    """Minimise CE(clean) + beta * KL(clean || adversarial); the examples maximise the KL.  (Zhang et al. 2019, eq. 5)

    The attack is initialised at the images with Gaussian noise of standard deviation 0.001, and runs in eval mode, where the
    clean probabilities are computed once: ``steps + 3`` forward and ``steps + 2`` backward passes for each batch.
    """

    beta: float = Field(6.0, ge=0, description="weight of the KL divergence")

    def losses(self, model: nn.Module, batch: Batch, context: StepContext) -> tuple[torch.Tensor, torch.Tensor]:
        import torch

        from freqrobust.numerics.training_losses import kl_divergence, trades

        noise = context.normal(tuple(batch.images.shape[1:]), "trades start")
        start = self.ball().region(batch.images).project(batch.images + NOISE * noise)
        with context.attacked(model) as attacked:
            with torch.no_grad():
                reference = attacked(batch.images).float()
            images = self.examples(attacked, batch, start, lambda logits, *_: kl_divergence(reference, logits))
        clean, adversarial = model(batch.images), model(images)
        return trades(clean, adversarial, batch.labels, self.beta), adversarial
