"""What the attacks that climb a gradient share: all but where they may go."""

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


class Climb(Attack):
    """Projected gradient ascent on a loss, in the space that a subclass names."""

    averages_draws: ClassVar[bool] = True

    eps: Number = Field(8 / 255, ge=0, description="budget, in the norm's unit; 8/255 is accepted")
    norm: StepNorm = Field("linf", description="norm of the budget")
    steps: Count = Field(20, description="gradient steps per restart")
    step_size: Number | None = Field(
        None, gt=0, description="length of a step; default 2.5 * eps / steps, for L1 5 * eps / steps"
    )
    restarts: Count = Field(1, description="independent climbs")
    random_start: bool = Field(True, description="start at a random point of the ball, else at the image")
    loss: Literal["ce", "dlr", "margin"] = Field("ce", description="what is maximised")
    eot: int | None = Field(
        None,
        ge=1,
        le=MOST,
        description="draws of a random model per step; default 1, or 10 if the defense is stochastic",
    )
    target: Literal["none", "least-likely", "next", "random"] = Field(
        "none", description="class to climb towards; none: away from the label"
    )

    @model_validator(mode="after")
    def _check(self) -> Any:
        check_eps(self.norm, self.eps)
        if self.restarts > 1 and not self.random_start:
            raise ValueError("restarts > 1 need random_start=true: otherwise every restart is the same")
        return self

    def eot_used(self, eot: int) -> int:
        """As given, else as the harness asks."""
        return self.eot or eot

    def resolved_params(self) -> dict[str, Any]:
        """The parameters whose defaults depend on others."""
        reach = 5.0 if self.norm == "l1" else 2.5  # what the projection takes back is spread over many pixels
        return {"step_size": self.step_size if self.step_size is not None else reach * self.eps / self.steps}

    def space(self) -> Space:
        """Where the examples may lie, and how to step there."""
        raise PluginError(f"{type(self).__name__} does not say where it climbs")

    def perturb(
        self, model: nn.Module, images: torch.Tensor, labels: torch.Tensor, context: AttackContext
    ) -> torch.Tensor:
        import torch

        from freqrobust.attacks.gradient.ascent import Ascent, better, climb_to_maximum, climb_until_broken, is_fooled

        ascent = Ascent(self.space(), self.steps, self.loss, self.eot_used(context.eot))
        targets = self._targets(model, images, labels, context)
        if context.goal == "maximize":
            best = best_loss = None
            for restart in range(self.restarts):
                start = self._start(ascent.space, images, context, restart)
                found, loss = climb_to_maximum(model, start, images, labels, targets, ascent)
                best, best_loss = better(best, best_loss, found, loss)
            assert best is not None
            return best

        result = images.clone()
        active = torch.arange(len(images), device=images.device)
        for restart in range(self.restarts):
            some = context.subset(active)
            start = self._start(ascent.space, images[active], some, restart)
            some_targets = targets[active] if targets is not None else None
            found, broken = climb_until_broken(
                model, start, images[active], labels[active], some_targets, ascent, context.slack
            )
            result[active] = found
            if restart + 1 < self.restarts:
                rest = ~broken
                if rest.any():
                    with torch.no_grad():  # was it the last step that broke it?
                        broken[rest] = is_fooled(model(found[rest]), labels[active[rest]], context.slack)
                active = active[~broken]
                if len(active) == 0:
                    break
        return result

    def _start(self, space: Space, images: torch.Tensor, context: AttackContext, restart: int) -> torch.Tensor:
        if not self.random_start:
            return space.origin_point(images)
        if context.hint is not None and restart == 0:
            return space.corner_point(images, context.hint)
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
