"""A training method: the focal loss."""

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import nn

from freqrobust import Batch, StepContext, TrainingMethod


class Focal(TrainingMethod):
    """Cross-entropy times (1 - p)^gamma, with the probability p of the label.  (Lin et al. 2017, eq. 4)"""

    gamma: float = Field(2.0, ge=1, description="the larger, the less weight on samples that are classified well")

    def losses(self, model: nn.Module, batch: Batch, context: StepContext) -> tuple[torch.Tensor, torch.Tensor]:
        logits = model(batch.images)
        losses = F.cross_entropy(logits, batch.labels, reduction="none")
        return (1 - (-losses).exp()) ** self.gamma * losses, logits
