"""Where a gradient climb may go, and how it steps there: the pluggable part of ``freqrobust.attacks.gradient.ascent``.

A climb moves *points*; what the model sees is the *image* of a point. In a ball of pixels both are the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import torch

from freqrobust.numerics.frequency import Shape, band_pass
from freqrobust.numerics.norms import farthest_l1, length, per_sample, project, steepest
from freqrobust.numerics.threat import StepNorm as Norm
from freqrobust.plugins.context import AttackContext


class Region(Protocol):
    """What is allowed around some images ``(N, C, H, W)``; points have their shape."""

    def image(self, point: torch.Tensor) -> torch.Tensor:
        """What the model sees of a point: in [0, 1] and inside of the budget."""

    def step(self, point: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
        """One step uphill from a point, back into the region; ``gradient`` is that of the point's image."""

    def keep(self, which: torch.Tensor) -> Region:
        """The region of some of the samples."""


class Space(Protocol):
    """A threat, and the way of moving in it."""

    def region(self, origin: torch.Tensor) -> Region:
        """The region around these images."""

    def origin_point(self, origin: torch.Tensor) -> torch.Tensor:
        """The point whose image is the image itself."""

    def random_point(self, origin: torch.Tensor, context: AttackContext, stream: str) -> torch.Tensor:
        """A random point, keyed by the context's samples and by ``stream``."""

    def corner_point(self, origin: torch.Tensor, signs: torch.Tensor) -> torch.Tensor:
        """As far as possible into the orthant that ``signs`` (-1 and 1) say."""


@dataclass(frozen=True)
class Ball:
    """All images in [0, 1] at a distance of at most ``eps``.

    An L1 step goes to the share ``sparsity`` of the pixels, those with the largest gradients, that move alike (Tramer and
    Boneh 2019, "SLIDE"); what one of them cannot take, as it is near its wall, goes to the next. Without that, most
    steps would only put back what the projection before took from the pixels that matter most.
    """

    norm: Norm
    eps: float
    step_size: float
    sparsity: float = 0.0

    def region(self, origin: torch.Tensor) -> Region:
        if self.norm == "linf":
            return BallRegion(self, origin, (origin - self.eps).clamp_(0, 1), (origin + self.eps).clamp_(0, 1))
        return BallRegion(self, origin)

    def origin_point(self, origin: torch.Tensor) -> torch.Tensor:
        return origin

    def random_point(self, origin: torch.Tensor, context: AttackContext, stream: str) -> torch.Tensor:
        shape = origin.shape[1:]
        if self.norm == "linf":
            return random_start(origin, self.norm, self.eps, context.uniform(shape, stream), None)
        unit = context.uniform((1,), f"{stream} radius")[:, 0]
        direction = context.normal(shape, stream) if self.norm == "l2" else laplace(context.uniform(shape, stream))
        return random_start(origin, self.norm, self.eps, unit, direction)

    def corner_point(self, origin: torch.Tensor, signs: torch.Tensor) -> torch.Tensor:
        return project(origin + self.eps * signs, origin, self.norm, self.eps)


