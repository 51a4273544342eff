"""Norms and projections of image perturbations ``(N, C, H, W)``."""

from __future__ import annotations

from typing import Literal

import torch

from freqrobust.numerics.threat import Norm, StepNorm

#: The dual of each norm.
_DUAL: dict[Norm, Norm] = {"linf": "l1", "l2": "l2", "l1": "linf"}


def per_sample(values: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """``(N,)`` values shaped to broadcast over ``like (N, ...)``."""
    return values.view(-1, *([1] * (like.dim() - 1)))


def norms(delta: torch.Tensor, norm: Norm) -> torch.Tensor:
    """The norm of every sample's perturbation, ``(N,)``; L2 is summed in float64."""
    flat = delta.flatten(1)
    if flat.shape[0] == 0:
        return delta.new_zeros(0)
    if norm == "l1":
        return flat.abs().sum(dim=1, dtype=_precise(flat)).float()
    return flat.abs().amax(dim=1) if norm == "linf" else length(flat).float()


def _precise(values: torch.Tensor) -> torch.dtype:
    """float64 where the device has it: sums of many small numbers would lose digits in float32."""
    return torch.float32 if values.device.type == "mps" else torch.float64


def length(delta: torch.Tensor) -> torch.Tensor:
    """Euclidean length of every sample, ``(N,)``, in float64 where the device has it."""
    found: torch.Tensor = torch.linalg.vector_norm(delta.flatten(1), dim=1, dtype=_precise(delta))
    return found


def dual_norms(gradient: torch.Tensor, norm: Norm) -> torch.Tensor:
    """How much a linear function of this gradient grows for a perturbation of norm 1: its dual norm, ``(N,)``."""
    return norms(gradient, _DUAL[norm])


def steepest(gradient: torch.Tensor, norm: Literal["linf", "l2"]) -> torch.Tensor:
    """The direction of length 1 (in ``norm``) along which a linear function of this gradient grows most.

    For L1 see :func:`farthest_l1`: there the box matters for the direction.
    """
    if norm == "linf":
        return gradient.sign()
    # scaled first: squares of small gradients would underflow
    scaled = gradient / per_sample(gradient.flatten(1).abs().amax(dim=1).clamp_min(1e-38), gradient)
    return scaled / per_sample(scaled.flatten(1).norm(dim=1).clamp_min(1e-12), scaled)


def project(images: torch.Tensor, origin: torch.Tensor, norm: StepNorm, eps: float | torch.Tensor) -> torch.Tensor:
    """The image in [0, 1] and in the eps-ball around ``origin`` that a step lands on.

    ``eps`` is one number, or one for each sample, ``(N,)``; it may be infinite. For Linf and L1 this is the exact
    projection onto the intersection of ball and box. For L2 the perturbation is scaled into the ball and then clipped to
    [0, 1]; clipping only shortens it, as the origin is in [0, 1].
    """
    if norm == "linf":
        reach = per_sample(eps, origin) if isinstance(eps, torch.Tensor) else eps
        return torch.minimum(torch.maximum(images, origin - reach), origin + reach).clamp_(0, 1)
    delta = images - origin
    if norm == "l1":
        return move(origin, _nearest_l1(delta, origin, eps))
    scale = (eps / length(delta).clamp_min(1e-12)).clamp_max(1.0)
    delta = delta * per_sample(scale.to(delta.dtype), delta)
    return (origin + delta).clamp_(0, 1)


def _nearest_l1(delta: torch.Tensor, origin: torch.Tensor, eps: float | torch.Tensor) -> torch.Tensor:
    """The nearest perturbation with L1 norm at most ``eps`` that keeps ``origin`` in [0, 1], in float64.

    With ``room_i`` the way from the origin to the wall that ``delta_i`` points at, it is
    ``sign(delta_i) * min(max(|delta_i| - s, 0), room_i)`` for the smallest ``s >= 0`` that meets the budget (Croce and
    Hein 2021, "Mind the box"). Its norm is piecewise linear in ``s``,
    ``sum_i max(|delta_i| - s, 0) - max(|delta_i| - room_i - s, 0)``, so that ``s`` follows from sorting where it bends.
    """
    wanted = delta.flatten(1).to(_precise(delta))
    if isinstance(eps, torch.Tensor):
        eps = eps.to(wanted.dtype)[:, None]
    start = origin.flatten(1).to(wanted.dtype)
    size, room = wanted.abs(), torch.where(wanted > 0, 1 - start, start)
    # beyond the larger of two walls nothing bends; negative s is not looked for
    bends, order = torch.cat([size, size - room], dim=1).clamp_min(0).sort(dim=1, descending=True, stable=True)
    slopes = torch.cat([torch.ones_like(size), -torch.ones_like(size)], dim=1).gather(1, order)
    slope, weight = slopes.cumsum(dim=1), (slopes * bends).cumsum(dim=1)
    below = weight - bends * slope < eps  # the norm at each bend; grows as s falls
    last = (below.sum(dim=1, keepdim=True) - 1).clamp_min(0)
    fall = slope.gather(1, last)
    shift = torch.where(fall > 0, (weight.gather(1, last) - eps) / fall.clamp_min(1), bends.gather(1, last))
    inside = torch.minimum(size, room).sum(dim=1, keepdim=True) <= eps
    shift = torch.where(inside, 0, shift.clamp_min(0))
    return (wanted.sign() * torch.minimum((size - shift).clamp_min(0), room)).view_as(delta)


def farthest_l1(
    gradient: torch.Tensor, origin: torch.Tensor, eps: float | torch.Tensor, most: float | torch.Tensor = 1.0
) -> torch.Tensor:
    """The image in the L1 ball around ``origin`` and in [0, 1] at which a linear function of this gradient is largest.

    Pixels move in the order of ``|gradient|``, each to its wall, until the budget is spent (Croce and Hein 2021, "Mind
    the box"). With ``most < 1`` no pixel moves farther than that: more of them share the budget.
    """
    slope, start = gradient.flatten(1), origin.flatten(1).to(_precise(origin))
    room = torch.where(slope > 0, 1 - start, start).clamp_max(most) * (slope != 0)
    order = slope.abs().argsort(dim=1, descending=True, stable=True)
    wanted = room.gather(1, order)
    moved = torch.minimum(wanted, (eps - wanted.cumsum(dim=1) + wanted).clamp_min(0))
    delta = torch.zeros_like(room).scatter_(1, order, moved) * slope.sign()
    return move(origin, delta.view_as(origin))


def reach_of(gradient: torch.Tensor, origin: torch.Tensor, norm: Norm, gain: torch.Tensor) -> torch.Tensor:
    """How far from ``origin`` a linear function of this gradient has grown by ``gain (N,)``, at the least, ``(N,)``.

    For Linf and L2 it is ``gain / ||gradient||_*`` (dual norm), without regard to [0, 1]. For L1 it is exact in [0, 1],
    in the order of :func:`farthest_l1`; where the function cannot grow so much there, it is the number of pixels, which
    is farther than any image.
    """
    if norm != "l1":
        return gain / dual_norms(gradient, norm).clamp_min(1e-30)
    slope, start = gradient.flatten(1).to(_precise(origin)), origin.flatten(1).to(_precise(origin))
    steep, order = slope.abs().sort(dim=1, descending=True, stable=True)
    room = torch.where(slope > 0, 1 - start, start).gather(1, order)
    grown = (steep * room).cumsum(dim=1)
    last = (grown < gain[:, None]).sum(dim=1, keepdim=True).clamp_max(steep.shape[1] - 1)  # the pixel that reaches it
    missing = gain[:, None] - (grown - steep * room).gather(1, last)
    far = (room.cumsum(dim=1) - room).gather(1, last) + missing / steep.gather(1, last).clamp_min(1e-30)
    reached = grown[:, -1] >= gain
    return torch.where(reached, far[:, 0], float(steep.shape[1])).to(gain.dtype)


def move(origin: torch.Tensor, delta: torch.Tensor) -> torch.Tensor:
    """``origin + delta`` in the origin's precision, rounded towards the origin.

    Rounding to the nearest would lengthen the sum of many small changes beyond an L1 budget.
    """
    moved = (origin.to(delta.dtype) + delta).to(origin.dtype).clamp_(0, 1)
    too_far = (moved.to(delta.dtype) - origin.to(delta.dtype)).abs() > delta.abs()
    return torch.where(too_far, torch.nextafter(moved, origin), moved)
