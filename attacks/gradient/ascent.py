"""Projected gradient ascent: the one loop behind all attacks that follow a gradient.

A step is ``x <- project(x + step_size * steepest(grad loss(x)))``, projected onto the intersection of the
eps-ball and [0, 1] (Goodfellow et al. 2015, eq. 2; Madry et al. 2018, eq. 1). What a step and the projection
are is up to the space that is climbed in (``freqrobust.attacks.gradient.regions``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from freqrobust.attacks.gradient.regions import Space
from freqrobust.numerics.losses import Loss, loss_function, margin
from freqrobust.numerics.norms import per_sample

LossFunction = Callable[[torch.Tensor, torch.Tensor, "torch.Tensor | None"], torch.Tensor]


@dataclass(frozen=True)
class Ascent:
    """What a climb maximises, where it may go, and for how long."""

    space: Space
    steps: int
    loss: Loss
    eot: int = 1

    @property
    def loss_function(self) -> LossFunction:
        return loss_function(self.loss)  # type: ignore[return-value]


def loss_and_gradient(
    model: nn.Module,
    x: torch.Tensor,
    labels: torch.Tensor,
    targets: torch.Tensor | None,
    loss: LossFunction,
    eot: int = 1,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits ``(N, K)``, loss ``(N,)`` and the gradient of its sum, shaped like ``x``.

    With ``eot > 1`` they are means over so many draws of a random model: expectation over transformation
    (Athalye, Engstrom, Ilyas, Kwok 2018).
    """
    if eot > 1:
        draws = [loss_and_gradient(model, x, labels, targets, loss) for _ in range(eot)]
        first, second, third = (torch.stack(parts).mean(dim=0) for parts in zip(*draws, strict=True))
        return first, second, third
    x = x.detach().requires_grad_(True)
    with torch.enable_grad():
        logits = model(x)
        values = loss(logits.float(), labels, targets)
        if not values.requires_grad:  # nothing links the logits to the images
            return logits.detach(), values.detach(), torch.zeros_like(x)
        gradient: torch.Tensor | None = torch.autograd.grad(values.sum(), x, allow_unused=True)[0]
    return logits.detach(), values.detach(), gradient if gradient is not None else torch.zeros_like(x)


def is_fooled(logits: torch.Tensor, labels: torch.Tensor, slack: float) -> torch.Tensor:
    """Which samples are misclassified by more than ``slack`` times their largest logit, ``(N,)``."""
    return (logits.argmax(dim=1) != labels) & (margin(logits, labels) > slack * logits.abs().amax(dim=1))


def climb_until_broken(
    model: nn.Module,
    start: torch.Tensor,
    origin: torch.Tensor,
    labels: torch.Tensor,
    targets: torch.Tensor | None,
    ascent: Ascent,
    slack: float = 0.0,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Climb from the points ``start``, and leave each sample at its first misclassification.

    Returns:
        The examples, and which of them were seen to be broken. The last step's results are not predicted
        again: whoever needs to know has to predict them.
    """
    loss = ascent.loss_function
    region = ascent.space.region(origin)
    point, x = start, region.image(start)
    result = x.clone()
    broken = torch.zeros(len(start), dtype=torch.bool, device=start.device)
    active = torch.arange(len(start), device=start.device)
    for _ in range(ascent.steps):
        logits, _, gradient = loss_and_gradient(model, x, labels, targets, loss, ascent.eot)
        fooled = is_fooled(logits, labels, slack)
        if fooled.any():
            result[active[fooled]] = x[fooled]
            broken[active[fooled]] = True
            keep = ~fooled
            active, point, gradient, labels = active[keep], point[keep], gradient[keep], labels[keep]
            region = region.keep(keep)
            targets = targets[keep] if targets is not None else None
            if len(active) == 0:
                return result, broken
        point = region.step(point, gradient)
        x = region.image(point)
    result[active] = x
    return result, broken


def climb_to_maximum(
    model: nn.Module,
    start: torch.Tensor,
    origin: torch.Tensor,
    labels: torch.Tensor,
    targets: torch.Tensor | None,
    ascent: Ascent,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Climb from the points ``start``; the highest-loss example over these and all steps, with its loss ``(N,)``."""
    loss = ascent.loss_function
    region = ascent.space.region(origin)
    point, x = start, region.image(start)
    best = best_loss = None
    for _ in range(ascent.steps):
        _, values, gradient = loss_and_gradient(model, x, labels, targets, loss, ascent.eot)
        best, best_loss = better(best, best_loss, x, values)
        point = region.step(point, gradient)
        x = region.image(point)
    values = expected_loss(model, x, labels, targets, loss, ascent.eot)
    return better(best, best_loss, x, values)


def expected_loss(
    model: nn.Module,
    x: torch.Tensor,
    labels: torch.Tensor,
    targets: torch.Tensor | None,
    loss: LossFunction,
    eot: int = 1,
) -> torch.Tensor:
    """The loss ``(N,)``, averaged over ``eot`` draws of a random model, without gradients."""
    with torch.no_grad():
        found = [loss(model(x).float(), labels, targets) for _ in range(eot)]
    return torch.stack(found).mean(dim=0)


def better(
    best: torch.Tensor | None, best_loss: torch.Tensor | None, x: torch.Tensor, values: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Per sample, what has the higher loss: the best so far, if there is any, or ``x`` with the loss ``values``.

    A loss that is not a number is lower than any other.
    """
    if best is None or best_loss is None:
        return x, values.masked_fill(values.isnan(), float("-inf"))
    higher = values > best_loss
    return torch.where(per_sample(higher, x), x, best), torch.where(higher, values, best_loss)
