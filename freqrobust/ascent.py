"""Projected gradient ascent: the one loop behind FGSM and PGD.

A step is ``x <- project(x + step_size * steepest(grad loss(x)))``, projected onto the intersection of the
eps-ball and [0, 1] (Goodfellow et al. 2015, eq. 2; Madry et al. 2018, eq. 1).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from freqrobust.losses import Loss, loss_function, margin
from freqrobust.perturbation import per_sample, project, steepest
from freqrobust.plugin import StepNorm as Norm

LossFunction = Callable[[torch.Tensor, torch.Tensor, "torch.Tensor | None"], torch.Tensor]


@dataclass(frozen=True)
class Ascent:
    """What a climb maximises, and how far it may go."""

    norm: Norm
    eps: float
    step_size: float
    steps: int
    loss: Loss
    eot: int = 1

    @property
    def loss_function(self) -> LossFunction:
        return loss_function(self.loss)  # type: ignore[return-value]

    def region(self, origin: torch.Tensor) -> Region:
        """Where examples of these images may lie."""
        if self.norm == "linf":
            return Region(self, origin, (origin - self.eps).clamp_(0, 1), (origin + self.eps).clamp_(0, 1))
        return Region(self, origin)


@dataclass(frozen=True)
class Region:
    """The eps-ball around ``origin (N, C, H, W)`` within [0, 1]; for Linf the box is worked out once."""

    ascent: Ascent
    origin: torch.Tensor
    low: torch.Tensor | None = None
    high: torch.Tensor | None = None

    def step(self, x: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
        """One step uphill, and back into the region."""
        a = self.ascent
        moved = x.add(steepest(gradient, a.norm), alpha=a.step_size)
        if self.low is not None and self.high is not None:
            return torch.clamp(moved, self.low, self.high)
        return project(moved, self.origin, a.norm, a.eps)

    def keep(self, which: torch.Tensor) -> Region:
        """The region of some of the samples."""
        low, high = (part[which] if part is not None else None for part in (self.low, self.high))
        return Region(self.ascent, self.origin[which], low, high)


def random_start(
    origin: torch.Tensor, norm: Norm, eps: float, unit: torch.Tensor, direction: torch.Tensor | None
) -> torch.Tensor:
    """A point drawn uniformly from the eps-ball around ``origin``, clipped to [0, 1].

    Args:
        origin: images ``(N, C, H, W)``.
        norm: the ball.
        eps: its radius.
        unit: uniform noise in [0, 1): shaped like ``origin`` for Linf, ``(N,)`` for L2.
        direction: standard normal noise shaped like ``origin``, for L2 only.
    """
    if norm == "linf":
        return project(origin + (2 * unit - 1) * eps, origin, norm, eps)
    assert direction is not None
    dimension = origin[0].numel()
    delta = direction / per_sample(direction.flatten(1).norm(dim=1), direction)
    return project(origin + delta * (eps * per_sample(unit, origin) ** (1 / dimension)), origin, norm, eps)


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
    """Climb, and leave each sample at its first misclassification.

    Returns:
        The examples, and which of them were seen to be broken. The last step's results are not predicted
        again: whoever needs to know has to predict them.
    """
    loss = ascent.loss_function
    region = ascent.region(origin)
    result = start.clone()
    broken = torch.zeros(len(start), dtype=torch.bool, device=start.device)
    active = torch.arange(len(start), device=start.device)
    x = start
    for _ in range(ascent.steps):
        logits, _, gradient = loss_and_gradient(model, x, labels, targets, loss, ascent.eot)
        fooled = is_fooled(logits, labels, slack)
        if fooled.any():
            result[active[fooled]] = x[fooled]
            broken[active[fooled]] = True
            keep = ~fooled
            active, x, gradient, labels = active[keep], x[keep], gradient[keep], labels[keep]
            region = region.keep(keep)
            targets = targets[keep] if targets is not None else None
            if len(active) == 0:
                return result, broken
        x = region.step(x, gradient)
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
    """Climb, and return the highest-loss example over the start and all steps, with its loss ``(N,)``."""
    loss = ascent.loss_function
    region = ascent.region(origin)
    best = start
    best_loss = torch.full((len(start),), float("-inf"), device=start.device)
    x = start
    for _ in range(ascent.steps):
        _, values, gradient = loss_and_gradient(model, x, labels, targets, loss, ascent.eot)
        best, best_loss = _better(best, best_loss, x, values)
        x = region.step(x, gradient)
    values = expected_loss(model, x, labels, targets, loss, ascent.eot)
    return _better(best, best_loss, x, values)


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


def _better(
    best: torch.Tensor, best_loss: torch.Tensor, x: torch.Tensor, values: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    higher = values > best_loss
    return torch.where(per_sample(higher, x), x, best), torch.where(higher, values, best_loss)
