"""Randomized smoothing as a voting classifier."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from freqrobust.core.numbers import Count, Number
from freqrobust.plugins.base import Defense

if TYPE_CHECKING:
    from torch import nn

    from freqrobust.plugins.context import DefenseContext


class RandomizedSmoothing(Defense):
    """Predict the majority class over noisy copies of the image.  (Cohen et al. 2019, sec. 3.2.1, without abstention)

    Votes have no gradient; attacks use the mean softmax of the copies instead (Salman et al. 2019, eq. 6).
    """

    stochastic: ClassVar[bool] = True
    differentiable: ClassVar[bool] = False

    sigma: Number = Field(0.12, gt=0, description="standard deviation of the noise")
    copies: Count = Field(16, description="number of noisy copies")

    def apply(self, model: nn.Module, context: DefenseContext) -> nn.Module:
        from freqrobust.defenses._ensembles import NoisyCopies

        return NoisyCopies(model, self.sigma, self.copies, soft=False)

    def smoothing_sigma(self) -> float | None:
        return self.sigma

    def surrogate(self, model: Any) -> Any:
        from freqrobust.defenses._ensembles import NoisyCopies

        return NoisyCopies(model, self.sigma, self.copies, soft=True)
