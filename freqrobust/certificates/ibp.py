"""Interval bound propagation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from freqrobust.certificates._bounds import BoundCertificate

if TYPE_CHECKING:
    from freqrobust.certificates.bounds.propagation import Method


class IBP(BoundCertificate):
    """Intervals of all layers: ``W m + b +- |W| r`` for inputs ``m +- r``.  (Gowal et al. 2018, sec. 3)

    The margins ``z_y - z_j`` are bounded directly, with the affine layers at the end merged with the differences. Fast, and
    loose for networks that were not trained for it. For L2 the first affine layers have the exact minimum on the ball or
    on its bounding box, whichever is larger.

    The bounds are computed in float64 and are sound up to floating-point rounding. A sample is certified where all of its
    margins exceed 1e-5 times one plus its largest absolute logit, and ten times the difference between its logits in
    float32 and in float64; the budget includes the 1e-6 by which measured perturbations may exceed it.
    """

    def methods(self) -> list[Method]:
        return ["ibp"]

    @property
    def name_of_bounds(self) -> str:
        return "interval bound propagation"
