"""Linear bounds by backward substitution."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from freqrobust.certificates._bounds import BoundCertificate

if TYPE_CHECKING:
    from freqrobust.certificates.bounds.propagation import Method


class CROWN(BoundCertificate):
    """Linear lower bounds ``a . x + c`` of the margins, by backward substitution.  (Zhang et al. 2018, sec. 3)

    A ReLU with input in ``[l, u]``, ``l < 0 < u``, is between ``alpha x`` and ``u (x - l) / (u - l)``, with ``alpha = 1`` if
    ``u >= -l`` and 0 otherwise (CROWN-Ada). Max pooling is at least the pixel with the largest lower bound, and at most a
    chord in the pixel with the largest upper bound. The minimum of the linear bound is exact for Linf within [0, 1]; for
    L2 it is that on the ball, ``a . x0 + c - eps ||a||_2``, or that on its bounding box, whichever is larger.

    With ``intermediate=crown`` the inputs of all ReLU and max pooling layers are bounded in the same way, and intersected
    with the intervals of ``ibp``: time and memory grow with the number of ReLUs whose sign is not determined. With
    ``intermediate=ibp`` only intervals are used (CROWN-IBP, Zhang et al. 2020), which is faster and looser. Either certifies
    all samples that ``ibp`` certifies. Rounding is treated as in ``ibp``.
    """

    intermediate: Literal["crown", "ibp"] = Field(
        "crown", description="bounds of the inputs of ReLU and max pooling layers"
    )

    def methods(self) -> list[Method]:
        return ["ibp", "crown-ibp", "crown"] if self.intermediate == "crown" else ["ibp", "crown-ibp"]

    @property
    def name_of_bounds(self) -> str:
        return "linear bounds (CROWN)" if self.intermediate == "crown" else "linear bounds (CROWN-IBP)"
