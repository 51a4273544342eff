"""Natural training."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from freqrobust.plugins.training import Batch, StepContext, TrainingMethod

if TYPE_CHECKING:
    import torch
    from torch import nn


class Natural(TrainingMethod):
    """Minimise the cross-entropy on the training images."""

    soft_targets: ClassVar[bool] = True

    label_smoothing: float = Field(0.0, ge=0, lt=1, description="share of the target that is spread over all classes")

    def losses(self, model: nn.Module, batch: Batch, context: StepContext) -> tuple[torch.Tensor, torch.Tensor]:
        import torch.nn.functional as F

        logits = model(batch.images)
        losses = F.cross_entropy(logits, batch.targets, reduction="none", label_smoothing=self.label_smoothing)
        return losses, logits
