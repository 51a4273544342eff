"""What gradient attacks of many steps share: their fields, and how they are run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, model_validator

from freqrobust.core.errors import PluginError
from freqrobust.core.numbers import MOST, Count, Number
from freqrobust.numerics.threat import StepNorm, check_eps
from freqrobust.plugins.base import Attack

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch
    from torch import nn

    from freqrobust.attacks.gradient.regions import Space
    from freqrobust.attacks.gradient.stages import Stage
    from freqrobust.numerics.losses import LossFunction
    from freqrobust.plugins.context import AttackContext


class GradientAttack(Attack):
    """Projected gradient ascent on a loss, in the runs that a subclass defines."""

    averages_draws: ClassVar[bool] = True
    any_criterion: ClassVar[bool] = True
    #: names the random numbers of the initialisations
    stream: ClassVar[str] = "pgd"

    eps: Number = Field(8 / 255, ge=0, description="budget, in the norm's unit; 8/255 is accepted")
    norm: StepNorm = Field("linf", description="norm of the budget")
    steps: Count = Field(20, description="gradient steps per restart")
    restarts: Count = Field(1, description="number of independent initialisations")
    random_start: bool = Field(True, description="start at a random point of the ball; otherwise at the clean image")
    loss: Literal["ce", "dlr", "margin", "pm"] = Field(
        "ce",
        description="loss to maximise; ce is replaced by the loss of the criterion if that is not misclassification",
    )
    eot: int | None = Field(
        None,
        ge=1,
        le=MOST,
        description="random draws averaged in every step; default 1, or 10 if the defense is stochastic",
    )

    @model_validator(mode="after")
    def _check(self) -> Any:
        check_eps(self.norm, self.eps)
        if self.restarts > 1 and not self.random_start:
            raise ValueError("restarts > 1 need random_start=true: otherwise every restart is the same")
        return self

    def eot_used(self, eot: int) -> int:
        """The parameter ``eot`` if it is given, else what the harness asks for."""
        return self.eot or eot

    def space(self) -> Space:
        """The set of allowed examples, with its steps and projection."""
        raise PluginError(f"{type(self).__name__} does not implement space()")

    def stages(self, context: AttackContext) -> Sequence[Stage]:
        """The runs, in their order."""
        raise PluginError(f"{type(self).__name__} does not implement stages()")

    def common_loss(self, context: AttackContext) -> LossFunction:
        """The loss by which examples of runs with different losses or targets are compared."""
        from freqrobust.attacks.gradient.ascent import loss_for

        return loss_for(context.criterion, self.loss, default=type(self).model_fields["loss"].default)

    def perturb(
        self, model: nn.Module, images: torch.Tensor, labels: torch.Tensor, context: AttackContext
    ) -> torch.Tensor:
        from freqrobust.attacks.gradient.stages import run_to_maximum, run_until_adversarial

        stages = self.stages(context)
        if context.goal == "maximize":
            return run_to_maximum(model, images, labels, context, stages, self.common_loss(context))
        return run_until_adversarial(model, images, labels, context, stages)

    def start(self, images: torch.Tensor, context: AttackContext, number: int) -> torch.Tensor:
        """The initial points of a run: the clean images, or random; the first from the signs of a sweep's last cell."""
        space = self.space()
        if not self.random_start:
            return space.origin_point(images)
        if context.initial_signs is not None and number == 0:
            return space.vertex(images, context.initial_signs)
        return space.random_point(images, context, f"{self.stream} start {number}")


class IterativeGradientAttack(GradientAttack):
    """Projected gradient ascent with steps of one size, in the space that a subclass defines."""

    step_size: Number | None = Field(
        None, gt=0, description="step size in the norm; default 2.5 * eps / steps, or 5 * eps / steps for L1"
    )
    target: Literal["none", "least-likely", "next", "random"] = Field(
        "none", description="class whose loss is minimised instead; none: an untargeted attack"
    )

    def resolved_params(self) -> dict[str, Any]:
        """The parameters whose defaults depend on others."""
        factor = 5.0 if self.norm == "l1" else 2.5  # for L1 the projection takes back more, spread over many pixels
        return {"step_size": self.step_size if self.step_size is not None else factor * self.eps / self.steps}

    def stages(self, context: AttackContext) -> Sequence[Stage]:
        from freqrobust.attacks.gradient.ascent import Ascent, loss_for
        from freqrobust.attacks.gradient.stages import Stage

        targeted = self.target != "none"
        loss = loss_for(context.criterion, self.loss, targeted)
        ascent = Ascent(self.space(), self.steps, loss, self.eot_used(context.eot))
        return [Stage(ascent, self.start, self.restarts, self._targets if targeted else None)]

    def _targets(
        self, model: nn.Module, images: torch.Tensor, labels: torch.Tensor, context: AttackContext
    ) -> torch.Tensor:
        import torch

        with torch.no_grad():
            logits: torch.Tensor = model(images)
        classes = logits.shape[1]
        if self.target == "next":
            targets = (labels + 1) % classes
        elif self.target == "random":
            targets = (labels + 1 + (context.uniform((1,), "pgd target")[:, 0] * (classes - 1)).long()) % classes
        else:
            targets = logits.scatter(1, labels[:, None], float("inf")).argmin(dim=1)
        return targets[:, None]
