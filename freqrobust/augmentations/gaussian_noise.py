"""Gaussian noise on training images."""

from __future__ import annotations

from pydantic import Field

from freqrobust.core.numbers import Number
from freqrobust.plugins.training import Augmentation, Batch, StepContext


class GaussianNoise(Augmentation):
    """Add Gaussian noise, new in every epoch.  (Cohen et al. 2019, sec. 3.3; Yin et al. 2019 with random=true)"""

    sigma: Number = Field(0.1, gt=0, description="standard deviation of the noise, with pixels in [0, 1]")
    random: bool = Field(False, description="draw the standard deviation of each image uniformly from [0, sigma]")
    clip: bool = Field(False, description="clip the images to [0, 1]")

    def augment(self, batch: Batch, context: StepContext) -> Batch:
        sigma = self.sigma
        images = batch.images
        noise = context.normal(tuple(images.shape[1:]), "gaussian noise") * sigma
        if self.random:
            noise = noise * context.uniform((1, 1, 1), "gaussian noise sigma")
        images = images + noise
        return batch.replace(images=images.clamp(0, 1) if self.clip else images)
