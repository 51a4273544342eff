"""The Fourier heat map: the error of a model under one Fourier basis vector at a time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING

from pydantic import Field

from freqrobust.analyses._base import only
from freqrobust.core.numbers import Number
from freqrobust.harness.analysis import Analysis
from freqrobust.results.analysis import AnalysisResult, AnalysisTable

if TYPE_CHECKING:
    import torch
    from matplotlib.figure import Figure
    from torch import nn

    from freqrobust.data.dataset import ImageData
    from freqrobust.harness.analysis_context import AnalysisContext


class HeatMapResult(AnalysisResult):
    """Maps are ``H`` rows of ``W`` values with the zero frequency at ``(H // 2, W // 2)``."""

    norm: float
    directions: int = Field(description="number of Fourier directions; conjugate pairs count once")
    clean_error: float
    error: list[list[float]] = Field(description="share of wrong predictions, H x W")
    layer: str | None = None
    change: list[list[float]] | None = Field(
        None, description="mean of ||h(x + d) - h(x)|| / ||h(x)|| for the layer's output h, H x W"
    )
    split: float = Field(description="radius between the low and the high frequencies, for the means")
    low_error: float = Field(description="mean error over the directions below the radius, without DC")
    high_error: float = Field(description="mean error over the directions at or above the radius")


class HeatMap(Analysis):
    """Fourier heat map: the error under one Fourier direction at a time.  (Yin et al. 2019, sec. 3)

    To each channel of an image, the real Fourier basis vector is added with L2 norm ``norm`` and a random sign, as
    published. Pixels are not clipped, as in the published formula and the default of the authors' code; ``clip=true``
    clips them. ``layer`` adds the relative change of that layer's output.
    """

    norm: Number | None = Field(
        None, gt=0, description="L2 norm per channel; default 4 at 32 px, 15.7 at 224 px, a power law elsewhere"
    )
    layer: str | None = Field(None, description="name of a layer whose relative change of output is measured too")
    clip: bool = Field(False, description="clip the changed images to [0, 1]")

    def run(self, model: nn.Module, data: ImageData, context: AnalysisContext) -> HeatMapResult:
        import torch

        from freqrobust.harness.analysis_context import lean, output_of, split_radius
        from freqrobust.numerics.frequency import directions, wave_norm

        _, height, width = data.shape
        norm = self.norm if self.norm is not None else wave_norm(height, width)
        waves = directions(height, width)
        sweep = _Sweep(self, context, norm, waves)
        layer = context.layer(self.layer) if self.layer is not None else None

        def work(block: torch.Tensor) -> None:
            with output_of(layer) if layer is not None else nullcontext() as outputs:
                sweep.over(block, outputs)

        context.batches.each(torch.arange(len(data)), work)
        error = sweep.wrong / len(data)
        split = split_radius(data.shape)
        low, high = (_mean(error, waves, band) for band in ((0.5, split), (split, math.inf)))
        clean = sweep.clean_wrong / len(data)
        reading = lean(max(low - clean, 0.0), max(high - clean, 0.0))
        return HeatMapResult(
            norm=norm,
            directions=len(waves),
            clean_error=clean,
            error=_rows(error, waves, height, width),
            layer=self.layer,
            change=_rows(sweep.change / len(data), waves, height, width) if layer is not None else None,
            split=split,
            low_error=low,
            high_error=high,
            reading=reading,
            sentence=f"error {clean:.1%} clean, {low:.1%} on average below {split:g} cycles per image, "
            f"{high:.1%} on average at or above it",
        )

    def tables(self, results: Sequence[AnalysisResult]) -> list[AnalysisTable]:
        maps = only(results, HeatMapResult)
        rows = []
        for result in maps:
            errors = (result.clean_error, result.low_error, result.high_error, max(map(max, result.error)))
            numbers = [f"{result.norm:.3g}", *(f"{100 * value:.1f}" for value in errors)]
            rows.append([result.label, *numbers, str(result.reading)])
        split = maps[0].split
        columns = ["model", "L2 norm", "clean", f"mean below {split:g}", f"mean from {split:g}", "worst", "depends on"]
        return [AnalysisTable(title="Error in percent under one Fourier basis vector", columns=columns, rows=rows)]

    def draw(self, results: Sequence[AnalysisResult]) -> Figure:
        from freqrobust.results.figures import Maps, stacked

        shown = only(results, HeatMapResult)
        errors = [(result.label, result.error) for result in shown]
        maps = [Maps(errors, f"error (norm {shown[0].norm:.3g})", 0.0, 1.0, percent=True)]
        changes = [(result.label, result.change) for result in shown if result.change is not None]
        if changes:
            top = max(max(map(max, change)) for _, change in changes)
            maps.append(Maps(changes, f"change of {self.layer}", 0.0, max(top, 1e-9)))
        return stacked(*((drawing.height, drawing.draw) for drawing in maps))


class _Sweep:
    """Counts over all (direction, image) pairs, kept per direction: memory does not depend on the number of images."""

    def __init__(self, plugin: HeatMap, context: AnalysisContext, norm: float, waves: list[tuple[int, int]]) -> None:
        import torch

        self.plugin, self.context, self.norm, self.waves = plugin, context, norm, waves
        self.wrong = torch.zeros(len(waves), dtype=torch.float64)
        self.change = torch.zeros(len(waves), dtype=torch.float64)
        self.clean_wrong = 0

    def over(self, block: torch.Tensor, outputs: list[torch.Tensor] | None) -> None:
        """All directions for one block of samples; ``outputs`` collects the output of the layer, if there is one."""
        import torch

        context = self.context
        images, labels, ids = context.data.batch(block, context.device)
        clean_wrong = int((~context.predict(images, ids).is_correct(labels)).sum())
        clean = _drain(outputs)
        self.clean_wrong += clean_wrong
        size = len(block)

        def work(pairs: torch.Tensor) -> None:
            if outputs is not None:
                outputs.clear()  # left by a pass that ran out of memory
            direction, sample = pairs // size, (pairs % size).to(images.device)
            changed = self._changed(images[sample], ids[sample], direction)
            wrong = ~context.predict(changed, ids[sample]).is_correct(labels[sample])
            change = _drain(outputs)
            if clean is not None and change is not None:
                first = clean[sample]
                moved = torch.linalg.vector_norm(change - first, dim=1)
                share = moved / torch.linalg.vector_norm(first, dim=1).clamp_min(1e-12)
                self.change.index_add_(0, direction, share.cpu().double())
            self.wrong.index_add_(0, direction, wrong.cpu().double())

        context.each(f"{len(self.waves)} waves", len(self.waves) * size, work)

    def _changed(self, images: torch.Tensor, ids: torch.Tensor, direction: torch.Tensor) -> torch.Tensor:
        """Every image plus the wave of its direction, with one seeded random sign per channel."""
        import torch

        from freqrobust.numerics.frequency import fourier_basis

        channels, height, width = images.shape[1:]
        for number in direction.unique_consecutive().tolist():
            positions = (direction == number).nonzero()[:, 0]
            part = slice(int(positions[0]), int(positions[-1]) + 1)
            u, v = self.waves[number]
            wave = fourier_basis(height, width, u, v).to(images.device) * self.norm
            signs = torch.where(self._uniform(ids[part], channels, (u, v)) < 0.5, -1.0, 1.0)
            images[part] += signs[:, :, None, None] * wave
        return images.clamp_(0, 1) if self.plugin.clip else images

    def _uniform(self, ids: torch.Tensor, channels: int, wave: tuple[int, int]) -> torch.Tensor:
        from freqrobust.numerics import noise

        return noise.uniform(ids, (channels,), seed=self.context.seed, stream=f"heat map {wave[0]} {wave[1]}")


def _drain(outputs: list[torch.Tensor] | None) -> torch.Tensor | None:
    """The layer's output of the last pass; for a stochastic model, the mean over its votes."""
    if outputs is None:
        return None
    if not outputs:
        from freqrobust.core.errors import SpecError

        raise SpecError("the layer is not used in the model's predictions")
    total = outputs[0] if len(outputs) == 1 else sum(outputs[1:], outputs[0]) / len(outputs)
    outputs.clear()
    return total


def _mean(values: torch.Tensor, waves: list[tuple[int, int]], band: tuple[float, float]) -> float:
    """Mean over the directions whose distance from DC is in ``[low, high)``; 0 if there is none."""
    inside = [float(x) for x, (u, v) in zip(values, waves, strict=True) if band[0] <= math.hypot(u, v) < band[1]]
    return sum(inside) / len(inside) if inside else 0.0


def _rows(values: torch.Tensor, waves: list[tuple[int, int]], height: int, width: int) -> list[list[float]]:
    """Values of the directions as a map, each at its frequency and at the conjugate frequency."""
    from freqrobust.numerics.frequency import conjugate

    rows = [[0.0] * width for _ in range(height)]
    for value, (u, v) in zip(values.tolist(), waves, strict=True):
        for a, b in ((u, v), conjugate(u, v, height, width)):
            rows[a + height // 2][b + width // 2] = value
    return rows
