"""Images whose pixels are multiples of 1/255, as files of 8 bits contain them."""

from __future__ import annotations

import torch

from freqrobust.numerics.norms import _precise
from freqrobust.numerics.threat import Norm

#: The largest level of a pixel.
LEVELS = 255
#: How far a value may be from a level, or from the edge of the budget, in levels: values are in float32.
SLACK = 1e-4


def nearest(images: torch.Tensor) -> torch.Tensor:
    """The images ``(N, C, H, W)`` in [0, 1] with every pixel rounded to the nearest multiple of 1/255."""
    return (images.clamp(0, 1) * LEVELS).round() / LEVELS


def nearest_within(images: torch.Tensor, origin: torch.Tensor, norm: Norm, eps: float) -> torch.Tensor:
    """The images, which are within the budget, with pixels that are multiples of 1/255 and still within the budget.

    For Linf every pixel becomes the nearest level ``k / 255`` with ``|k / 255 - origin| <= eps``. For L2 and L1 it becomes
    the nearest level; of a sample that exceeds the budget then, the pixels that rounding moved away from the origin are
    rounded towards it instead, those that moved by the most first, until the budget is kept. A pixel without such a
    level keeps the value of the origin, as does one whose level is that of the origin: a clean image from an 8-bit file
    is not changed by rounding.

    Args:
        images: within the budget and in [0, 1], ``(N, C, H, W)``.
        origin: the clean images.
        norm: of the budget.
        eps: the budget.
    """
    levels = (images * LEVELS).round()
    if norm == "linf":
        low = ((origin - eps).clamp_min(0) * LEVELS - SLACK).ceil()
        high = ((origin + eps).clamp_max(1) * LEVELS + SLACK).floor()
        levels = torch.minimum(torch.maximum(levels, low), high)
        return torch.where(low > high, origin, _values(levels, origin))
    found = _values(levels, origin)
    excess = _total(found - origin, norm) - eps ** (2 if norm == "l2" else 1)
    if not bool((excess > 0).any()):
        return found
    inwards = torch.where(images > origin, (images * LEVELS + SLACK).floor(), (images * LEVELS - SLACK).ceil())
    inside = _values(inwards, origin)
    passed = (inside - origin) * (images - origin) <= 0  # there is no level between the origin and the image
    inside = torch.where(passed, origin, inside)
    saved = _sizes(found - origin, norm) - _sizes(inside - origin, norm)
    moved = torch.where(saved > 0, (found - images).flatten(1).abs().to(saved.dtype), -1)
    order = moved.argsort(dim=1, descending=True, stable=True)
    before = saved.clamp_min(0).gather(1, order).cumsum(dim=1) - saved.clamp_min(0).gather(1, order)
    back = torch.zeros_like(moved, dtype=torch.bool)
    back.scatter_(1, order, (before < excess[:, None]) & (excess[:, None] > 0))
    return torch.where(back.view_as(found) & (saved > 0).view_as(found), inside, found)


def _values(levels: torch.Tensor, origin: torch.Tensor) -> torch.Tensor:
    """Pixels of these levels; those with the level of the origin are the origin's, whose last bits may differ."""
    same = (origin * LEVELS - levels).abs() <= SLACK
    return torch.where(same, origin, levels / LEVELS)


def _sizes(delta: torch.Tensor, norm: Norm) -> torch.Tensor:
    """What every pixel contributes to the norm (for L2 to its square), ``(N, D)``, in float64 where there is one."""
    flat = delta.flatten(1).to(_precise(delta))
    return flat.square() if norm == "l2" else flat.abs()


def _total(delta: torch.Tensor, norm: Norm) -> torch.Tensor:
    return _sizes(delta, norm).sum(dim=1)
