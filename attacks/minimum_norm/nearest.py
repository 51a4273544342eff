"""The nearest adversarial example of every sample, among all images that a search has tried."""

from __future__ import annotations

import torch

from freqrobust.numerics.norms import norms, per_sample
from freqrobust.numerics.threat import Norm


class Nearest:
    """What a search has found so far.

    Attributes:
        origin: the images that are attacked, ``(N, C, H, W)``.
        norm: the norm that is minimised.
        images: the nearest adversarial examples; the image itself where none has been found, ``(N, C, H, W)``.
        distance: their distances, ``(N,)``; infinite where none has been found.
    """

    def __init__(self, origin: torch.Tensor, norm: Norm) -> None:
        self.origin, self.norm = origin, norm
        self.images = origin.clone()
        self.distance = origin.new_full((len(origin),), float("inf"))

    def update(self, which: torch.Tensor, x: torch.Tensor, adversarial: torch.Tensor) -> torch.Tensor:
        """Keep the images ``x (n, C, H, W)`` of the samples ``which (n,)`` that are adversarial and nearer.

        Returns:
            The distances of ``x``, ``(n,)``.
        """
        distance = norms(x - self.origin[which], self.norm)
        nearer = adversarial & (distance < self.distance[which])
        self.distance[which] = torch.where(nearer, distance, self.distance[which])
        self.images[which] = torch.where(per_sample(nearer, x), x, self.images[which])
        return distance
