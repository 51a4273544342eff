"""Steps in a ball around the image whose radius follows the boundary: the search of FMN."""

from __future__ import annotations

import math

import torch
from torch import nn

from freqrobust.attacks.gradient.ascent import loss_and_gradient
from freqrobust.attacks.minimum_norm.nearest import Nearest
from freqrobust.numerics.norms import project, steepest
from freqrobust.numerics.threat import StepNorm
from freqrobust.plugins.context import AttackContext

#: The last step size, as a share of the first; and the last relative change of the radius.
LAST_STEP, LAST_GAMMA = 0.01, 0.001


def cosine(first: float, last: float, done: float) -> float:
    """Cosine annealing from ``first`` to ``last``, after the share ``done`` of all steps."""
    return last + (first - last) * (1 + math.cos(math.pi * done)) / 2


def dual_norms(gradient: torch.Tensor, norm: StepNorm) -> torch.Tensor:
    """How much a linear function of this gradient grows for a perturbation of norm 1, ``(N,)``."""
    order = {"linf": 1.0, "l2": 2.0, "l1": float("inf")}[norm]
    found: torch.Tensor = torch.linalg.vector_norm(gradient.flatten(1), ord=order, dim=1)
    return found


def search(
    model: nn.Module,
    images: torch.Tensor,
    labels: torch.Tensor,
    context: AttackContext,
    norm: StepNorm,
    steps: int,
    step_size: float,
    gamma: float,
) -> torch.Tensor:
    """The nearest adversarial examples that ``steps`` forward passes find; the image itself where there are none."""
    nearest = Nearest(images, norm)
    active = torch.arange(len(images), device=images.device)
    x, eps = images, torch.full_like(nearest.distance, float("inf"))
    for step in range(steps - 1):
        logits, margin, gradient = loss_and_gradient(
            model, x, labels[active], None, lambda z, y, _: context.criterion.margin(z, y)
        )
        adversarial = context.is_adversarial(logits, labels[active])
        distance = nearest.update(active, x, adversarial)
        best = nearest.distance[active]

        change = cosine(gamma, LAST_GAMMA, step / steps)
        linear = distance + margin.abs() / dual_norms(gradient, norm).clamp_min(1e-12)
        outside = torch.where(best.isfinite(), eps * (1 + change), linear)
        eps = torch.where(adversarial, torch.minimum(eps * (1 - change), best), outside)
        x = x + cosine(step_size, LAST_STEP * step_size, step / steps) * steepest(gradient, "l2")
        x = project(x, images[active], norm, eps)

        keep = best > 0  # an image that is adversarial as it is has nothing nearer
        if not keep.all():
            active, x, eps = active[keep], x[keep], eps[keep]
            if len(active) == 0:
                return nearest.images
    with torch.no_grad():
        nearest.update(active, x, context.is_adversarial(model(x), labels[active]))
    return nearest.images
