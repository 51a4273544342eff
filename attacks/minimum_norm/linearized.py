"""Repeated steps onto the linearised boundary: the search of DeepFool."""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn

from freqrobust.attacks.active_set import ActiveSet
from freqrobust.attacks.gradient.regions import free_gradient
from freqrobust.attacks.minimum_norm.nearest import Nearest
from freqrobust.numerics.norms import dual_norms, per_sample, reach_of, steepest
from freqrobust.numerics.threat import Norm
from freqrobust.plugins.context import AttackContext
from freqrobust.plugins.criterion import Misclassification

#: The shortest step, in units of the logits: two equal logits would give none.
LEAST = 1e-6


def search(
    model: nn.Module,
    images: torch.Tensor,
    labels: torch.Tensor,
    context: AttackContext,
    norm: Literal["linf", "l2"],
    steps: int,
    candidates: int,
    overshoot: float,
) -> torch.Tensor:
    """The first adversarial example on the way of every sample; the image itself where ``steps`` steps find none.

    Args:
        model: returns logits.
        images: ``(N, C, H, W)`` in [0, 1].
        labels: ``(N,)``.
        context: decides what is adversarial.
        norm: ``linf`` or ``l2``.
        steps: at most so many steps.
        candidates: other classes whose boundaries are compared, those with the largest logits of the clean image.
        overshoot: the share by which the sum of all steps is lengthened.
    """
    nearest = Nearest(images, norm)
    # a step has a backward pass for each candidate, and few steps are enough: a sample that is carried along costs more
    # than to wait for the device
    active, origin = ActiveSet(len(images), images.device, every=1), images
    total, x = torch.zeros_like(images), images
    others: torch.Tensor | None = None
    for _ in range(steps):
        with torch.enable_grad():
            x = x.detach().requires_grad_(True)
            logits = model(x).float()
            adversarial = context.is_adversarial(logits.detach(), labels)
            nearest.update(active, x.detach(), adversarial)
            if others is None and isinstance(context.criterion, Misclassification):
                others = runners_up(logits.detach(), labels, candidates)
            size, gradient = nearest_boundary(margins(logits, labels, others, context), x, norm)

        keep = active.leave(adversarial)
        if keep is not None:
            total, size, gradient, origin, labels = total[keep], size[keep], gradient[keep], origin[keep], labels[keep]
            others = others[keep] if others is not None else None
            if len(keep) == 0:
                return nearest.images
        total = total + per_sample(size, total) * steepest(gradient, norm)
        x = (origin + (1 + overshoot) * total).clamp(0, 1)
        total = (x - origin) / (1 + overshoot)
    return nearest.finish(model, active, x, labels, context)


def runners_up(logits: torch.Tensor, labels: torch.Tensor, count: int) -> torch.Tensor:
    """The classes with the largest logits besides the label, ``(N, count)``."""
    count = min(count, logits.shape[1] - 1)
    return logits.scatter(1, labels[:, None], float("-inf")).topk(count, dim=1).indices


def margins(
    logits: torch.Tensor, labels: torch.Tensor, others: torch.Tensor | None, context: AttackContext
) -> list[torch.Tensor]:
    """What has to become positive, each ``(N,)``: the differences to some classes, or the margin of the criterion."""
    if others is None:
        return [context.criterion.margin(logits, labels)]
    return list((logits.gather(1, others) - logits.gather(1, labels[:, None])).unbind(dim=1))


def nearest_boundary(differences: list[torch.Tensor], x: torch.Tensor, norm: Norm) -> tuple[torch.Tensor, torch.Tensor]:
    """Which of the linearised boundaries ``difference + gradient . step = 0`` is the nearest to ``x (N, C, H, W)``.

    Pixels that a step would move out of [0, 1] do not count.

    Returns:
        Its distance ``|difference| / ||gradient||_*``, ``(N,)``, for L1 within [0, 1] (:func:`reach_of`), and the
        gradient, shaped like ``x``. Where all gradients are zero both are zero.
    """
    least, best = torch.full((len(x),), float("inf"), device=x.device), torch.zeros_like(x)
    for number, difference in enumerate(differences):
        if not difference.requires_grad:  # the logits do not depend on the images
            continue
        more = number + 1 < len(differences)
        gradient: torch.Tensor | None = torch.autograd.grad(difference.sum(), x, retain_graph=more, allow_unused=True)[
            0
        ]
        if gradient is None:
            continue
        gradient = free_gradient(x.detach(), gradient)
        distance = reach_of(gradient, x.detach(), norm, difference.detach().abs().clamp_min(LEAST))
        nearer = (dual_norms(gradient, norm) > 0) & (distance < least)
        least = torch.where(nearer, distance, least)
        best = torch.where(per_sample(nearer, x), gradient, best)
    return torch.where(least.isfinite(), least, 0.0), best.detach()
