"""Learned and random policies of image operations."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from freqrobust.plugins.training import Augmentation, Batch, StepContext


class AutoAugment(Augmentation):
    """Two operations from a learned policy, by torchvision, on images of 8 bits.  (Cubuk et al. 2019)"""

    policy: Literal["cifar10", "svhn", "imagenet"] = Field(
        "cifar10", description="data set for which the policy was learned"
    )

    def augment(self, batch: Batch, context: StepContext) -> Batch:
        from torchvision.transforms import AutoAugment as Transform
        from torchvision.transforms import AutoAugmentPolicy

        from freqrobust.augmentations._eight_bit import transformed

        transform = Transform(AutoAugmentPolicy(self.policy))
        draws = context.uniform((2,), "autoaugment")
        return batch.replace(images=transformed(batch.images, draws, transform, "autoaugment"))


class RandAugment(Augmentation):
    """Random operations of one strength, by torchvision, on images of 8 bits.  (Cubuk et al. 2020)"""

    operations: int = Field(2, ge=1, le=100, description="operations on each image")
    magnitude: int = Field(9, ge=0, le=30, description="strength of the operations")

    def augment(self, batch: Batch, context: StepContext) -> Batch:
        from torchvision.transforms import RandAugment as Transform

        from freqrobust.augmentations._eight_bit import transformed

        transform = Transform(num_ops=self.operations, magnitude=self.magnitude)
        draws = context.uniform((2,), "randaugment")
        return batch.replace(images=transformed(batch.images, draws, transform, "randaugment"))
