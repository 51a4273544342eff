"""Fast adversarial training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field, model_validator

from freqrobust.core.numbers import Number, pixel_text
from freqrobust.numerics.threat import check_eps
from freqrobust.plugins.training import Batch, StepContext, TrainingMethod

if TYPE_CHECKING:
    import torch
    from torch import nn

#: The step size as a multiple of eps that Wong et al. (2020) found best.
STEP = 1.25


class RSFGSM(TrainingMethod):
    """Minimise the cross-entropy after one signed gradient step from a random point.  (Wong et al. 2020, alg. 3)

    ``delta ~ U[-eps, eps]``, ``delta <- clip(delta + step_size * sign(grad), -eps, eps)``, with pixels clipped to [0, 1]: two forward
    and backward passes for each batch. The step is made in eval mode. Training can fail suddenly (catastrophic
    overfitting, sec. 5.4): the accuracy under PGD drops towards zero, while that under the training attack rises. The probe
    of this method, PGD, shows it.
    """

    eps: Number = Field(8 / 255, ge=0, description="perturbation budget of the training attack, in Linf")
    step_size: Number | None = Field(
        None, gt=0, description="step size of the training attack; default 1.25 * eps, or eps without a random start"
    )
    random_start: bool = Field(True, description="start at a random point of the ball; otherwise at the image: FGSM")

    @model_validator(mode="after")
    def _eps_in_pixels(self) -> Any:
        check_eps("linf", self.eps)
        return self

    def losses(self, model: nn.Module, batch: Batch, context: StepContext) -> tuple[torch.Tensor, torch.Tensor]:
        import torch.nn.functional as F

        from freqrobust.attacks.gradient.ascent import Ascent, ascend
        from freqrobust.attacks.gradient.regions import Ball
        from freqrobust.numerics.losses import cross_entropy

        step = self.step_size if self.step_size is not None else self.eps * (STEP if self.random_start else 1.0)
        ball = Ball("linf", self.eps, step)
        start = batch.images
        if self.random_start:
            start = ball.random_point(start, context.attack_context(), "rs-fgsm start")
        with context.attacked(model) as attacked:
            images = ascend(attacked, start, batch.images, batch.labels, None, Ascent(ball, 1, cross_entropy))
        logits = model(images)
        return F.cross_entropy(logits, batch.labels, reduction="none"), logits

    def probes(self) -> list[str]:
        return [f"pgd:eps={pixel_text(self.eps)},steps=10"]
