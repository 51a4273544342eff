"""A training method: random vertices of the ball."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import nn

from freqrobust import Number
from freqrobust.plugins.training import Batch, StepContext, TrainingMethod


class Vertices(TrainingMethod):
    """Minimise the cross-entropy at a random vertex of the Linf ball, new in every epoch."""

    eps: Number = Field(8 / 255, ge=0, description="radius of the ball")

    def losses(self, model: nn.Module, batch: Batch, context: StepContext) -> tuple[torch.Tensor, torch.Tensor]:
        signs = (context.uniform(tuple(batch.images.shape[1:]), "vertices") - 0.5).sign()
        logits = model((batch.images + self.eps * signs).clamp(0, 1))
        return F.cross_entropy(logits, batch.labels, reduction="none"), logits
