"""Learning-rate schedules."""

from __future__ import annotations

import math

from pydantic import Field, field_validator

from freqrobust.core.numbers import Number
from freqrobust.plugins.training import Schedule


class OneCycle(Schedule):
    """Linear increase from 0, then half a cosine down to 0.  (Smith and Topin 2018)"""

    warmup: float = Field(0.2, ge=0, lt=1, description="share of the training in which the rate increases")

    def factor(self, step: int, steps: int, per_epoch: int) -> float:
        done = (step + 1) / steps
        if done < self.warmup:
            return done / self.warmup
        return 0.5 * (1 + math.cos(math.pi * (done - self.warmup) / (1 - self.warmup)))


class Constant(Schedule):
    """The same learning rate throughout."""

    def factor(self, step: int, steps: int, per_epoch: int) -> float:
        return 1.0


class Step(Schedule):
    """Multiply the learning rate by gamma at each milestone.  (He et al. 2016, sec. 4.2)"""

    milestones: list[Number] = Field(
        [0.5, 0.75], min_length=1, description="shares of the training after which the rate changes"
    )
    gamma: Number = Field(0.1, gt=0, description="what the learning rate is multiplied by")

    @field_validator("milestones")
    @classmethod
    def _increasing(cls, milestones: list[float]) -> list[float]:
        if any(not 0 < share < 1 for share in milestones) or sorted(set(milestones)) != milestones:
            raise ValueError("should increase from above 0 to below 1, as in [0.5,0.75]")
        return milestones

    def factor(self, step: int, steps: int, per_epoch: int) -> float:
        # the tolerance is for products such as 0.7 * 10, which is a little more than 7
        return float(self.gamma ** sum(step >= share * steps - 1e-6 for share in self.milestones))


class Cosine(Schedule):
    """Half a cosine from the highest rate down to the lowest one, after a linear increase.  (Loshchilov and Hutter 2017, eq. 5)

    Without a warm-up, step k of n has the factor ``lowest + (1 - lowest) (1 + cos(pi k / n)) / 2``.
    """

    lowest: Number = Field(0.0, ge=0, le=1, description="last learning rate, as a share of the highest")
    warmup: Number = Field(0.0, ge=0, lt=1, description="share of the training in which the rate increases")

    def factor(self, step: int, steps: int, per_epoch: int) -> float:
        rising = self.warmup * steps
        if step < rising:
            return min(1.0, (step + 1) / rising)
        done = (step - rising) / (steps - rising)
        return self.lowest + (1 - self.lowest) * 0.5 * (1 + math.cos(math.pi * done))


class Exponential(Schedule):
    """Multiply the learning rate by a decay after every epoch.  (Zhang et al. 2017, appendix A, with 0.95)"""

    decay: Number = Field(0.95, gt=0, le=1, description="what the learning rate is multiplied by after every epoch")

    def factor(self, step: int, steps: int, per_epoch: int) -> float:
        return float(self.decay ** (step // per_epoch))
