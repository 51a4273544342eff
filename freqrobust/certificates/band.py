"""What an input filter proves without any computation: frequencies that it removes change nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from freqrobust.core.errors import SpecError
from freqrobust.plugins.base import Defense
from freqrobust.plugins.certificate import Certificate, CertificateContext, Certified

if TYPE_CHECKING:
    import torch
    from torch import nn


class Band(Certificate):
    """Perturbations of frequencies that the outermost input filter removes do not change the prediction.

    A filter is linear, ``F(x + delta) = F(x) + F(delta)``, and ``F(delta) = 0`` for every perturbation ``delta`` whose
    frequencies are all removed, whatever its size. So every sample that is predicted correctly is certified. It is about
    perturbed images that are not clipped: clipping to [0, 1] adds other frequencies. It is exact up to the rounding of
    the Fourier transform.
    """

    def check_defenses(self, defenses: Sequence[Defense]) -> None:
        if not defenses or defenses[-1].removed_band() is None:
            last = type(defenses[-1]).__name__ if defenses else "the undefended model"
            raise SpecError(
                f"band needs a filter of the input as the outermost defense, such as lowpass:radius=12, but {last} "
                f"removes no frequencies"
            )
        super().check_defenses(defenses)

    def statement(self) -> str:
        return self._statement("that the outermost filter of the input removes")

    def statement_about(self, defenses: Sequence[Defense]) -> str:
        band = defenses[-1].removed_band() if defenses else None
        return self._statement(f"at {band}") if band is not None else self.statement()

    def _statement(self, frequencies: str) -> str:
        return (
            f"no perturbation, of any size, that consists only of frequencies {frequencies} changes the prediction, as "
            f"long as the perturbed image is not clipped"
        )

    def certify(
        self, model: nn.Module, images: torch.Tensor, labels: torch.Tensor, context: CertificateContext
    ) -> Certified:
        import torch

        from freqrobust.numerics.frequency import band_mask

        band = context.defenses[-1].removed_band() if context.defenses else None
        if band is None:
            raise SpecError("band needs a filter of the input as the outermost defense")
        height, width = images.shape[-2:]
        if not bool(band_mask(height, width, band.low, band.high, band.shape).any()):
            raise SpecError(f"band: images of {height} x {width} pixels have no frequencies at {band}")
        if context.correct is not None:
            return Certified(context.correct.clone())
        with torch.no_grad():
            return Certified(model(images).argmax(dim=1) == labels, forwards=len(images))
