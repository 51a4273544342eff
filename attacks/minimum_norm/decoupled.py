"""Steps of a fixed length, rescaled to a norm that grows or shrinks by a fixed share: the search of DDN."""

from __future__ import annotations

import math

import torch
from torch import nn

from freqrobust.attacks.active_set import ActiveSet
from freqrobust.attacks.gradient.ascent import loss_and_gradient, loss_for
from freqrobust.attacks.minimum_norm.nearest import Nearest
from freqrobust.numerics.norms import length, per_sample, steepest
from freqrobust.plugins.context import AttackContext

#: The last step size, as a share of the first.
LAST_STEP = 0.01


def search(
    model: nn.Module,
    images: torch.Tensor,
    labels: torch.Tensor,
    context: AttackContext,
    steps: int,
    initial: float,
    gamma: float,
) -> torch.Tensor:
    """The nearest adversarial examples in L2 that ``steps`` forward passes find; the image itself where there are none.

    Args:
        model: returns logits.
        images: ``(N, C, H, W)`` in [0, 1].
        labels: ``(N,)``.
        context: decides what is adversarial.
        steps: forward passes; the last has no gradient.
        initial: L2 norm of the perturbation after the first step.
        gamma: relative change of the norm in a step.
    """
    nearest, loss = Nearest(images, "l2"), loss_for(context.criterion)
    active, origin = ActiveSet(len(images), images.device), images
    point, x = torch.zeros_like(images), images
    radius = torch.full_like(nearest.distance, initial)
    for step in range(steps - 1):
        logits, _, gradient = loss_and_gradient(model, x, labels, None, loss)
        adversarial = context.is_adversarial(logits, labels)
        nearest.update(active, x, adversarial)
        if step > 0:
            radius = radius * torch.where(adversarial, 1 - gamma, 1 + gamma)
        size = LAST_STEP + (1 - LAST_STEP) * (1 + math.cos(math.pi * step / steps)) / 2  # cosine annealing
        point = point + size * steepest(gradient, "l2")
        point = point * per_sample((radius / length(point).clamp_min(1e-12)).to(point.dtype), point)
        x = (origin + point).clamp(0, 1)
        point = x - origin

        keep = active.leave(~(nearest.distance[active.rows] > 0))
        if keep is not None:
            point, x, radius, origin, labels = point[keep], x[keep], radius[keep], origin[keep], labels[keep]
            if len(keep) == 0:
                return nearest.images
    return nearest.finish(model, active, x, labels, context)
