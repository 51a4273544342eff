"""The candidates of the Square Attack: perturbations that change in one random square.

Images are ``(N, C, H, W)``. The random numbers of a candidate are uniform in [0, 1), ``(N, numbers)``: every sample has
its own square, so that no sample depends on the batch that it is in.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, Protocol

import torch

from freqrobust.numerics.norms import per_sample, project
from freqrobust.numerics.threat import Norm
from freqrobust.plugins.context import AttackContext

#: Queries after which the share of the pixels that a square covers is halved (section 5.1, for 10,000 queries).
HALVED_AFTER = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
#: Tiles along the shorter side of the initial perturbation for L2 and L1.
TILES = 5


class Candidates(Protocol):
    """How images are initialised and changed under one threat."""

    @property
    def numbers(self) -> int:
        """Random numbers that a candidate takes."""

    def start(self, context: AttackContext) -> torch.Tensor:
        """The initial images."""

    def propose(self, best: torch.Tensor, numbers: torch.Tensor, p: float) -> torch.Tensor:
        """Images within the threat that differ from the best ones in a square that covers a share ``p`` of the pixels."""

    def keep(self, which: torch.Tensor) -> Candidates:
        """The candidates of a subset of the samples."""


def candidates(images: torch.Tensor, norm: Norm, eps: float) -> Candidates:
    """The candidates around these images for a threat."""
    if norm == "linf":
        return LinfCandidates(images, (images - eps).clamp_(0, 1), (images + eps).clamp_(0, 1))
    return LpCandidates(images, norm, eps)


def share(query: int, p_init: float) -> float:
    """The share ``p`` of the pixels that the square of a query covers, ``p_init`` at first."""
    return float(p_init / 2 ** sum(query > after for after in HALVED_AFTER))


def _corner(numbers: torch.Tensor, length: int, side: int) -> torch.Tensor:
    """The first row or column of a square, uniform in ``{0, ..., length - side}``, int64 ``(N,)``."""
    return (numbers * (length - side + 1)).long()


@dataclass(frozen=True)
class LinfCandidates:
    """Linf (section 4.2, algorithm 2): every pixel is at one end of the interval that it may be in.

    The initial perturbation has vertical stripes of width 1. In a square each colour is changed by ``-2 eps`` or
    ``2 eps``; projected onto the ball and [0, 1], it is then at the lower or the upper end.
    """

    images: torch.Tensor
    low: torch.Tensor
    high: torch.Tensor

    @property
    def numbers(self) -> int:
        return 2 + self.images.shape[1]

    def start(self, context: AttackContext) -> torch.Tensor:
        up = context.uniform((self.images.shape[1], 1, self.images.shape[3]), "square start") >= 0.5
        return torch.where(up, self.high, self.low)

    def propose(self, best: torch.Tensor, numbers: torch.Tensor, p: float) -> torch.Tensor:
        height, width = best.shape[2:]
        side = max(1, min(round(math.sqrt(p * height * width)), height, width))
        rows = torch.arange(height, device=best.device) - _corner(numbers[:, :1], height, side)
        columns = torch.arange(width, device=best.device) - _corner(numbers[:, 1:2], width, side)
        inside = ((rows >= 0) & (rows < side))[:, None, :, None] & ((columns >= 0) & (columns < side))[:, None, None, :]
        up = (numbers[:, 2:] >= 0.5)[:, :, None, None]
        return torch.where(inside, torch.where(up, self.high, self.low), best)

    def keep(self, which: torch.Tensor) -> LinfCandidates:
        return LinfCandidates(self.images[which], self.low[which], self.high[which])


@dataclass(frozen=True)
class LpCandidates:
    """L2 (section 4.3, algorithm 3): the budget of two squares, and what is unused of it, moves into the first of them.

    With ``nu`` the perturbation, ``W1`` and ``W2`` two random squares of the same size and ``eta`` the unit pattern of
    :func:`two_peaks`, each colour ``i`` has a budget ``(|nu_i|_p^p over W1 and W2 + (eps^p - |nu|_p^p) / C)^(1/p)``. It
    is spent in W1, along ``+-eta + nu_i / |nu_i|_p``; W2 becomes zero. The result is projected.

    For L1 the norm is L1 in all of this, and perturbations are ``C`` times as long before they are projected exactly onto
    the intersection of the ball and [0, 1]: the projection takes the same amount from all pixels, and so leaves
    sparse perturbations of full length (Croce and Hein 2021, "Mind the box").
    """

    images: torch.Tensor
    norm: Literal["l2", "l1"]
    eps: float

    @property
    def order(self) -> int:
        return 2 if self.norm == "l2" else 1

    @property
    def numbers(self) -> int:
        return 5 + self.images.shape[1]

    def _size(self, values: torch.Tensor) -> torch.Tensor:
        return values.norm(p=self.order, dim=-1, keepdim=True)

    def _within(self, delta: torch.Tensor) -> torch.Tensor:
        delta = delta.view_as(self.images) * (self.images.shape[1] if self.norm == "l1" else 1)
        return project(self.images + delta, self.images, self.norm, self.eps)

    def start(self, context: AttackContext) -> torch.Tensor:
        _, channels, height, width = self.images.shape
        side = max(1, min(height, width) // TILES)
        down, across = height // side, width // side
        drawn = context.uniform((channels + 1, down, across), "square start")[..., None, None] >= 0.5
        pattern = two_peaks(side, self.order, str(self.images.device))
        tiles = torch.where(drawn[:, :1], pattern, pattern.T) * torch.where(drawn[:, 1:], 1.0, -1.0)
        delta = torch.zeros_like(self.images)
        top, left = (height - down * side) // 2, (width - across * side) // 2
        area = delta[:, :, top : top + down * side, left : left + across * side]
        area.copy_(tiles.transpose(3, 4).reshape(area.shape))
        return self._within(delta * (self.eps / per_sample(self._size(delta.flatten(1))[:, 0], delta)))

    def propose(self, best: torch.Tensor, numbers: torch.Tensor, p: float) -> torch.Tensor:
        n, channels, height, width = best.shape
        side = max(3, round(math.sqrt(p * height * width)))
        side = min(side + 1 - side % 2, height, width)
        delta = (best - self.images).flatten(2)
        free = (self.eps**self.order - self._size(delta.flatten(1)) ** self.order).clamp_min(0) / channels
        first, second = (
            _pixels(_corner(numbers[:, i], height, side), _corner(numbers[:, i + 1], width, side), side, width)
            .view(n, 1, -1)
            .expand(-1, channels, -1)
            for i in (0, 2)
        )
        old = delta.gather(2, first)
        budget = self._size(old) ** self.order + free[:, :, None]
        delta = delta.scatter_(2, first, 0.0)
        budget = (budget + self._size(delta.gather(2, second)) ** self.order) ** (1 / self.order)
        delta = delta.scatter_(2, second, 0.0)
        pattern = two_peaks(side, self.order, str(best.device))
        turned = torch.where((numbers[:, 4] >= 0.5)[:, None, None], pattern, pattern.T).reshape(n, 1, -1)
        sign = torch.where(numbers[:, 5:] >= 0.5, 1.0, -1.0)[:, :, None]
        new = sign * turned + old / self._size(old).clamp_min(1e-12)
        new = new * (budget / self._size(new).clamp_min(1e-12))
        return self._within(delta.scatter_(2, first, new))

    def keep(self, which: torch.Tensor) -> LpCandidates:
        return LpCandidates(self.images[which], self.norm, self.eps)


def _pixels(top: torch.Tensor, left: torch.Tensor, side: int, width: int) -> torch.Tensor:
    """Positions of the pixels of squares in the flattened image, int64 ``(N, side, side)``."""
    offsets = torch.arange(side, device=top.device)
    return (top[:, None] + offsets)[:, :, None] * width + (left[:, None] + offsets)[:, None, :]


@lru_cache(maxsize=64)
def two_peaks(side: int, order: int, device: str) -> torch.Tensor:
    """A positive and a negative peak next to each other, ``(side, side)``, of norm 1 (section 4.3, eq. 2).

    The peak of a rectangle ``h1 x h2`` is ``sum_{k=0}^{M} 1 / (n + 1 - k)^2`` at a pixel, with ``n`` half of its longer
    side, rounded down, and ``M = n - d`` for a pixel at the Chebyshev distance ``d`` from the centre: highest at the centre.
    For L1 the exponent is 4 instead of 2, so that peaks are sparser.
    """
    pattern = torch.cat([-_peak(side // 2, side, 2 * (3 - order)), _peak(side - side // 2, side, 2 * (3 - order))])
    return (pattern / pattern.norm(p=order)).float().to(device)


def _peak(height: int, width: int, exponent: int) -> torch.Tensor:
    """The peak of a rectangle, float64 ``(height, width)``."""
    n = max(height, width) // 2
    rows = (torch.arange(height) - height // 2).abs()
    columns = (torch.arange(width) - width // 2).abs()
    distance = torch.maximum(rows[:, None], columns)
    terms = torch.arange(1, n + 2, dtype=torch.float64) ** -exponent
    return terms.flip(0).cumsum(0).flip(0)[distance]
