"""Iterative gradient attacks, without the space of their examples."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, model_validator

from freqrobust.core.errors import PluginError
from freqrobust.core.numbers import MOST, Count, Number
from freqrobust.numerics.threat import StepNorm, check_eps
from freqrobust.plugins.base import Attack

if TYPE_CHECKING:
    import torch
    from torch import nn

    from freqrobust.attacks.gradient.regions import Space
    from freqrobust.plugins.context import AttackContext


class IterativeGradientAttack(Attack):
    """Projected gradient ascent on a loss, in the space that a subclass defines."""

    averages_draws: ClassVar[bool] = True
    any_criterion: ClassVar[bool] = True

    eps: Number = Field(8 / 255, ge=0, description="budget, in the norm's unit; 8/255 is accepted")
    norm: StepNorm = Field("linf", description="norm of the budget")
    steps: Count = Field(20, description="gradient steps per restart")
    step_size: Number | None = Field(
        None, gt=0, description="step size in the norm; default 2.5 * eps / steps, or 5 * eps / steps for L1"
    )
    restarts: Count = Field(1, description="number of independent initialisations")
    random_start: bool = Field(True, description="start at a random point of the ball; otherwise at the clean image")
    loss: Literal["ce", "dlr", "margin"] = Field(
        "ce",
        description="loss to maximise; ce is replaced by the loss of the criterion if that is not misclassification",
    )
    eot: int | None = Field(
        None,
        ge=1,
        le=MOST,
        description="random draws averaged in every step; default 1, or 10 if the defense is stochastic",
    )
    target: Literal["none", "least-likely", "next", "random"] = Field(
        "none", description="class whose loss is minimised instead; none: an untargeted attack"
    )
    eight_bit: bool = Field(
        False, description="examples whose pixels are multiples of 1/255, rounded within the budget in every step"
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

    def resolved_params(self) -> dict[str, Any]:
        """The parameters whose defaults depend on others."""
        factor = 5.0 if self.norm == "l1" else 2.5  # for L1 the projection takes back more, spread over many pixels
        return {"step_size": self.step_size if self.step_size is not None else factor * self.eps / self.steps}

    def space(self) -> Space:
        """The set of allowed examples, with its steps and projection."""
        raise PluginError(f"{type(self).__name__} does not implement space()")

    def perturb(
        self, model: nn.Module, images: torch.Tensor, labels: torch.Tensor, context: AttackContext
    ) -> torch.Tensor:
        import torch

        from freqrobust.attacks.gradient.ascent import (
            Ascent,
            ascend_to_maximum,
            ascend_until_adversarial,
            better,
            loss_for,
        )
        from freqrobust.attacks.gradient.regions import EightBit

        loss = loss_for(context.criterion, self.loss, self.target != "none")
        space = EightBit(self.space(), self.norm, self.eps) if self.eight_bit else self.space()
        ascent = Ascent(space, self.steps, loss, self.eot_used(context.eot))
        targets = self._targets(model, images, labels, context)
        if context.goal == "maximize":
            best = best_loss = None
            for restart in range(self.restarts):
                start = self._start(ascent.space, images, context, restart)
                examples, values = ascend_to_maximum(model, start, images, labels, targets, ascent)
                best, best_loss = better(best, best_loss, examples, values)
            assert best is not None
            return best

        result = images.clone()
        active = torch.arange(len(images), device=images.device)
        for restart in range(self.restarts):
            own, active_labels = context.subset(active), labels[active]
            start = self._start(ascent.space, images[active], own, restart)
            active_targets = targets[active] if targets is not None else None
            examples, adversarial = ascend_until_adversarial(
                model, start, images[active], active_labels, active_targets, ascent, own
            )
            result[active] = examples
            if restart + 1 < self.restarts:
                unknown = ~adversarial  # the examples of the last step have not been predicted
                if unknown.any():
                    with torch.no_grad():
                        adversarial[unknown] = own.is_adversarial(model(examples[unknown]), active_labels[unknown])
                active = active[~adversarial]
                if len(active) == 0:
                    break
        return result

    def _start(self, space: Space, images: torch.Tensor, context: AttackContext, restart: int) -> torch.Tensor:
        if not self.random_start:
            return space.origin_point(images)
        if context.initial_signs is not None and restart == 0:
            return space.vertex(images, context.initial_signs)
        return space.random_point(images, context, f"pgd start {restart}")

    def _targets(
        self, model: nn.Module, images: torch.Tensor, labels: torch.Tensor, context: AttackContext
    ) -> torch.Tensor | None:
        import torch

        if self.target == "none":
            return None
        with torch.no_grad():
            logits: torch.Tensor = model(images)
        classes = logits.shape[1]
        if self.target == "next":
            return (labels + 1) % classes
        if self.target == "random":
            return (labels + 1 + (context.uniform((1,), "pgd target")[:, 0] * (classes - 1)).long()) % classes
        return logits.scatter(1, labels[:, None], float("inf")).argmin(dim=1)