@dataclass(frozen=True)
class BallRegion:
    """The eps-ball around ``origin (N, C, H, W)`` within [0, 1]; for Linf the box is worked out once."""

    space: Ball
    origin: torch.Tensor
    low: torch.Tensor | None = None
    high: torch.Tensor | None = None

    def image(self, point: torch.Tensor) -> torch.Tensor:
        return point

    def step(self, point: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
        s = self.space
        if s.norm == "l1":
            share = s.step_size / max(1, round(s.sparsity * point[0].numel()))
            moved = farthest_l1(gradient, point, s.step_size, share)
            return project(moved, self.origin, s.norm, s.eps)
        moved = point.add(steepest(gradient, s.norm), alpha=s.step_size)
        if self.low is not None and self.high is not None:
            return torch.clamp(moved, self.low, self.high)
        return project(moved, self.origin, s.norm, s.eps)

    def keep(self, which: torch.Tensor) -> Region:
        low, high = (part[which] if part is not None else None for part in (self.low, self.high))
        return BallRegion(self.space, self.origin[which], low, high)


@dataclass(frozen=True)
class Band:
    """Perturbations whose frequencies all have ``low <= distance < high``, of norm at most ``eps``.

    A point is a perturbation; it lies in the band exactly (up to rounding) and in the ball. Its image is
    ``clip(origin + point, 0, 1)``: where pixels are near 0 or 1, clipping leaves the band a little. Scaling the
    perturbation until nothing has to be clipped would stay inside, but one black or white pixel would forbid it
    altogether. As points are never clipped themselves, what leaves the band does not build up from step to step.

    For L2 a step and the projection are exact, as the band is a linear subspace. For Linf neither has a closed
    form: a step goes along the filtered sign of the filtered gradient. The way back is ``ROUNDS`` rounds of Dykstra's
    algorithm (Boyle and Dykstra 1986), which approaches the nearest point of ball and band; what is still too large
    is scaled.
    """

    norm: Literal["linf", "l2"]
    eps: float
    step_size: float
    low: float
    high: float
    shape: Shape = "circle"

    def filter(self, images: torch.Tensor) -> torch.Tensor:
        """The part of the images that lies in the band."""
        return band_pass(images, self.low, self.high, self.shape)

    def fit(self, delta: torch.Tensor) -> torch.Tensor:
        """A perturbation in the band, brought into the ball without leaving the band."""
        if self.norm == "linf":
            cut = torch.zeros_like(delta)
            for _ in range(ROUNDS):
                clipped = (delta + cut).clamp(-self.eps, self.eps)
                cut = delta + cut - clipped
                delta = self.filter(clipped)
        return delta * per_sample((self.eps / _size(delta, self.norm).clamp_min(1e-12)).clamp_max(1.0), delta)

    def region(self, origin: torch.Tensor) -> Region:
        return BandRegion(self, origin)

    def origin_point(self, origin: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(origin)

    def random_point(self, origin: torch.Tensor, context: AttackContext, stream: str) -> torch.Tensor:
        """Filtered Gaussian noise of a length that is uniform in [0, eps)."""
        noise = self.filter(context.normal(origin.shape[1:], stream))
        unit = context.uniform((1,), f"{stream} radius")[:, 0]
        return noise * per_sample(self.eps * unit / _size(noise, self.norm).clamp_min(1e-12), noise)

    def corner_point(self, origin: torch.Tensor, signs: torch.Tensor) -> torch.Tensor:
        return self.fit(self.filter(self.eps * signs))


#: Times that a Linf step within a band is clipped and filtered again. Without, a third fewer samples would be broken.
ROUNDS = 8


@dataclass(frozen=True)
class BandRegion:
    """The perturbations of a band around ``origin (N, C, H, W)``."""

    space: Band
    origin: torch.Tensor

    def image(self, point: torch.Tensor) -> torch.Tensor:
        return (self.origin + point).clamp_(0, 1)

    def step(self, point: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
        s = self.space
        # of a pixel that is clipped only the way back changes the image
        direction = steepest(s.filter(free_gradient(self.origin + point, gradient)), s.norm)
        if s.norm == "linf":
            direction = s.filter(direction)
        direction = direction / per_sample(_size(direction, s.norm).clamp_min(1e-12), direction)
        return s.fit(point.add(direction, alpha=s.step_size))

    def keep(self, which: torch.Tensor) -> Region:
        return BandRegion(self.space, self.origin[which])


def _size(delta: torch.Tensor, norm: Norm) -> torch.Tensor:
    found: torch.Tensor = delta.flatten(1).abs().amax(dim=1) if norm == "linf" else length(delta).to(delta.dtype)
    return found


def free_gradient(point: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    """The gradient, zero where it would push a pixel out of [0, 1] that is at its wall or beyond."""
    stopped = ((point <= 0) & (gradient < 0)) | ((point >= 1) & (gradient > 0))
    return gradient.masked_fill(stopped, 0.0)


def laplace(uniform: torch.Tensor) -> torch.Tensor:
    """Standard Laplace noise, from uniform noise in [0, 1) of 24 bits: the upper half is its positive side."""
    above = uniform >= 0.5
    size = torch.where(above, 2 * uniform - 1, 1 - 2 * uniform - 2.0**-23)
    return -torch.log1p(-size) * torch.where(above, 1.0, -1.0)


def random_start(
    origin: torch.Tensor, norm: Norm, eps: float, unit: torch.Tensor, direction: torch.Tensor | None
) -> torch.Tensor:
    """A point drawn uniformly from the eps-ball around ``origin``, brought into [0, 1].

    Args:
        origin: images ``(N, C, H, W)``.
        norm: the ball.
        eps: its radius.
        unit: uniform noise in [0, 1): shaped like ``origin`` for Linf, ``(N,)`` else.
        direction: noise shaped like ``origin``: standard normal for L2, Laplace for L1 (Barthe et al. 2005), none
            for Linf.
    """
    if norm == "linf":
        return project(origin + (2 * unit - 1) * eps, origin, norm, eps)
    assert direction is not None
    dimension = origin[0].numel()
    size = direction.flatten(1).norm(p=2 if norm == "l2" else 1, dim=1)
    delta = direction / per_sample(size, direction)
    return project(origin + delta * (eps * per_sample(unit, origin) ** (1 / dimension)), origin, norm, eps)
