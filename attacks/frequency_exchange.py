"""Two images combined, by frequency or by phase, as attacks of kind "shift"; the label is that of the first."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple

from pydantic import Field

from freqrobust.core.errors import DataError, PluginError
from freqrobust.plugins.base import Attack

if TYPE_CHECKING:
    import torch
    from torch import nn

    from freqrobust.plugins.context import AttackContext, Samples
    from freqrobust.plugins.dataset import ImageDataset


class Partners(NamedTuple):
    """The pairs of samples.

    Attributes:
        samples: all samples.
        row: the row of the partner in ``samples``, by id.
    """

    samples: Samples
    row: dict[int, int]


class _Exchange(Attack):
    kind: ClassVar[Literal["adversarial", "shift"]] = "shift"
    needs_gradient: ClassVar[bool] = False

    def check_data(self, data: ImageDataset) -> None:
        if len(data) < 2:
            raise DataError(
                f"{_name(self)} pairs images, so that it needs at least two, but {data.spec} has {len(data)}"
            )

    def prepare(self, samples: Samples, context: AttackContext) -> Partners:
        """Pair every sample with the next one in an order drawn by seed and id: each is a partner exactly once."""
        from freqrobust.numerics import noise

        drawn = noise.uniform(samples.ids.cpu(), (2,), seed=context.seed, stream="exchange partners").double()
        keys = zip(drawn[:, 0].tolist(), drawn[:, 1].tolist(), samples.ids.tolist(), range(len(drawn)), strict=True)
        rows = [row for *_, row in sorted(keys)]
        ids = samples.ids.tolist()
        return Partners(samples, {ids[a]: b for a, b in zip(rows, [*rows[1:], rows[0]], strict=True)})

    def partners(self, images: torch.Tensor, context: AttackContext) -> torch.Tensor:
        """The partner of each image, shaped like ``images (N, C, H, W)``."""
        import torch

        prepared = context.prepared
        if not isinstance(prepared, Partners):
            raise PluginError(f"{_name(self)}: prepare() has to see the samples before perturb() does")
        rows = torch.tensor([prepared.row[i] for i in context.ids.tolist()], dtype=torch.int64)
        partners = prepared.samples.gather(rows, lambda model, batch, labels, which: batch)
        return partners.to(images.device)


def _name(attack: Attack) -> str:
    return "hybrid" if isinstance(attack, Hybrid) else "phase-swap"


class Hybrid(_Exchange):
    """Low frequencies of the image, high frequencies of another image of the data set.  (Oliva et al. 2006)

    Frequencies with a distance below ``radius`` are those of the image, whose label is kept; the others are its partner's.
    """

    radius: float = Field(ge=0, description="cycles per image", examples=[2])
    shape: Literal["circle", "square"] = Field(
        "circle", description="circle: Euclidean distance from DC; square: largest coordinate"
    )
    clip: bool = Field(False, description="clip the result to [0, 1]")

    def perturb(
        self, model: nn.Module, images: torch.Tensor, labels: torch.Tensor, context: AttackContext
    ) -> torch.Tensor:
        from freqrobust.numerics.frequency import high_pass, low_pass

        others = self.partners(images, context)
        if self.radius == 0:
            return others
        highest = high_pass(others, self.radius, self.shape)
        low = low_pass(images, self.radius, self.shape)
        changed = low if low is images else low + highest  # a radius beyond all frequencies leaves none to the partner
        return changed.clamp(0, 1) if self.clip else changed


class PhaseSwap(_Exchange):
    """The phase of the image, the amplitudes of another.  (Oppenheim and Lim 1981; Chen et al. 2021)

    Phases carry most of what people see in an image, so that its label is kept; with ``keep=amplitude`` the
    image gives the amplitudes and its partner the phases.
    """

    keep: Literal["phase", "amplitude"] = Field("phase", description="what is kept of the image whose label is kept")
    clip: bool = Field(False, description="clip the result to [0, 1]")

    def perturb(
        self, model: nn.Module, images: torch.Tensor, labels: torch.Tensor, context: AttackContext
    ) -> torch.Tensor:
        import torch

        first, second = torch.fft.rfft2(images), torch.fft.rfft2(self.partners(images, context))
        phases, amplitudes = (first, second) if self.keep == "phase" else (second, first)
        swapped = torch.polar(amplitudes.abs(), phases.angle())
        changed: torch.Tensor = torch.fft.irfft2(swapped, s=images.shape[-2:])
        return changed.clamp(0, 1) if self.clip else changed
