"""What the certificates by bounds share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from freqrobust.core.errors import PluginError, SpecError
from freqrobust.core.numbers import Number
from freqrobust.numerics.threat import check_eps
from freqrobust.plugins.base import Defense, InputDefense
from freqrobust.plugins.certificate import Certificate, CertificateContext, Certified

if TYPE_CHECKING:
    import torch
    from torch import nn

    from freqrobust.certificates.bounds.propagation import Method


class BoundCertificate(Certificate):
    """A certificate by lower bounds of the margins ``z_y - z_j``."""

    eps: Number = Field(8 / 255, ge=0, description="budget, in the norm's unit; 8/255 is accepted")
    norm: Literal["linf", "l2"] = Field("linf", description="norm of the budget")

    @model_validator(mode="after")
    def _eps_in_pixels(self) -> Any:
        check_eps(self.norm, self.eps)
        return self

    def methods(self) -> list[Method]:
        """Ways to bound the margins, the cheapest one first."""
        raise PluginError(f"{type(self).__name__} does not implement methods()")

    def check_defenses(self, defenses: Sequence[Defense]) -> None:
        super().check_defenses(defenses)
        changing = next((defense for defense in defenses if isinstance(defense, InputDefense)), None)
        if changing is not None:
            raise SpecError(
                f"{type(self).__name__} has bounds for networks only, but {type(changing).__name__} changes the images; "
                f"expected the undefended model, or a defense that changes the weights, such as smooth"
            )

    def certify(
        self, model: nn.Module, images: torch.Tensor, labels: torch.Tensor, context: CertificateContext
    ) -> Certified:
        from freqrobust.certificates.bounds.decision import certify

        for defense in context.defenses:
            if defense.stochastic:
                raise SpecError(
                    f"no bounds for a model with the defense {type(defense).__name__}, which draws random numbers; "
                    "expected a deterministic model"
                )
        return Certified(certify(model, images, labels, self.norm, self.eps, self.methods()))

    def statement(self) -> str:
        threat = self.threat()
        assert threat is not None
        return (
            f"the model predicts the label of a certified sample under every perturbation within {threat.text} that keeps "
            f"the pixels in [0, 1]; proved with {self.name_of_bounds} in float64, up to floating-point rounding"
        )

    @property
    def name_of_bounds(self) -> str:
        """What the statement calls the method."""
        raise PluginError(f"{type(self).__name__} does not implement name_of_bounds")
