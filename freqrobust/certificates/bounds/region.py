"""The inputs that a bound is about: an eps-ball, within [0, 1]."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from freqrobust.certificates.bounds.coefficients import Coefficients
from freqrobust.certificates.bounds.operations import Interval
from freqrobust.certificates.bounds.relaxation import Owner, of_owner

BoundNorm = Literal["linf", "l2"]


@dataclass(frozen=True)
class Region:
    """All ``x`` in [0, 1] with ``||x - x0|| <= eps``, for every image ``x0`` of a batch ``(N, C, H, W)``."""

    images: torch.Tensor
    eps: float
    norm: BoundNorm

    @property
    def box(self) -> Interval:
        """The smallest box that contains it."""
        return Interval((self.images - self.eps).clamp(min=0), (self.images + self.eps).clamp(max=1))

    def minimum(self, rows: Coefficients, owner: Owner) -> torch.Tensor:
        """A lower bound of ``rows . x``, ``(P,)``: exact for Linf, and for L2 the better one of two bounds.

        With ``c`` and ``r`` the centre and the half widths of the box, the minimum on the box is ``a . c - |a| . r``; the
        minimum on the L2 ball is ``a . x0 - eps ||a||_2``.
        """
        lower, upper = (of_owner(rows.window(bound), owner) for bound in self.box)
        values = rows.values
        found = (values.clamp(min=0) * lower + values.clamp(max=0) * upper).flatten(1).sum(1)
        if self.norm == "l2":
            at = (values * of_owner(rows.window(self.images), owner)).flatten(1).sum(1)
            found = torch.maximum(found, at - self.eps * values.flatten(1).norm(dim=1))
        return found

    def minimum_for_all(self, rows: Coefficients) -> torch.Tensor:
        """The same for every row and every sample, ``(P, N)``."""
        values = rows.values.flatten(1)
        lower, upper = (rows.window(bound).flatten(1) for bound in self.box)
        found = values.clamp(min=0) @ lower.T + values.clamp(max=0) @ upper.T
        if self.norm == "l2":
            at = values @ rows.window(self.images).flatten(1).T
            found = torch.maximum(found, at - self.eps * values.norm(dim=1, keepdim=True))
        return found
