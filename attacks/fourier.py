"""One wave for all samples: a universal perturbation along a direction of the Fourier basis."""

from __future__ import annotations

import math
from itertools import product
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

from pydantic import Field, model_validator

from freqrobust.core.errors import PluginError
from freqrobust.core.numbers import MOST, Number
from freqrobust.numerics.threat import check_eps
from freqrobust.plugins.base import Attack

if TYPE_CHECKING:
    import torch
    from torch import nn

    from freqrobust.plugins.context import AttackContext, Samples

#: Phases that are tried, in radians. At odd eighths of a turn no wave vanishes, not even those of the highest frequency.
PHASES = tuple(math.pi * (0.25 + 0.5 * quarter) for quarter in range(4))
#: Directions of which all phases and signs are tried.
FINALISTS = 8


class Wave(NamedTuple):
    """``sign_c * cos(2 pi (u y / H + v x / W) + phase)``, the same for every image."""

    u: int
    v: int
    phase: float
    signs: tuple[int, ...]

    def __str__(self) -> str:
        signs = "".join("+" if sign > 0 else "-" for sign in self.signs)
        turn = f"phase {math.degrees(self.phase):.0f} degrees, channels {signs}"
        return f"u={self.u}, v={self.v} ({math.hypot(self.u, self.v):.1f} cycles per image), {turn}"


class Chosen(NamedTuple):
    """The waves that were chosen on each half of the samples, and which half a sample belongs to.

    Attributes:
        half: 0 or 1, by id.
        patterns: what the wave chosen on each half adds to an image, ``(2, C, H, W)``.
    """

    half: dict[int, int]
    patterns: torch.Tensor


