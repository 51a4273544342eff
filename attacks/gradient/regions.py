"""The sets of allowed examples, with their steps and projections, for ``freqrobust.attacks.gradient.ascent``.

The ascent moves *points*; the model gets the *image* of a point. In a ball of pixels both are the same. With ``eight_bit``
the pixels of images are rounded to multiples of 1/255 within the budget, while points are not. The gradient at an image
is used as that of its point, as if rounding had the derivative 1 (the straight-through estimator of Bengio, Leonard,
Courville 2013).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

import torch

from freqrobust.numerics.eight_bit import nearest_within
from freqrobust.numerics.frequency import Shape, band_pass
from freqrobust.numerics.norms import farthest_l1, length, per_sample, project, steepest
from freqrobust.numerics.threat import StepNorm as Norm
from freqrobust.plugins.context import AttackContext

if TYPE_CHECKING:
    from typing_extensions import Self


class Region(Protocol):
    """The allowed examples of the images ``(N, C, H, W)``; points have the same shape."""

    def image(self, point: torch.Tensor) -> torch.Tensor:
        """The example at a point: in [0, 1] and within the budget."""

    def step(self, point: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
        """One step of ascent from a point, projected onto the region; ``gradient`` is taken at the point's image."""

    def keep(self, which: torch.Tensor) -> Self:
        """The region of a subset of the samples."""


class Space(Protocol):
    """A threat, with its steps and projection."""

    def region(self, origin: torch.Tensor) -> Region:
        """The region around these images."""

    def origin_point(self, origin: torch.Tensor) -> torch.Tensor:
        """The point whose image is the image itself."""

    def random_point(self, origin: torch.Tensor, context: AttackContext, stream: str) -> torch.Tensor:
        """A random point, seeded by (seed, sample id, stream)."""

    def vertex(self, origin: torch.Tensor, signs: torch.Tensor) -> torch.Tensor:
        """The initial point at the vertex of the ball that ``signs`` (-1 and 1) give, projected onto the region."""


@dataclass(frozen=True)
class Ball:
    """All images in [0, 1] at a distance of at most ``eps``.

    An L1 step changes the share ``sparsity`` of the pixels that have the largest gradients, all by the same amount (Tramer
    and Boneh 2019, "SLIDE"). Where a pixel reaches 0 or 1 the rest of its change goes to the next one. Without this, most
    steps would only restore what the previous projection removed from the pixels with the largest gradients.
    """

    norm: Norm
    eps: float
    step_size: float
    sparsity: float = 0.0
    eight_bit: bool = False

    def region(self, origin: torch.Tensor) -> BallRegion:
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

    def vertex(self, origin: torch.Tensor, signs: torch.Tensor) -> torch.Tensor:
        return project(origin + self.eps * signs, origin, self.norm, self.eps)


