"""Learning-rate schedules."""

from __future__ import annotations

import math

from pydantic import Field

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
