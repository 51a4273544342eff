"""The Fourier heat map: how a model takes one Fourier direction at a time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING

from pydantic import Field

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
    directions: int = Field(description="Fourier directions that were run; conjugate pairs once")
    clean_error: float
    error: list[list[float]] = Field(description="share of wrong predictions, H x W")
    layer: str | None = None
    change: list[list[float]] | None = Field(
        None, description="mean of ||h(x + d) - h(x)|| / ||h(x)|| of the layer's output h, H x W"
    )
    split: float = Field(description="radius at which the high frequencies begin, for the means")
    low_error: float = Field(description="mean error over the directions below the split, without DC")
    high_error: float = Field(description="mean error over the directions at or above the split")


class HeatMap(Analysis):
    """Fourier heat map: the error under one Fourier direction at a time.  (Yin et al. 2019, sec. 3)

    Every image gets ``+norm`` or ``-norm`` times the real wave of L2 norm 1, each channel with a random sign of
    its own, as published. Pixels are not clipped, as in the published formula and in the default of the authors'
    code; ``clip`` does so. With ``layer`` also the relative change of that layer's output.
    """

    norm: Number | None = Field(
        None, gt=0, description="L2 norm per channel; default 4 at 32 px, 15.7 at 224 px, a power law elsewhere"
    )
    layer: str | None = Field(None, description="also the relative change of this layer's output")
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
        low, high = (_mean(error, waves, where) for where in ((0.5, split), (split, math.inf)))
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
            sentence=f"error {clean:.1%} clean, {low:.1%} on average under waves below {split:g} cycles per image, "
            f"{high:.1%} under those above",
        )

    def tables(self, results: Sequence[AnalysisResult]) -> list[AnalysisTable]:
        rows = []
        for one in results:
            assert isinstance(one, HeatMapResult)
            worst = max(max(row) for row in one.error)
            shown = (one.clean_error, one.low_error, one.high_error, worst)
            rows.append([one.label, f"{one.norm:.3g}", *(f"{100 * value:.1f}" for value in shown), str(one.reading)])
        split = getattr(results[0], "split", 0.0)
        columns = ["", "L2 norm", "clean", f"below {split:g}", f"from {split:g} on", "worst", "depends on"]
        return [AnalysisTable(title="Error in percent under one Fourier wave", columns=columns, rows=rows)]

    def draw(self, results: Sequence[AnalysisResult]) -> Figure:
        from freqrobust.results.figures import Maps, stacked

        found = [one for one in results if isinstance(one, HeatMapResult)]
        maps = [
            Maps([(one.label, one.error) for one in found], f"error (norm {found[0].norm:.3g})", 0.0, 1.0, percent=True)
        ]
        changes = [(one.label, one.change) for one in found if one.change is not None]
        if changes:
            top = max(max(map(max, change)) for _, change in changes)
            maps.append(Maps(changes, f"change of {self.layer}", 0.0, max(top, 1e-9)))
        return stacked(*((one.height, one.draw) for one in maps))


class _Sweep:
    """Counts over all (direction, image) pairs, held per direction: memory does not grow with the images."""

    def __init__(self, plugin: HeatMap, context: AnalysisContext, norm: float, waves: list[tuple[int, int]]) -> None:
        import torch

        self.plugin, self.context, self.norm, self.waves = plugin, context, norm, waves
        self.wrong = torch.zeros(len(waves), dtype=torch.float64)
        self.change = torch.zeros(len(waves), dtype=torch.float64)
        self.clean_wrong = 0

    def over(self, block: torch.Tensor, outputs: list[torch.Tensor] | None) -> None:
        """All directions for one block of samples; ``outputs`` collects those of the layer, where one is wanted."""
        import torch

        context = self.context
        images, labels, ids = context.data.batch(block, context.device)
        clean_wrong = int((~context.predict(images, ids).is_correct(labels)).sum())
        clean = _drain(outputs)
        self.clean_wrong += clean_wrong
        size = len(block)

        def work(pairs: torch.Tensor) -> None:
            if outputs is not None:
                outputs.clear()  # of a pass during which memory ran out
            which, sample = pairs // size, (pairs % size).to(images.device)
            own = ids[sample]
            changed = self._changed(images[sample], own, which)
            wrong = ~context.predict(changed, own).is_correct(labels[sample])
            change = _drain(outputs)
            if clean is not None and change is not None:
                first = clean[sample]
                moved = torch.linalg.vector_norm(change - first, dim=1)
                share = moved / torch.linalg.vector_norm(first, dim=1).clamp_min(1e-12)
                self.change.index_add_(0, which, share.cpu().double())
            self.wrong.index_add_(0, which, wrong.cpu().double())

        context.each(f"{len(self.waves)} waves", len(self.waves) * size, work)

    def _changed(self, images: torch.Tensor, ids: torch.Tensor, which: torch.Tensor) -> torch.Tensor:
        """Images plus their waves: sample by sample, the wave with that number, one keyed sign a channel."""
        import torch

        from freqrobust.numerics.frequency import fourier_basis

        channels, height, width = images.shape[1:]
        for number in which.unique_consecutive().tolist():
            mine = (which == number).nonzero()[:, 0]
            part = slice(int(mine[0]), int(mine[-1]) + 1)
            u, v = self.waves[number]
            wave = fourier_basis(height, width, u, v).to(images.device) * self.norm
            signs = torch.where(self._uniform(ids[part], channels, (u, v)) < 0.5, -1.0, 1.0)
            images[part] += signs[:, :, None, None] * wave
        return images.clamp_(0, 1) if self.plugin.clip else images

    def _uniform(self, ids: torch.Tensor, channels: int, wave: tuple[int, int]) -> torch.Tensor:
        from freqrobust.numerics import noise

        return noise.uniform(ids, (channels,), seed=self.context.seed, stream=f"heat map {wave[0]} {wave[1]}")


def _drain(outputs: list[torch.Tensor] | None) -> torch.Tensor | None:
    """The layer's output of the last pass; the mean of all passes where a random model votes."""
    if outputs is None:
        return None
    if not outputs:
        from freqrobust.core.errors import SpecError

        raise SpecError("the layer takes no part in the model's predictions")
    total = outputs[0] if len(outputs) == 1 else sum(outputs[1:], outputs[0]) / len(outputs)
    outputs.clear()
    return total


def _mean(values: torch.Tensor, waves: list[tuple[int, int]], where: tuple[float, float]) -> float:
    """Mean over the directions whose distance from DC is in ``[low, high)``; 0 where there is none."""
    inside = [float(x) for x, (u, v) in zip(values, waves, strict=True) if where[0] <= math.hypot(u, v) < where[1]]
    return sum(inside) / len(inside) if inside else 0.0


def _rows(values: torch.Tensor, waves: list[tuple[int, int]], height: int, width: int) -> list[list[float]]:
    """Values by direction as a map, each at its frequency and at the conjugate one."""
    from freqrobust.numerics.frequency import conjugate

    rows = [[0.0] * width for _ in range(height)]
    for value, (u, v) in zip(values.tolist(), waves, strict=True):
        for a, b in ((u, v), conjugate(u, v, height, width)):
            rows[a + height // 2][b + width // 2] = value
    return rows
