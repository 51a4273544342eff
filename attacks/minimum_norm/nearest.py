"""The nearest adversarial example of every sample, among all images that a search has tried."""

from __future__ import annotations

import torch
from torch import nn

from freqrobust.attacks.active_set import ActiveSet
from freqrobust.numerics.norms import norms, per_sample
from freqrobust.numerics.threat import Norm
from freqrobust.plugins.context import AttackContext


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

    def update(self, active: ActiveSet, x: torch.Tensor, adversarial: torch.Tensor) -> torch.Tensor:
        """Keep the images ``x (n, C, H, W)`` of the active samples that are adversarial and nearer.

        Returns:
            The distances of ``x``, ``(n,)``.
        """
        which = active.rows
        distance = norms(x - self.origin[which], self.norm)
        nearer = active.running(adversarial) & (distance < self.distance[which])
        self.distance[which] = torch.where(nearer, distance, self.distance[which])
        self.images[which] = torch.where(per_sample(nearer, x), x, self.images[which])
        return distance

    def finish(
        self, model: nn.Module, active: ActiveSet, x: torch.Tensor, labels: torch.Tensor, context: AttackContext
    ) -> torch.Tensor:
        """Predict the images ``x`` of the last step, without a gradient, and return the nearest of all examples."""
        with torch.no_grad():
            self.update(active, x, context.is_adversarial(model(x), labels))
        return self.images
