"""An augmentation: a grey square at a random place."""

import torch
from pydantic import Field

from freqrobust import Augmentation, Batch, StepContext


class Erasing(Augmentation):
    """Replace a square of every image by grey.  (DeVries and Taylor 2017)"""

    size: int = Field(4, ge=1, description="side of the square in pixels")

    def augment(self, batch: Batch, context: StepContext) -> Batch:
        height, width = batch.images.shape[2:]
        draws = context.uniform((2,), "erasing")[:, :, None]
        rows = torch.arange(height, device=draws.device) - (draws[:, 0] * max(1, height - self.size + 1)).floor()
        columns = torch.arange(width, device=draws.device) - (draws[:, 1] * max(1, width - self.size + 1)).floor()
        inside = [(offsets >= 0) & (offsets < self.size) for offsets in (rows, columns)]
        square = inside[0][:, None, :, None] & inside[1][:, None, None, :]
        return batch.replace(images=batch.images.masked_fill(square, 0.5))
