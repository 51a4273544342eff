"""AugMix: mixtures of chains of operations."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from freqrobust.core.numbers import Number
from freqrobust.plugins.training import Augmentation, Batch, StepContext

if TYPE_CHECKING:
    import torch


class AugMix(Augmentation):
    """Mix an image with a mixture of chains of random operations.  (Hendrycks et al. 2020, algorithm 1)

    The image becomes ``m x + (1 - m) sum_i w_i chain_i(x)`` with m ~ Beta(alpha, alpha) and w ~ Dirichlet(alpha, ..., alpha).
    The operations are torchvision's, on images of 8 bits; the mixture is not rounded.
    """

    severity: Number = Field(3, ge=0.1, le=10, description="largest strength of an operation")
    width: int = Field(3, ge=1, le=20, description="number of chains")
    depth: int | None = Field(None, ge=1, le=20, description="operations of a chain; default 1, 2 or 3 at random")
    alpha: float = Field(1.0, gt=0, description="parameter of the Beta and Dirichlet distributions")
    all_ops: bool = Field(
        False, description="also change colour, contrast, brightness and sharpness, as ImageNet-C does"
    )
    jsd: bool = Field(
        False,
        description="leave the image as it is and add two mixtures, for a loss with their Jensen-Shannon divergence",
    )

    @property
    def makes_views(self) -> bool:
        return self.jsd

    def augment(self, batch: Batch, context: StepContext) -> Batch:
        if not self.jsd:
            return batch.replace(images=self.mixtures(batch.images, context, "augmix"))
        views = tuple(self.mixtures(batch.images, context, f"augmix {number}") for number in (1, 2))
        return batch.replace(views=(*batch.views, *views))

    def mixtures(self, images: torch.Tensor, context: StepContext, stream: str) -> torch.Tensor:
        """One mixture of each image."""
        import torch

        from freqrobust.augmentations._draws import beta, dirichlet
        from freqrobust.augmentations._eight_bit import pil_images, pixels_of
        from freqrobust.augmentations._operations import ALL, BASE, DEPTH, DRAWS, chained, depths

        names = ALL if self.all_ops else BASE
        longest = self.depth or DEPTH
        operations = context.uniform((self.width, longest, DRAWS), f"{stream} operations").cpu().numpy()
        lengths = depths(context.uniform((self.width,), f"{stream} depth"), self.depth)
        weights = dirichlet(context.uniform((self.width,), f"{stream} weights"), self.alpha).cpu()
        share = beta(context.uniform((1,), f"{stream} share")[:, 0], self.alpha)
        chains = torch.empty(len(images), self.width, *images.shape[1:])
        for position, image in enumerate(pil_images(images, "augmix")):
            for chain in range(self.width):
                changed = chained(image, operations[position, chain, : lengths[position, chain]], names, self.severity)
                chains[position, chain] = torch.from_numpy(pixels_of(changed))
        return mixture(images, chains.to(images.device), weights.to(images.device), share)


def mixture(images: torch.Tensor, chains: torch.Tensor, weights: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
    """``share x + (1 - share) sum_i weights_i chains_i``.

    Args:
        images: ``(N, C, H, W)``.
        chains: ``(N, width, C, H, W)``.
        weights: ``(N, width)``; their sum is 1.
        share: ``(N,)``.
    """
    mixed = (weights[:, :, None, None, None] * chains).sum(dim=1)
    share = share[:, None, None, None]
    return (share * images + (1 - share) * mixed).clamp(0, 1)
