"""Boxes of other images."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from freqrobust.core.numbers import Number
from freqrobust.plugins.training import Augmentation, Batch, StepContext

if TYPE_CHECKING:
    import torch


class CutMix(Augmentation):
    """Paste a box of another image of the batch; the labels are mixed by area.  (Yun et al. 2019, sec. 3.1)

    The box has the share ``1 - t`` of the area, with t ~ Beta(alpha, alpha), before the border of the image clips it.
    """

    mixes: ClassVar[bool] = True

    alpha: float = Field(1.0, gt=0, description="parameter of the beta distribution")
    p: Number = Field(0.5, ge=0, le=1, description="probability with which the batch, or the sample, is changed")
    draw: Literal["batch", "sample"] = Field("batch", description="draw the box once per batch, or for each sample")

    def augment(self, batch: Batch, context: StepContext) -> Batch:
        if len(batch.ids) == 0:
            return batch
        from freqrobust.augmentations._draws import beta, of_batch
        from freqrobust.augmentations._mixing import mixed_targets, partners

        drawn = of_batch(context) if self.draw == "batch" else context
        draws = drawn.uniform((4,), "cutmix box")
        inside = boxes(batch.images.shape[2], batch.images.shape[3], beta(draws[:, 0], self.alpha), draws[:, 1:3])
        inside = inside & (draws[:, 3] < self.p)[:, None, None]
        partner = partners(context.ids, context.uniform((1,), "cutmix partner")[:, 0])
        share = 1 - inside.float().mean(dim=(1, 2))
        return batch.replace(
            images=batch.images[partner].where(inside[:, None], batch.images),
            targets=mixed_targets(batch, partner, share, context.classes),
        )


def boxes(height: int, width: int, share: torch.Tensor, centre: torch.Tensor) -> torch.Tensor:
    """Which pixels are inside the boxes, bool ``(N, H, W)``.

    A box has the sides ``H sqrt(1 - share)`` and ``W sqrt(1 - share)``, to whole pixels, and is clipped by the image.

    Args:
        height: H.
        width: W.
        share: share of the area that is outside, ``(N,)``.
        centre: row and column of the centre as shares of height and width, ``(N, 2)``.
    """
    import torch

    def between(size: int, middle: torch.Tensor) -> torch.Tensor:
        half = size * (1 - share).clamp_min(0).sqrt() / 2
        first, last = (middle * size - half).round(), (middle * size + half).round()
        positions = torch.arange(size, device=share.device)
        return (positions >= first[:, None]) & (positions < last[:, None])

    return between(height, centre[:, 0])[:, :, None] & between(width, centre[:, 1])[:, None, :]
