"""Projected gradient descent within a band of frequencies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from freqrobust.attacks.gradient.iterative import IterativeGradientAttack
from freqrobust.core.errors import PluginError
from freqrobust.core.numbers import Number

if TYPE_CHECKING:
    import torch
    from torch import nn

    from freqrobust.attacks.gradient.regions import Space
    from freqrobust.plugins.context import AttackContext


class LowFrequencyPGD(IterativeGradientAttack):
    """PGD whose perturbation contains only frequencies with low <= distance < radius.  (Guo et al. 2019; Maiya et al. 2021)

    The perturbation is in the band and within the budget exactly; then ``image + perturbation`` is clipped to [0, 1],
    which adds small components outside the band where pixels are near 0 or 1 (see ``freqrobust.attacks.gradient.regions.Band``). ``step_size``
    defaults to ``2.5 * eps / steps``; a random start is filtered Gaussian noise of a random length.
    """

    norm: Literal["linf", "l2"] = Field("linf", description="norm of the budget")
    step_size: Number | None = Field(None, gt=0, description="step size in the norm; default 2.5 * eps / steps")
    radius: float = Field(gt=0, description="frequencies below this distance from DC, cycles per image", examples=["8"])
    low: float = Field(0.0, ge=0, description="smallest distance from DC of the band, cycles per image")
    shape: Literal["circle", "square"] = Field(
        "circle", description="circle: Euclidean distance from DC; square: largest coordinate"
    )

    @model_validator(mode="after")
    def _ordered(self) -> Any:
        if self.radius <= self.low:
            raise ValueError(f"parameter 'radius' ({self.radius:g}) should be greater than 'low' ({self.low:g})")
        return self

    def space(self) -> Space:
        """The perturbations of the band, within the budget."""
        from freqrobust.attacks.gradient.regions import Band

        step = self.resolved_params()["step_size"]
        return Band(self.norm, self.eps, step, self.low, self.radius, self.shape, self.eight_bit)

    def perturb(
        self, model: nn.Module, images: torch.Tensor, labels: torch.Tensor, context: AttackContext
    ) -> torch.Tensor:
        from freqrobust.numerics.frequency import band_mask

        height, width = images.shape[-2:]
        if not bool(band_mask(height, width, self.low, self.radius, self.shape).any()):
            raise PluginError(
                f"lowfreq-pgd: images of {height} x {width} have no frequency at a distance "
                f"of {self.low:g} <= distance < {self.radius:g}"
            )
        return super().perturb(model, images, labels, context)
