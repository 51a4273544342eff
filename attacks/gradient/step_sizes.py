"""How an ascent moves from point to point: with a fixed step, or with the step sizes of Auto-PGD."""

from __future__ import annotations

import math
from typing import Any, Protocol

import torch

from freqrobust.attacks.gradient.regions import BallRegion, Region
from freqrobust.numerics.norms import per_sample

#: The first step size, relative to eps (Croce and Hein 2020, sec. 3).
FIRST_STEP = 2.0
#: Weight of the step against the momentum (Croce and Hein 2020, sec. 3, alpha).
STEP_WEIGHT = 0.75
#: Share of the steps that have to increase the loss, or the step size is halved (sec. 3, rho).
INCREASING_SHARE = 0.75
#: L1: share of the pixels that the first steps change; share of the steps after which it is set again; the factor
#: between the pixels of the best example and those of a step (Croce and Hein 2021, "Mind the box").
FIRST_SPARSITY, RESET_SHARE, FEWER = 0.2, 0.04, 1.5
#: L1: smallest step size, relative to eps, and the decrease of the changed pixels that resets it.
SMALLEST_L1_STEP, CLEARLY_SPARSER = 0.1, 0.95


class Stepper(Protocol):
    """Moves the points of a batch; ``region`` is where they are allowed."""

    @property
    def region(self) -> Region:
        """The region of the samples that are still there."""

    def step(self, point: torch.Tensor, values: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
        """The next points, from the losses ``(N,)`` and the gradients at the images of these."""

    def keep(self, which: torch.Tensor) -> None:
        """Go on with a subset of the samples."""


class FixedSteps:
    """Every step as the region defines it."""

    def __init__(self, region: Region, steps: int) -> None:
        self.region: Any = region

    def step(self, point: torch.Tensor, values: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
        moved: torch.Tensor = self.region.step(point, gradient)
        return moved

    def keep(self, which: torch.Tensor) -> None:
        self.region = self.region.keep(which)


def checkpoints(steps: int) -> list[int]:
    """The steps after which Auto-PGD decides about the step size: ``ceil(p_j * steps)`` with ``p_0 = 0, p_1 = 0.22``.

    Then ``p_{j+1} = p_j + max(p_j - p_{j-1} - 0.03, 0.06)`` (Croce and Hein 2020, sec. 3).
    """
    shares = [0.0, 0.22]
    while shares[-1] < 1:
        shares.append(shares[-1] + max(shares[-1] - shares[-2] - 0.03, 0.06))
    return sorted({math.ceil(round(share * steps, 9)) for share in shares[1:] if share <= 1})


class AutoSteps:
    """The steps of Auto-PGD, with a step size of its own for each sample.

    For Linf and L2 (Croce and Hein 2020, algorithm 1): ``z = P(x_k + eta * s(grad))``, then
    ``x_{k+1} = P(x_k + 0.75 (z - x_k) + 0.25 (x_k - x_{k-1}))``, with ``eta = 2 eps`` at first. At a checkpoint ``eta`` is
    halved, and the ascent goes on from the best point, if fewer than three quarters of the steps since the last one
    increased the loss, or if neither ``eta`` was halved there nor the best loss has grown since.

    For L1 (Croce and Hein 2021, "Mind the box") a step changes some pixels only, each by the same amount. After
    every 4 % of the steps their number is set to that of the pixels in which the best point differs from the image,
    divided by 1.5. If the best point has become clearly sparser, ``eta`` is reset to ``eps`` and the ascent goes on from
    there; otherwise ``eta`` is divided by 1.5, down to ``eps / 10``.
    """

    def __init__(self, region: BallRegion, steps: int) -> None:
        self.region = region
        self.sparse, eps = region.space.norm == "l1", region.space.eps
        n, self._made = len(region.origin), 0
        every = max(1, int(RESET_SHARE * steps))
        self._checks = list(range(every, steps, every)) if self.sparse else checkpoints(steps)
        like = region.origin.new_full((n,), eps)
        pixels = float(region.origin[0].numel()) if n else 1.0
        self._state: dict[str, torch.Tensor] = {"size": like if self.sparse else FIRST_STEP * like}
        if self.sparse:
            self._state["changed"] = torch.full_like(like, pixels)
            self._state["pixels"] = torch.full_like(like, max(1.0, FIRST_SPARSITY * pixels))
        else:
            self._state["pixels"] = torch.full_like(like, pixels)
            self._state["increases"] = torch.zeros_like(like)
            self._state["halved"] = torch.ones_like(like, dtype=torch.bool)  # the first checkpoint has none before it

    def keep(self, which: torch.Tensor) -> None:
        self.region = self.region.keep(which)
        self._state = {name: value[which] for name, value in self._state.items()}

    def step(self, point: torch.Tensor, values: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
        state = self._state
        values = values.masked_fill(values.isnan(), float("-inf"))
        if self._made == 0:
            state |= {"best": point, "best_gradient": gradient, "best_loss": values, "loss_at_check": values}
        else:
            self._look(point, values, gradient)
        state["loss"] = values
        if self._made in self._checks:
            restart = self._sparser() if self.sparse else self._halve()
            point = torch.where(per_sample(restart, point), state["best"], point)
            gradient = torch.where(per_sample(restart, point), state["best_gradient"], gradient)
        moved = self.region.step_of(point, gradient, state["size"], state["pixels"])
        if self._made > 0 and not self.sparse:
            momentum = (1 - STEP_WEIGHT) * (point - state["previous"])
            moved = self.region.project(point + STEP_WEIGHT * (moved - point) + momentum)
        state["previous"] = point
        self._made += 1
        return moved

    def _look(self, point: torch.Tensor, values: torch.Tensor, gradient: torch.Tensor) -> None:
        """Take note of the points that the last step has led to."""
        state = self._state
        if not self.sparse:
            state["increases"] = state["increases"] + (values > state["loss"])
        higher = values > state["best_loss"]
        state["best_loss"] = torch.where(higher, values, state["best_loss"])
        state["best"] = torch.where(per_sample(higher, point), point, state["best"])
        state["best_gradient"] = torch.where(per_sample(higher, point), gradient, state["best_gradient"])

    def _halve(self) -> torch.Tensor:
        """Decide about the step sizes at a checkpoint; the samples that go on from their best point, ``(N,)``."""
        state, number = self._state, self._checks.index(self._made)
        steps = self._made - (self._checks[number - 1] if number else 0)
        oscillates = state["increases"] < INCREASING_SHARE * steps
        stalls = ~state["halved"] & (state["best_loss"] <= state["loss_at_check"])
        halve = oscillates | stalls
        state["size"] = torch.where(halve, state["size"] / 2, state["size"])
        state["halved"], state["loss_at_check"] = halve, state["best_loss"]
        state["increases"] = torch.zeros_like(state["increases"])
        return halve

    def _sparser(self) -> torch.Tensor:
        """Set the number of changed pixels and the step sizes; the samples that go on from their best point, ``(N,)``."""
        state, eps = self._state, self.region.space.eps
        changed = (state["best"] != self.region.origin).flatten(1).sum(dim=1).to(state["size"].dtype)
        sparser = changed < CLEARLY_SPARSER * state["changed"]
        state["pixels"] = (changed / FEWER).clamp_min(1)
        smaller = (state["size"] / FEWER).clamp_min(SMALLEST_L1_STEP * eps)
        state["size"] = torch.where(sparser, torch.full_like(smaller, eps), smaller)
        state["changed"] = changed
        return sparser
