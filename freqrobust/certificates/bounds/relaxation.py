"""Linear bounds of the nonlinear operations on an interval."""

from __future__ import annotations

import torch

from freqrobust.certificates.bounds.coefficients import Coefficients, Shape
from freqrobust.certificates.bounds.operations import Interval, MaxPool, ReLU

#: The sample of every row ``(P,)``, or the one sample of all rows.
Owner = torch.Tensor | int


def of_owner(values: torch.Tensor, owner: Owner) -> torch.Tensor:
    """Values ``(N, ...)`` for every row: ``(P, ...)``, or ``(1, ...)`` where all rows have the same sample."""
    return values[owner : owner + 1] if isinstance(owner, int) else values[owner]


class ReLULines:
    """``slope_low x <= max(x, 0) <= slope_up x + shift`` for ``l <= x <= u``.  (Zhang et al. 2018, sec. 3.3)

    Where ``l < 0 < u`` the upper line is the chord, ``slope_up = u / (u - l)`` and ``shift = -slope_up l``, and the slope of
    the lower line is 1 if ``u >= -l`` and 0 otherwise, which is the adaptive choice (CROWN-Ada). Elsewhere both lines are the
    function.
    """

    def __init__(self, interval: Interval) -> None:
        lower, upper = interval
        active, unstable = lower >= 0, (lower < 0) & (upper > 0)
        chord = upper / (upper - lower).clamp(min=torch.finfo(lower.dtype).tiny)
        self.up = torch.where(unstable, chord, active.to(lower.dtype))
        self.low = torch.where(unstable, (upper >= -lower).to(lower.dtype), self.up)
        self.shift = torch.where(unstable, -chord * lower, 0.0)

    def lower_bound(self, rows: Coefficients, owner: Owner) -> tuple[Coefficients, torch.Tensor]:
        """Coefficients of the input, and constants ``(P,)``, of a function that is at most ``rows . max(x, 0)``."""
        low, up, shift = (of_owner(rows.window(part), owner) for part in (self.low, self.up, self.shift))
        negative = rows.values.clamp(max=0)
        constant = (negative * shift).flatten(1).sum(1)
        return Coefficients(rows.values.clamp(min=0) * low + negative * up, rows.origin), constant


class MaxPoolLines:
    """``x_i <= max x <= c + slope (x_j - l_j)`` for every window, with ``l <= x <= u``.

    ``i`` has the largest lower bound and ``j`` the largest upper bound. ``c`` is the larger one of ``l_j`` and of the upper
    bounds of all others; ``max(x_j, c)``, which is convex in ``x_j``, is at most its chord on ``[l_j, u_j]``, whose slope is
    ``(u_j - c) / (u_j - l_j)``. With ``c = l_j`` the maximum is ``x_j`` itself.
    """

    def __init__(self, pool: MaxPool, interval: Interval, in_shape: Shape) -> None:
        lower, upper = interval
        self.in_shape, self.out_shape = in_shape, pool.out_shape
        self.low_index, _, _ = pool.two_largest(lower)
        self.up_index, largest, second = pool.two_largest(upper)
        own_lower = lower.flatten(2).gather(2, self.up_index.flatten(2)).view_as(largest)
        constant = torch.maximum(second, own_lower)
        width = (largest - own_lower).clamp(min=torch.finfo(lower.dtype).tiny)
        self.slope = ((largest - constant) / width).clamp(0, 1)
        self.shift = constant - self.slope * own_lower

    def lower_bound(self, rows: Coefficients, owner: Owner) -> tuple[Coefficients, torch.Tensor]:
        """Coefficients of the input, and constants ``(P,)``, of a function that is at most ``rows . max x``."""
        values = rows.dense(self.out_shape)
        negative, positive = values.clamp(max=0), values.clamp(min=0)
        plane = values.new_zeros(*values.shape[:2], self.in_shape[1] * self.in_shape[2])
        for part, index in (
            (positive, self.low_index),
            (negative * of_owner(self.slope, owner), self.up_index),
        ):
            plane.scatter_add_(2, of_owner(index, owner).expand_as(part).flatten(2), part.flatten(2))
        constant = (negative * of_owner(self.shift, owner)).flatten(1).sum(1)
        return Coefficients(plane.view(len(values), *self.in_shape)), constant


def lines(operation: ReLU | MaxPool, interval: Interval) -> ReLULines | MaxPoolLines:
    """Linear bounds of an operation whose input is in ``interval``."""
    if isinstance(operation, MaxPool):
        return MaxPoolLines(operation, interval, tuple(interval.lower.shape[1:]))
    return ReLULines(interval)
