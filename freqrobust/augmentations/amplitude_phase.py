"""Amplitude-phase recombination."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from freqrobust.core.numbers import Number
from freqrobust.plugins.training import Augmentation, Batch, StepContext

if TYPE_CHECKING:
    import torch

SEVERITY = 3.0


class AmplitudePhase(Augmentation):
    """Combine the phase of an image with the amplitude of another one; the label is that of the phase.  (Chen et al. 2021)

    ``amplitude=pair`` takes the amplitude of another image of the batch (APR-P). ``amplitude=single`` makes two copies of
    the image, each after a random operation of AugMix, and takes the amplitude of one and the phase of the other (APR-S);
    images that are not changed in this way are the first copy. Spectra are those of each channel, and the result is
    clipped to [0, 1].
    """

    amplitude: Literal["pair", "single"] = Field(
        "pair", description="take the amplitude of another image, or of a copy"
    )
    p: Number | None = Field(
        None, ge=0, le=1, description="probability of changing an image; default 0.6 (pair) or 0.5 (single)"
    )

    def resolved_params(self) -> dict[str, float]:
        """The probability."""
        return {"p": self.p if self.p is not None else 0.6 if self.amplitude == "pair" else 0.5}

    def augment(self, batch: Batch, context: StepContext) -> Batch:
        if self.amplitude == "pair":
            from freqrobust.augmentations._mixing import partners

            images = batch.images
            others = images[partners(context.ids, context.uniform((1,), "apr partner")[:, 0])]
        else:
            images, others = (self._copies(batch.images, context, f"apr copy {number}") for number in (1, 2))
        chosen = context.uniform((1, 1, 1), "apr") < self.resolved_params()["p"]
        return batch.replace(images=recombined(images, others).where(chosen, images))

    @staticmethod
    def _copies(images: torch.Tensor, context: StepContext, stream: str) -> torch.Tensor:
        import torch

        from freqrobust.augmentations._eight_bit import pil_images, pixels_of
        from freqrobust.augmentations._operations import BASE, DRAWS, chained

        draws = context.uniform((1, DRAWS), stream).cpu().numpy()
        copies = torch.empty_like(images, device="cpu")
        for position, image in enumerate(pil_images(images, "apr")):
            copies[position] = torch.from_numpy(pixels_of(chained(image, draws[position], BASE, SEVERITY)))
        return copies.to(images.device)


def recombined(phase: torch.Tensor, amplitude: torch.Tensor) -> torch.Tensor:
    """``clip(real(F^-1(|F(amplitude)| exp(i arg F(phase)))))`` of images ``(N, C, H, W)``, channel by channel."""
    import torch

    angles = torch.fft.fft2(phase).angle()
    spectrum = torch.polar(torch.fft.fft2(amplitude).abs(), angles)
    images: torch.Tensor = torch.fft.ifft2(spectrum).real
    return images.clamp(0, 1)
