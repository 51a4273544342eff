"""Mixtures of two images."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from freqrobust.plugins.training import Augmentation, Batch, StepContext


class Mixup(Augmentation):
    """Mix two images of the batch and their labels, t x_i + (1 - t) x_j with t ~ Beta(alpha, alpha).  (Zhang et al. 2018, sec. 2)

    Every image gets a partner by a random permutation of the batch, or of the share of the batch that the process has.
    """

    mixes: ClassVar[bool] = True

    alpha: float = Field(1.0, gt=0, description="parameter of the beta distribution")
    draw: Literal["batch", "sample"] = Field("batch", description="draw t once per batch, or for each sample")

    def augment(self, batch: Batch, context: StepContext) -> Batch:
        if len(batch.ids) == 0:
            return batch
        from freqrobust.augmentations._draws import beta, of_batch
        from freqrobust.augmentations._mixing import mixed_targets, partners

        drawn = of_batch(context) if self.draw == "batch" else context
        share = beta(drawn.uniform((1,), "mixup share")[:, 0], self.alpha)
        partner = partners(context.ids, context.uniform((1,), "mixup partner")[:, 0])
        weight = share[:, None, None, None]
        return batch.replace(
            images=weight * batch.images + (1 - weight) * batch.images[partner],
            targets=mixed_targets(batch, partner, share, context.classes),
        )
