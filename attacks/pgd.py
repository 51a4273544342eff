"""Projected gradient descent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, model_validator

from freqrobust.plugin import Attack, Number, StepNorm, check_eps

if TYPE_CHECKING:
    import torch
    from torch import nn

    from freqrobust.context import AttackContext


class PGD(Attack):
    """Projected gradient ascent on a loss inside an Linf or L2 ball.  (Madry et al. 2018, eq. 1)

    ``step_size`` defaults to ``2.5 * eps / steps``. A targeted attack climbs towards one other class; a
    sample counts as broken when it is misclassified at all. In a sweep of eps the first climb starts in the
    corner of the ball where the climb at the smaller eps ended.
    """

    averages_draws: ClassVar[bool] = True

    eps: Number = Field(8 / 255, ge=0, description="budget, in the norm's unit; 8/255 is accepted")
    norm: StepNorm = Field("linf", description="norm of the budget")
    steps: int = Field(20, ge=1, description="gradient steps per restart")
    step_size: Number | None = Field(None, gt=0, description="length of a step; default 2.5 * eps / steps")
    restarts: int = Field(1, ge=1, description="independent climbs")
    random_start: bool = Field(True, description="start at a uniform point of the ball, else at the image")
    loss: Literal["ce", "dlr", "margin"] = Field("ce", description="what is maximised")
    eot: int | None = Field(
        None, ge=1, description="draws of a random model per step; default 1, or 10 if the defense is stochastic"
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

    def draws(self, eot: int) -> int:
        """As given, else as the harness asks."""
        return self.eot or eot

    def resolved_params(self) -> dict[str, float]:
        """The parameters whose defaults depend on others."""
        return {"step_size": self.step_size if self.step_size is not None else 2.5 * self.eps / self.steps}

    def perturb(
        self, model: nn.Module, images: torch.Tensor, labels: torch.Tensor, context: AttackContext
    ) -> torch.Tensor:
        import torch

        from freqrobust.ascent import Ascent, climb_to_maximum, climb_until_broken, is_fooled

        ascent = Ascent(
            self.norm, self.eps, self.resolved_params()["step_size"], self.steps, self.loss, self.draws(context.eot)
        )
        targets = self._targets(model, images, labels, context)
        if context.goal == "maximize":
            best = best_loss = None
            for restart in range(self.restarts):
                start = self._start(images, context, restart)
                found, loss = climb_to_maximum(model, start, images, labels, targets, ascent)
                if best is None or best_loss is None:
                    best, best_loss = found, loss
                else:
                    higher = loss > best_loss
                    best = torch.where(higher[:, None, None, None], found, best)
                    best_loss = torch.where(higher, loss, best_loss)
            assert best is not None
            return best

        result = images.clone()
        active = torch.arange(len(images), device=images.device)
        for restart in range(self.restarts):
            some = context.subset(active)
            start = self._start(images[active], some, restart)
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

    def _start(self, images: torch.Tensor, context: AttackContext, restart: int) -> torch.Tensor:
        from freqrobust.ascent import random_start

        if not self.random_start:
            return images
        if context.hint is not None and restart == 0:
            from freqrobust.perturbation import project

            return project(images + self.eps * context.hint, images, self.norm, self.eps)
        stream = f"pgd start {restart}"
        if self.norm == "linf":
            return random_start(images, self.norm, self.eps, context.uniform(images.shape[1:], stream), None)
        unit = context.uniform((1,), f"{stream} radius")[:, 0]
        return random_start(images, self.norm, self.eps, unit, context.normal(images.shape[1:], stream))

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
