"""Natural training."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from freqrobust.plugins.training import Batch, StepContext, TrainingMethod

if TYPE_CHECKING:
    import torch
    from torch import nn


class Natural(TrainingMethod):
    """Minimise the cross-entropy on the training images.

    With further views of the images (``augmix:jsd=true``), ``consistency`` times the Jensen-Shannon divergence of the
    predictions of all views is added.  (Hendrycks et al. 2020, sec. 3)
    """

    soft_targets: ClassVar[bool] = True
    takes_views: ClassVar[bool] = True

    label_smoothing: float = Field(0.0, ge=0, lt=1, description="share of the target that is spread over all classes")
    consistency: float = Field(12.0, ge=0, description="weight of the divergence of several views of an image")

    def losses(self, model: nn.Module, batch: Batch, context: StepContext) -> tuple[torch.Tensor, torch.Tensor]:
        import torch
        import torch.nn.functional as F

        from freqrobust.numerics.losses import jensen_shannon

        # one pass, so that batch norm normalises all views by the same statistics
        images = torch.cat([batch.images, *batch.views]) if batch.views else batch.images
        views = model(images).split(len(batch.images)) if batch.views else (model(images),)
        losses = F.cross_entropy(views[0], batch.targets, reduction="none", label_smoothing=self.label_smoothing)
        if batch.views and self.consistency > 0:
            losses = losses + self.consistency * jensen_shannon(views)
        return losses, views[0]