@dataclass(frozen=True)
class BallRegion:
    """The eps-ball around ``origin (N, C, H, W)`` within [0, 1]; for Linf its bounds are computed once."""

    space: Ball
    origin: torch.Tensor
    low: torch.Tensor | None = None
    high: torch.Tensor | None = None

    def image(self, point: torch.Tensor) -> torch.Tensor:
        s = self.space
        return nearest_within(point, self.origin, s.norm, s.eps) if s.eight_bit else point

    def step(self, point: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
        s = self.space
        if s.norm == "l1":
            share = s.step_size / max(1, round(s.sparsity * point[0].numel()))
            return self.project(farthest_l1(gradient, point, s.step_size, share))
        return self.project(point.add(steepest(gradient, s.norm), alpha=s.step_size))

    def step_of(
        self, point: torch.Tensor, gradient: torch.Tensor, size: torch.Tensor, pixels: torch.Tensor
    ) -> torch.Tensor:
        """One step of a size of its own for each sample, ``(N,)``.

        For L1 so many ``pixels (N,)`` move, also beyond 0 and 1: the projection then shortens the others more (Croce and Hein
        2021, "Mind the box").
        """
        s = self.space
        direction = sparse_sign(gradient, pixels) if s.norm == "l1" else steepest(gradient, s.norm)
        return self.project(point + per_sample(size, point) * direction)

    def project(self, point: torch.Tensor) -> torch.Tensor:
        """The image in [0, 1] and in the ball that a step to ``point`` lands on."""
        if self.low is not None and self.high is not None:
            return torch.clamp(point, self.low, self.high)
        return project(point, self.origin, self.space.norm, self.space.eps)

    def keep(self, which: torch.Tensor) -> BallRegion:
        low, high = (part[which] if part is not None else None for part in (self.low, self.high))
        return BallRegion(self.space, self.origin[which], low, high)


@dataclass(frozen=True)
class Band:
    """Perturbations whose frequencies all have ``low <= distance < high``, of norm at most ``eps``.

    A point is a perturbation; it lies in the band exactly (up to rounding) and in the ball. Its image is
    ``clip(origin + point, 0, 1)``: where pixels are near 0 or 1, clipping adds small components outside the band. Scaling
    the perturbation until nothing has to be clipped would avoid them, but a single black or white pixel would scale it
    to zero. As the points themselves are not clipped, these components do not accumulate over the steps.

    Rounding to 8 bits adds components of all frequencies.

    For L2 a step and the projection are exact, as the band is a linear subspace. For Linf neither has a closed
    form: a step goes along the filtered sign of the filtered gradient. The projection is ``ROUNDS`` rounds of
    Dykstra's algorithm (Boyle and Dykstra 1986), which approaches the nearest point of ball and band; a result that is
    still too large is scaled.
    """

    norm: Literal["linf", "l2"]
    eps: float
    step_size: float
    low: float
    high: float
    shape: Shape = "circle"
    eight_bit: bool = False

    def filter(self, images: torch.Tensor) -> torch.Tensor:
        """The part of the images that lies in the band."""
        return band_pass(images, self.low, self.high, self.shape)

    def fit(self, delta: torch.Tensor) -> torch.Tensor:
        """A perturbation of the band, projected onto the ball within the band."""
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

    def vertex(self, origin: torch.Tensor, signs: torch.Tensor) -> torch.Tensor:
        return self.fit(self.filter(self.eps * signs))


#: Rounds of clipping and filtering of a Linf step within a band. Without them a third fewer samples are misclassified.
ROUNDS = 8


@dataclass(frozen=True)
class BandRegion:
    """The perturbations of a band around ``origin (N, C, H, W)``."""

    space: Band
    origin: torch.Tensor

    def image(self, point: torch.Tensor) -> torch.Tensor:
        image = (self.origin + point).clamp_(0, 1)
        s = self.space
        return nearest_within(image, self.origin, s.norm, s.eps) if s.eight_bit else image

    def step(self, point: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
        s = self.space
        # where a pixel is clipped, only a step towards the inside changes the image
        direction = steepest(s.filter(free_gradient(self.origin + point, gradient)), s.norm)
        if s.norm == "linf":
            direction = s.filter(direction)
        direction = direction / per_sample(_size(direction, s.norm).clamp_min(1e-12), direction)
        return s.fit(point.add(direction, alpha=s.step_size))

    def keep(self, which: torch.Tensor) -> BandRegion:
        return BandRegion(self.space, self.origin[which])


def _size(delta: torch.Tensor, norm: Norm) -> torch.Tensor:
    size: torch.Tensor = delta.flatten(1).abs().amax(dim=1) if norm == "linf" else length(delta).to(delta.dtype)
    return size


def sparse_sign(gradient: torch.Tensor, pixels: torch.Tensor) -> torch.Tensor:
    """The signs of the ``pixels (N,)`` largest gradients of each sample, rounded; of L1 norm 1."""
    flat = gradient.flatten(1)
    order = flat.abs().argsort(dim=1, descending=True, stable=True)
    rank = torch.arange(flat.shape[1], device=flat.device).expand_as(order)
    signs = torch.zeros_like(flat).scatter_(1, order, (rank < pixels.round()[:, None]).to(flat.dtype)) * flat.sign()
    return (signs / signs.abs().sum(dim=1, keepdim=True).clamp_min(1)).view_as(gradient)


def free_gradient(point: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    """The gradient, with zero for pixels that it would move out of [0, 1]."""
    clipped = ((point <= 0) & (gradient < 0)) | ((point >= 1) & (gradient > 0))
    return gradient.masked_fill(clipped, 0.0)


def laplace(uniform: torch.Tensor) -> torch.Tensor:
    """Standard Laplace noise, from uniform noise in [0, 1) of 24 bits; values from 0.5 give positive noise."""
    above = uniform >= 0.5
    size = torch.where(above, 2 * uniform - 1, 1 - 2 * uniform - 2.0**-23)
    return -torch.log1p(-size) * torch.where(above, 1.0, -1.0)


def random_start(
    origin: torch.Tensor, norm: Norm, eps: float, unit: torch.Tensor, direction: torch.Tensor | None
) -> torch.Tensor:
    """A point drawn uniformly from the eps-ball around ``origin``, clipped to [0, 1].

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
