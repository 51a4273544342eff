"""Post-averaging of predictions around the input."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from freqrobust.core.numbers import Count, Number
from freqrobust.plugins.base import Defense

if TYPE_CHECKING:
    from torch import nn

    from freqrobust.plugins.context import DefenseContext


class PostAveraging(Defense):
    """Average the softmax over the image and points along K directions, at +-r/3, +-2r/3 and +-r.  (Lin et al. 2019, sec. 3)

    ``random`` draws new directions, seeded by sample, at every prediction. ``approx`` uses the input gradients of
    those units of the last linear layer whose outputs are closest to zero relative to their weights.
    """

    stochastic: ClassVar[bool] = True

    sampling: Literal["random", "approx"] = Field("random", description="how directions are chosen")
    directions: Count = Field(6, description="number of directions K")
    radius: Number = Field(2.0, gt=0, description="largest L2 distance r from the image")

    def apply(self, model: nn.Module, context: DefenseContext) -> nn.Module:
        from freqrobust.defenses._ensembles import PostAverage

        return PostAverage(model, self.sampling, self.directions, self.radius)