class Fourier(Attack):
    """One wave added to every image: the most harmful direction of the Fourier basis.  (Tsuzuku and Sato 2019)

    The samples are divided into two halves by the seed and their ids. The wave that is added to one half is chosen on the
    other: every direction is tried on half of ``samples`` images, with their phases spread over four quarters; then
    of the 8 best directions all four phases and (with up to three channels) all relative signs of the channels, on
    ``samples`` images. The wave with the most adversarial samples is
    chosen, and of several the one with the highest mean margin. Costs
    ``directions * samples + 256 * samples`` forward passes at three channels, whatever the size of the data. The report
    names the waves.
    """

    needs_gradient: ClassVar[bool] = False
    averages_draws: ClassVar[bool] = True
    any_criterion: ClassVar[bool] = True
    nested: ClassVar[bool] = False

    eps: Number = Field(8 / 255, ge=0, description="budget, in the norm's unit; 8/255 is accepted")
    norm: Literal["linf", "l2"] = Field("linf", description="norm of the budget, which the wave has before clipping")
    samples: int = Field(32, ge=2, le=MOST, description="images of each half that a wave is chosen on, at most")
    radius: float | None = Field(
        None, gt=0, description="only frequencies below this distance from DC, cycles per image; default all"
    )
    directions: int | None = Field(
        None, ge=1, le=MOST, description="try at most so many frequencies, drawn with the seed; default all"
    )

    @model_validator(mode="after")
    def _eps_in_pixels(self) -> Any:
        check_eps(self.norm, self.eps)
        return self

    def prepare(self, samples: Samples, context: AttackContext) -> Chosen | None:
        """Choose a wave on each half of the samples."""
        import torch

        if self.eps == 0:
            return None
        halves = _halves(samples.ids, context)
        if min(map(len, halves)) == 0:
            context.note("a single sample is not changed: there is no other half to choose its wave on")
            return Chosen({int(i): 0 for i in samples.ids}, torch.zeros(2, *samples.shape))
        directions = self._directions(samples.shape, context.seed)
        patterns = []
        for index, half in enumerate(halves):
            fitting = half[: self.samples]
            wave, adversarial = self._choose(samples, fitting, directions, context)
            patterns.append(self.pattern([wave], samples.shape)[0])
            judged = f"added to the {len(halves[1 - index])} of half {2 - index}"
            context.note(
                f"wave of half {index + 1}: {wave}; adversarial for {adversarial} of the {len(fitting)} samples it was chosen on, {judged}"
            )
        ids = samples.ids.tolist()
        return Chosen({ids[i]: k for k, half in enumerate(halves) for i in half.tolist()}, torch.stack(patterns))

    def perturb(
        self, model: nn.Module, images: torch.Tensor, labels: torch.Tensor, context: AttackContext
    ) -> torch.Tensor:
        import torch

        if self.eps == 0:
            return images.clone()
        chosen: Chosen | None = context.prepared
        ids = context.ids.tolist()
        if chosen is None or not all(i in chosen.half for i in ids):
            raise PluginError("fourier: prepare() has to see the samples before perturb() does")
        other = torch.tensor([1 - chosen.half[i] for i in ids])
        return (images + chosen.patterns[other].to(images.device)).clamp(0, 1)

    def pattern(self, waves: list[Wave], shape: tuple[int, ...]) -> torch.Tensor:
        """What waves add to an image ``(C, H, W)``: ``(len(waves), C, H, W)``, each of norm ``eps``."""
        import torch

        from freqrobust.numerics.frequency import fourier_basis

        channels, height, width = shape
        grey = torch.stack([fourier_basis(height, width, wave.u, wave.v, wave.phase) for wave in waves])
        largest = grey.flatten(1).abs().amax(dim=1) if self.norm == "linf" else torch.full((len(waves),), channels**0.5)
        signs = torch.tensor([wave.signs for wave in waves], dtype=grey.dtype)
        return signs[:, :, None, None] * (self.eps * grey / largest[:, None, None])[:, None]

    def _directions(self, shape: tuple[int, ...], seed: int) -> list[tuple[int, int]]:
        """The frequencies to try, in ascending order."""
        from freqrobust.numerics import noise
        from freqrobust.numerics.frequency import directions

        waves = [(u, v) for u, v in directions(*shape[-2:]) if self.radius is None or math.hypot(u, v) < self.radius]
        if self.directions is None or self.directions >= len(waves):
            return waves
        drawn = noise.permutation(len(waves), seed=seed, stream="fourier directions")[: self.directions]
        return [waves[i] for i in sorted(drawn.tolist())]

    def _choose(
        self, samples: Samples, fitting: torch.Tensor, directions: list[tuple[int, int]], context: AttackContext
    ) -> tuple[Wave, int]:
        """The wave with the most adversarial samples among those in ``fitting``, and their number."""
        channels = samples.shape[0]
        few = fitting[: max(1, self.samples // 2)]
        alike = (1,) * channels
        spread = [[Wave(u, v, PHASES[i % 4], alike) for i in range(len(few))] for u, v in directions]
        first = self._scores(samples, few, spread, context)
        best = sorted(range(len(directions)), key=lambda i: first[i], reverse=True)[:FINALISTS]
        signs = [(1, *rest) for rest in product((1, -1), repeat=channels - 1)] if channels <= 3 else [alike]
        waves = [Wave(*directions[i], phase, sign) for i in best for phase in PHASES for sign in signs]
        second = self._scores(samples, fitting, [[wave] * len(fitting) for wave in waves], context)
        winner = max(range(len(waves)), key=lambda i: second[i])
        return waves[winner], second[winner][0]

    def _scores(
        self, samples: Samples, rows: torch.Tensor, candidates: list[list[Wave]], context: AttackContext
    ) -> list[tuple[int, float]]:
        """Adversarial samples and mean margin of each candidate, which is a wave for every one of the samples."""
        import torch

        criterion = context.criterion
        waves = [wave for candidate in candidates for wave in candidate]

        def work(model: nn.Module, images: torch.Tensor, labels: torch.Tensor, which: torch.Tensor) -> torch.Tensor:
            added = self.pattern([waves[i] for i in which.tolist()], samples.shape).to(images.device)
            changed = (images + added).clamp(0, 1)
            with torch.no_grad():
                draws = [model(changed) for _ in range(context.eot)]
            adversarial = torch.stack([criterion.is_adversarial(logits, labels).float() for logits in draws]).mean(
                dim=0
            )
            loss = torch.stack([criterion.margin(logits, labels) for logits in draws]).mean(dim=0)
            return torch.stack([(adversarial > 0.5).float(), loss.nan_to_num(nan=math.inf)], dim=1)

        scores = samples.gather(rows.repeat(len(candidates)), work).cpu().double().view(len(candidates), -1, 2)
        return [(int(score[:, 0].sum()), float(f"{score[:, 1].mean():.5g}")) for score in scores]


def _halves(ids: torch.Tensor, context: AttackContext) -> list[torch.Tensor]:
    """Positions of the samples of each half, in an order that the seed and the ids alone decide."""
    import torch

    from freqrobust.numerics import noise

    by_id = torch.argsort(ids, stable=True)
    keys = noise.uniform(ids[by_id], (1,), seed=context.seed, stream="fourier halves")[:, 0]
    order = by_id[torch.argsort(keys, stable=True)]
    return [order[0::2], order[1::2]]
