"""What the methods that train on examples of PGD share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field, model_validator

from freqrobust.core.numbers import Count, Number, pixel_text
from freqrobust.numerics.threat import StepNorm, check_eps
from freqrobust.plugins.training import Batch, StepContext, TrainingMethod

if TYPE_CHECKING:
    import torch
    from torch import nn

    from freqrobust.attacks.gradient.regions import Ball
    from freqrobust.numerics.losses import LossFunction


class MultiStepMethod(TrainingMethod):
    """Trains on examples of projected gradient ascent; a subclass says which loss it ascends and which it minimises."""

    eps: Number = Field(8 / 255, ge=0, description="perturbation budget of the training attack")
    norm: StepNorm = Field("linf", description="norm of the budget")
    steps: Count = Field(10, description="gradient steps of the training attack")
    step_size: Number | None = Field(None, gt=0, description="step size of the training attack; default as for pgd")

    @model_validator(mode="after")
    def _eps_in_pixels(self) -> Any:
        check_eps(self.norm, self.eps)
        return self

    def ball(self) -> Ball:
        """The eps-ball with the steps of ``pgd``."""
        from freqrobust.attacks.pgd import PGD

        return PGD(eps=self.eps, norm=self.norm, steps=self.steps, step_size=self.step_size).space()

    def random_start(self, batch: Batch, context: StepContext) -> torch.Tensor:
        """Points drawn uniformly from the ball, new in every epoch."""
        return self.ball().random_point(batch.images, context.attack_context(), "pgd start 0")

    def examples(self, model: nn.Module, batch: Batch, start: torch.Tensor, loss: LossFunction) -> torch.Tensor:
        """The images after ``steps`` steps of ascent on a loss, each one forward and backward pass of ``model``."""
        from freqrobust.attacks.gradient.ascent import Ascent, ascend

        return ascend(model, start, batch.images, batch.labels, None, Ascent(self.ball(), self.steps, loss))

    def probes(self) -> list[str]:
        return [f"pgd:eps={pixel_text(self.eps)},norm={self.norm},steps=10"]
