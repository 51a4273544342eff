"""Projected gradient ascent: the one loop behind all attacks that follow a gradient.

A step is ``x <- project(x + step_size * steepest(grad loss(x)))``, projected onto the intersection of the
eps-ball and [0, 1] (Goodfellow et al. 2015, eq. 2; Madry et al. 2018, eq. 1). What a step and the projection
are is defined by the space of the examples (``freqrobust.attacks.gradient.regions``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from freqrobust.attacks.active_set import ActiveSet
from freqrobust.attacks.gradient.regions import Space
from freqrobust.attacks.gradient.step_sizes import FixedSteps, Stepper
from freqrobust.numerics.losses import Loss, LossFunction, loss_function, margin
from freqrobust.numerics.norms import per_sample
from freqrobust.plugins.context import AttackContext
from freqrobust.plugins.criterion import Criterion, Misclassification


@dataclass(frozen=True)
class Ascent:
    """The loss, the space of the examples, the number of steps, and the draws of a random model per step.

    ``stepper`` makes what chooses the steps, from a region and the number of steps. With ``early_stopping`` the ascent
    until adversarial ends on samples that cannot be expected to become adversarial (:class:`Patience`).
    """

    space: Space
    steps: int
    loss: LossFunction
    eot: int = 1
    stepper: Callable[[Any, int], Stepper] = FixedSteps
    early_stopping: bool = False


#: Steps between two looks at how fast a margin grows, and how much faster than since the last look it may become.
PERIOD, PATIENCE = 10, 2.0


class Patience:
    """Decides for each sample whether its margin can be expected to become positive in the steps that are left.

    After every ``PERIOD`` steps: not if even with ``PATIENCE`` times its mean growth since the last look the largest
    margin so far would stay negative. Margins usually grow more slowly the longer an ascent takes.
    """

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.made = 0
        self.best: torch.Tensor | None = None
        self.last: torch.Tensor | None = None

    def hopeless(self, margins: torch.Tensor) -> torch.Tensor:
        """Samples on which to stop, ``(N,)``, from their margins ``(N,)`` at the present point; call it once a step."""
        self.best = margins if self.best is None else torch.fmax(self.best, margins)
        self.last = self.best if self.last is None else self.last
        stop = torch.zeros_like(margins, dtype=torch.bool)
        if self.made > 0 and self.made % PERIOD == 0:
            growth = (self.best - self.last) / PERIOD
            stop = self.best + PATIENCE * growth * (self.steps - self.made) < 0
            self.last = self.best
        self.made += 1
        return stop

    def keep(self, which: torch.Tensor) -> None:
        """Go on with a subset of the samples."""
        assert self.best is not None
        assert self.last is not None
        self.best, self.last = self.best[which], self.last[which]


def loss_for(criterion: Criterion, name: Loss = "ce", targeted: bool = False, default: Loss = "ce") -> LossFunction:
    """The loss of that name; instead of the untargeted ``default`` of the attack, a criterion's own loss.

    Under misclassification every loss is the one that is named.
    """
    if name != default or targeted or isinstance(criterion, Misclassification):
        return loss_function(name)
    return lambda logits, labels, targets: criterion.loss(logits, labels)


def loss_and_gradient(
    model: nn.Module,
    x: torch.Tensor,
    labels: torch.Tensor,
    targets: torch.Tensor | None,
    loss: LossFunction,
    eot: int = 1,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits ``(N, K)``, loss ``(N,)`` and the gradient of its sum, shaped like ``x``; where that is NaN, zero.

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
        if not values.requires_grad:  # the logits do not depend on the images
            return logits.detach(), values.detach(), torch.zeros_like(x)
        gradient: torch.Tensor | None = torch.autograd.grad(values.sum(), x, allow_unused=True)[0]
    if gradient is None:
        return logits.detach(), values.detach(), torch.zeros_like(x)
    # one NaN would make the whole direction of an L2 step NaN
    return logits.detach(), values.detach(), gradient.nan_to_num_()


def ascend_until_adversarial(
    model: nn.Module,
    start: torch.Tensor,
    origin: torch.Tensor,
    labels: torch.Tensor,
    targets: torch.Tensor | None,
    ascent: Ascent,
    context: AttackContext,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Ascend from the points ``start``, and stop on each sample as soon as it is adversarial, or given up.

    Returns:
        The examples, and which of them are known to be adversarial. The model is not called again after the last
        step: whether its examples are adversarial is for the caller to predict.
    """
    stepper = ascent.stepper(ascent.space.region(origin), ascent.steps)
    point, x = start, stepper.region.image(start)
    result = x.clone()
    adversarial = torch.zeros(len(start), dtype=torch.bool, device=start.device)
    active = ActiveSet(len(start), start.device)
    patience = Patience(ascent.steps) if ascent.early_stopping else None
    for _ in range(ascent.steps):
        logits, values, gradient = loss_and_gradient(model, x, labels, targets, ascent.loss, ascent.eot)
        success = context.is_adversarial(logits, labels)
        done = success
        if patience is not None:
            margins = context.criterion.margin(logits, labels) if targets is None else margin(logits, labels, targets)
            done = success | patience.hopeless(margins)
        active.record(result, done, x)
        adversarial[active.rows] |= active.running(success)
        keep = active.leave(done)
        if keep is not None:
            point, gradient, values, labels = point[keep], gradient[keep], values[keep], labels[keep]
            stepper.keep(keep)
            if patience is not None:
                patience.keep(keep)
            targets = targets[keep] if targets is not None else None
            if len(keep) == 0:
                return result, adversarial
        point = stepper.step(point, values, gradient)
        x = stepper.region.image(point)
    active.finish(result, x)
    return result, adversarial


def ascend(
    model: nn.Module,
    start: torch.Tensor,
    origin: torch.Tensor,
    labels: torch.Tensor,
    targets: torch.Tensor | None,
    ascent: Ascent,
) -> torch.Tensor:
    """Ascend from the points ``start``; the example after the last step, with one forward and backward pass per step.

    This is what adversarial training needs: the loss of the last example is not computed, as the training step does so.
    """
    stepper = ascent.stepper(ascent.space.region(origin), ascent.steps)
    point, x = start, stepper.region.image(start)
    for _ in range(ascent.steps):
        _, values, gradient = loss_and_gradient(model, x, labels, targets, ascent.loss, ascent.eot)
        point = stepper.step(point, values, gradient)
        x = stepper.region.image(point)
    return x


def ascend_to_maximum(
    model: nn.Module,
    start: torch.Tensor,
    origin: torch.Tensor,
    labels: torch.Tensor,
    targets: torch.Tensor | None,
    ascent: Ascent,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Ascend from the points ``start``; the highest-loss example over these and all steps, with its loss ``(N,)``."""
    stepper = ascent.stepper(ascent.space.region(origin), ascent.steps)
    point, x = start, stepper.region.image(start)
    best = best_loss = None
    for _ in range(ascent.steps):
        _, values, gradient = loss_and_gradient(model, x, labels, targets, ascent.loss, ascent.eot)
        best, best_loss = better(best, best_loss, x, values)
        point = stepper.step(point, values, gradient)
        x = stepper.region.image(point)
    values = expected_loss(model, x, labels, targets, ascent.loss, ascent.eot)
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
        draws = [loss(model(x).float(), labels, targets) for _ in range(eot)]
    return torch.stack(draws).mean(dim=0)


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
