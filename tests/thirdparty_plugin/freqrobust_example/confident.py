"""A criterion: only confident mistakes count."""

from __future__ import annotations

import math

import torch
from pydantic import Field

from freqrobust import Criterion


class ConfidentMistake(Criterion):
    """An adversarial example is misclassified with a softmax probability of at least ``confidence``."""

    confidence: float = Field(0.9, ge=0.5, lt=1, description="smallest probability of the wrong class")

    def is_adversarial(self, scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return self.margin(scores, labels) >= 0

    def margin(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Log odds of the most probable wrong class, minus those of ``confidence``."""
        others = logits.scatter(1, labels[:, None], float("-inf"))
        wrong, classes = others.max(dim=1)
        rest = logits.scatter(1, classes[:, None], float("-inf")).logsumexp(dim=1)
        return wrong - rest - math.log(self.confidence / (1 - self.confidence))
