"""Steps in a ball around the image whose radius follows the boundary: the search of FMN."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn

from freqrobust.attacks.active_set import ActiveSet
from freqrobust.attacks.gradient.ascent import loss_and_gradient
from freqrobust.attacks.minimum_norm.linearized import margins, nearest_boundary, runners_up
from freqrobust.attacks.minimum_norm.nearest import Nearest
from freqrobust.numerics.norms import farthest_l1, norms, per_sample, project, reach_of, steepest
from freqrobust.numerics.threat import StepNorm
from freqrobust.plugins.context import AttackContext
from freqrobust.plugins.criterion import Misclassification

#: The step size at the end, as a share of the first.
LAST_STEP = 0.01
#: The relative change of the radius at which a sample has converged.
LAST_GAMMA = {"linf": 0.001, "l2": 0.001, "l1": 0.002}
#: The pixels that differ from the image, divided by those that an L1 step changes.
SPARSITY = 1.75
#: What the relative change of the radius is multiplied by when the boundary is crossed, and when it is not.
CROSSED, NOT_CROSSED = 0.7, 1.0


@dataclass(frozen=True)
class Adaptive:
    """The settings of a search.

    Attributes:
        norm: the norm that is minimised.
        steps: forward passes at most; the last has no gradient.
        step_size: length of the first steps, as a share of the radius: in Linf for Linf, else in L2.
        momentum: the share of the last direction that is added to the gradient.
        gamma: first relative change of the radius.
        candidates: other classes whose boundaries are compared at the clean image.
    """

    norm: StepNorm
    steps: int
    step_size: float
    momentum: float
    gamma: float
    candidates: int

    def search(
        self, model: nn.Module, images: torch.Tensor, labels: torch.Tensor, context: AttackContext
    ) -> torch.Tensor:
        """The nearest adversarial examples; the image itself where there are none."""
        nearest = Nearest(images, self.norm)
        active = ActiveSet(len(images), images.device)
        x, y, origin = images, labels, images
        reach = norms(torch.maximum(images, 1 - images), self.norm)  # no image is farther
        eps = torch.full_like(reach, float("inf"))
        gamma = torch.full_like(reach, self.gamma)
        inside = torch.zeros_like(active.rows, dtype=torch.bool)  # the last image was adversarial
        direction = torch.zeros_like(images)
        for step in range(self.steps - 1):
            before = nearest.distance[active.rows].isfinite()
            if step == 0 and isinstance(context.criterion, Misclassification):
                logits, ahead, gradient = self._first(model, x, y, context)
            else:
                logits, margin, gradient = loss_and_gradient(
                    model, x, y, None, lambda z, labels, _: context.criterion.margin(z, labels)
                )
                ahead = reach_of(gradient, x, self.norm, margin.abs())
            adversarial = context.is_adversarial(logits, y)
            distance = nearest.update(active, x, adversarial)
            best = nearest.distance[active.rows]

            change = torch.where(adversarial != inside, CROSSED, NOT_CROSSED)
            gamma = torch.where(before, (gamma * change).clamp_max(self.gamma), gamma)
            inside = adversarial
            boundary = distance + ahead
            grown = eps * (1 + gamma)
            wider = torch.where(best.isfinite() | (eps.isfinite() & (grown > boundary)), grown, boundary)
            eps = torch.where(adversarial, torch.minimum(eps * (1 - gamma), best), wider)
            eps = torch.minimum(eps, reach[active.rows])

            direction = self.momentum * direction + steepest(gradient, "l2")

            # an image that is adversarial as it is has nothing nearer
            keep = active.leave(~((best > 0) & (gamma > LAST_GAMMA[self.norm])))
            if keep is not None:
                x, y, origin, direction = x[keep], y[keep], origin[keep], direction[keep]
                eps, gamma, inside = eps[keep], gamma[keep], inside[keep]
                if len(keep) == 0:
                    return nearest.images
            if step == 0 and self.norm == "l1":
                x = farthest_l1(direction, origin, eps[:, None])
            else:
                x = project(self._step(x, origin, direction, self._step_size(gamma) * eps), origin, self.norm, eps)
        return nearest.finish(model, active, x, y, context)

    def _first(
        self, model: nn.Module, images: torch.Tensor, labels: torch.Tensor, context: AttackContext
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Logits, and the distance and the gradient of the nearest of the linearised boundaries to other classes."""
        with torch.enable_grad():
            x = images.detach().requires_grad_(True)
            logits = model(x).float()
            others = runners_up(logits.detach(), labels, self.candidates)
            distance, gradient = nearest_boundary(margins(logits, labels, others, context), x, self.norm)
        return logits.detach(), distance, gradient

    def _step(self, x: torch.Tensor, origin: torch.Tensor, direction: torch.Tensor, size: torch.Tensor) -> torch.Tensor:
        """A step of length ``size (N,)``, not yet projected.

        The projection onto an L1 ball subtracts the same amount from all pixels, which undoes most of a step that changes
        them all: the step changes fewer than differ from the image.
        """
        if self.norm == "l1":
            pixels = ((x != origin).flatten(1).sum(dim=1) / SPARSITY).clamp_min(1)
            return farthest_l1(direction, x, size[:, None], (size / pixels)[:, None])
        return x + per_sample(size, x) * steepest(direction, self.norm)

    def _step_size(self, gamma: torch.Tensor) -> torch.Tensor:
        """Cosine annealing by how far gamma has come from its first value to its last, on a logarithmic scale."""
        last = LAST_GAMMA[self.norm]
        left = (gamma / last).log() / math.log(max(self.gamma, 1.1 * last) / last)
        share: torch.Tensor = (1 - torch.cos(math.pi * left.clamp(0, 1))) / 2
        return self.step_size * (LAST_STEP + (1 - LAST_STEP) * share)
