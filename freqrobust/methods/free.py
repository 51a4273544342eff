"""Free adversarial training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field, model_validator

from freqrobust.core.numbers import Count, Number, pixel_text
from freqrobust.numerics.threat import check_eps
from freqrobust.plugins.training import Batch, StepContext, TrainingMethod

if TYPE_CHECKING:
    import torch
    from torch import nn


class Free(TrainingMethod):
    """Update weights and perturbation by the same backward pass, several times on each batch.  (Shafahi et al. 2019, alg. 1)

    Each batch is replayed ``replays`` times. A replay is one forward and backward pass in train mode, one step of the
    optimizer, and one step ``delta <- clip(delta + step_size * sign(grad), -eps, eps)``. The perturbation belongs to the position in the
    batch, so that the next batch starts with that of the last one; with several processes, to the position in the part of the
    batch that a process has. It is zero at the beginning of an epoch: a training can then be resumed at the end of every
    epoch.

    ``epochs`` counts passes over the data, each with all replays. The paper divides its number of epochs by ``replays``:
    ``epochs = E / replays`` makes as many optimisation steps as another method with ``epochs = E``.
    """

    eps: Number = Field(8 / 255, ge=0, description="perturbation budget of the training attack, in Linf")
    replays: Count = Field(4, description="optimisation steps on each batch, m in the paper")
    step_size: Number | None = Field(None, gt=0, description="step size of the perturbation; default eps")

    @model_validator(mode="after")
    def _eps_in_pixels(self) -> Any:
        check_eps("linf", self.eps)
        return self

    @property
    def steps_per_batch(self) -> int:
        return self.replays

    def losses(self, model: nn.Module, batch: Batch, context: StepContext) -> tuple[torch.Tensor, torch.Tensor]:
        import torch
        import torch.nn.functional as F

        n = len(batch.images)
        carried = context.memory.get("perturbation")
        if carried is None or len(carried) < n:
            longer = torch.zeros_like(batch.images)
            if carried is not None:
                longer[: len(carried)] = carried
            context.memory["perturbation"] = carried = longer
        delta = carried[:n].clone().requires_grad_(True)
        context.memory["delta"] = delta
        logits = model((batch.images + delta).clamp(0, 1))
        return F.cross_entropy(logits, batch.labels, reduction="none"), logits

    def after_backward(self, batch: Batch, context: StepContext) -> None:
        delta = context.memory.pop("delta")
        step = self.step_size if self.step_size is not None else self.eps
        moved = delta.detach() + step * delta.grad.sign()
        context.memory["perturbation"][: len(moved)] = moved.clamp_(-self.eps, self.eps)

    def probes(self) -> list[str]:
        return [f"pgd:eps={pixel_text(self.eps)},steps=10"]
