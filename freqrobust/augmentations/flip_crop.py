"""Random flips and crops."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from freqrobust.plugins.training import Augmentation, Batch, StepContext

if TYPE_CHECKING:
    import torch


class FlipCrop(Augmentation):
    """Random horizontal flip, and random crop after padding with zeros.  (He et al. 2016, sec. 4.2)"""

    padding: int | None = Field(None, ge=0, description="pixels on each side; default an eighth of the side")
    flip: bool = Field(True, description="flip half of the images")

    def augment(self, batch: Batch, context: StepContext) -> Batch:
        draws = context.uniform((3,), "augment")
        return batch.replace(images=flip_and_crop(batch.images, draws, self.padding, self.flip))


def flip_and_crop(images: torch.Tensor, draws: torch.Tensor, padding: int | None, flip: bool) -> torch.Tensor:
    """Images ``(N, C, H, W)`` shifted by up to ``padding`` pixels, and flipped where the third draw is at least 0.5.

    Args:
        images: the images.
        draws: uniform noise in [0, 1), ``(N, 3)``: row, column, flip.
        padding: zeros on each side; by default an eighth of the shorter side.
        flip: whether images are flipped.
    """
    import torch
    import torch.nn.functional as F

    n, _, height, width = images.shape
    pad = max(1, min(height, width) // 8) if padding is None else padding
    padded = F.pad(images, (pad, pad, pad, pad))
    top = (draws[:, 0] * (2 * pad + 1)).long()
    left = (draws[:, 1] * (2 * pad + 1)).long()
    columns = torch.arange(width, device=images.device).expand(n, width)
    if flip:
        columns = torch.where(draws[:, 2:] < 0.5, columns, width - 1 - columns)
    columns = columns + left[:, None]
    rows = torch.arange(height, device=images.device) + top[:, None]
    batch = torch.arange(n, device=images.device)
    return padded[batch[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).contiguous()
