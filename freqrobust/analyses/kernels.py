"""The filters of the first layer, and the smoothness of every convolution."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from freqrobust.analyses._base import Record, only
from freqrobust.core.errors import SpecError
from freqrobust.core.numbers import Count
from freqrobust.harness.analysis import Analysis
from freqrobust.results.analysis import AnalysisResult, AnalysisTable

if TYPE_CHECKING:
    import torch
    from matplotlib.figure import Figure, SubFigure
    from torch import nn

    from freqrobust.data.dataset import ImageData
    from freqrobust.harness.analysis_context import AnalysisContext

#: Size of the DFT of a kernel in each direction; kernels are padded to it.
POINTS = 32


class LayerRecord(Record):
    """Smoothness of the kernels of one convolution, averaged over its filters weighted by their size."""

    layer: str
    shape: list[int] = Field(description="filters, input channels, height, width")
    total_variation: float = Field(
        description="sum of absolute differences of vertical and horizontal neighbours, over the sum of absolute weights"
    )
    high_share: float = Field(description="share of the filters' energy above half of the Nyquist frequency")
    low: float = Field(description="mean energy per frequency below half of Nyquist")
    high: float = Field(description="mean energy per frequency above half of Nyquist")


class KernelsResult(AnalysisResult):
    """Every convolution with a kernel larger than 1x1, in the order of the network."""

    layers: list[LayerRecord]
    first: list[list[list[list[float]]]] = Field(
        description="weights of the first convolution: filters, channels, rows, columns"
    )


class Kernels(Analysis):
    """The filters of the first layer, and the smoothness of every convolution.  (Wang et al., CVPR 2020, fig. 7)

    Smooth kernels have a small total variation and little energy at high frequencies. White noise has a share of
    high-frequency energy of 0.81, which is the share of the frequency plane above half of the Nyquist frequency.
    """

    needs_data: ClassVar[bool] = False

    filters: Count = Field(64, description="maximum number of first-layer filters to show")

    def run(self, model: nn.Module, data: ImageData, context: AnalysisContext) -> KernelsResult:
        from freqrobust.analyses._spectra import rows
        from freqrobust.harness.analysis_context import lean

        weights = convolutions(model)
        if not weights:
            raise SpecError(f"{context.label} has no convolution with a kernel larger than 1x1")
        layers = [measure(name, weight) for name, weight in weights]
        first = layers[0]
        return KernelsResult(
            layers=layers,
            first=[
                [rows(channel) for channel in kernel] for kernel in weights[0][1][: self.filters].detach().float().cpu()
            ],
            reading=lean(first.low, first.high),
            sentence=f"first layer: total variation {first.total_variation:.2f} per weight, {first.high_share:.1%} of "
            f"the energy above half of Nyquist",
        )

    def tables(self, results: Sequence[AnalysisResult]) -> list[AnalysisTable]:
        rows = []
        for result in only(results, KernelsResult):
            for layer in result.layers:
                size = " x ".join(map(str, layer.shape))
                numbers = [f"{layer.total_variation:.2f}", f"{100 * layer.high_share:.1f}"]
                rows.append([result.label, layer.layer, size, *numbers])
        columns = ["model", "layer", "kernels", "total variation", "high-frequency energy (%)"]
        return [AnalysisTable(title="Smoothness of the convolutions", columns=columns, rows=rows)]

    def draw(self, results: Sequence[AnalysisResult]) -> Figure:
        from freqrobust.results.figures import stacked

        shown = only(results, KernelsResult)
        return stacked(_filters(shown), _smoothness(shown))


def convolutions(model: nn.Module) -> list[tuple[str, torch.Tensor]]:
    """Name and weight ``(out, in, kh, kw)`` of every convolution larger than 1x1, without duplicates, in order."""
    from torch import nn

    from freqrobust.harness.analysis_context import short_name

    weights: dict[int, tuple[str, torch.Tensor]] = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d) and max(module.kernel_size) > 1:
            weights.setdefault(id(module.weight), (short_name(name), module.weight))
    return list(weights.values())


def measure(name: str, weight: torch.Tensor) -> LayerRecord:
    """Smoothness of kernels ``(out, in, kh, kw)``; sums over all kernels, so that large weights count more."""
    import torch

    from freqrobust.analyses._spectra import band_means, share_above
    from freqrobust.harness.analysis_context import LOW_SHARE

    kernels = weight.detach().cpu().double()
    variation = kernels.diff(dim=-1).abs().sum() + kernels.diff(dim=-2).abs().sum()
    size = [max(POINTS, side) for side in kernels.shape[-2:]]
    energy = torch.fft.fft2(kernels, s=size).abs().square().sum(dim=(0, 1))
    energy = torch.fft.fftshift(energy) / kernels[:, :, 0, 0].numel()
    radius = LOW_SHARE * min(size)
    low, high = band_means(energy, radius)
    return LayerRecord(
        layer=name,
        shape=list(kernels.shape),
        total_variation=float(variation / kernels.abs().sum().clamp_min(1e-300)),
        high_share=share_above(energy, radius),
        low=low,
        high=high,
    )


def _filters(results: Sequence[KernelsResult]) -> tuple[float, Callable[[SubFigure | Figure], None]]:
    """First-layer filters of all results side by side: in colour if they have three channels, else channel 0."""
    from freqrobust.results.figures import COLUMN, wrapped

    columns = min(len(results), 2)
    rows = -(-len(results) // columns)
    side = COLUMN / columns - 0.1

    def draw(part: SubFigure | Figure) -> None:
        axes = part.subplots(rows, columns, squeeze=False)
        for axis, result in zip(axes.flat, results, strict=False):
            axis.imshow(_mosaic(result.first), vmin=0, vmax=1, cmap="gray")
            axis.set_title(wrapped(result.label, 44 if columns == 1 else 24))
        for axis in axes.flat:
            axis.axis("off")

    return rows * (side * _mosaic_ratio(results) + 0.3), draw


def _mosaic_ratio(results: Sequence[KernelsResult]) -> float:
    shapes = [_mosaic(result.first).shape for result in results]
    return float(max(shape[0] / shape[1] for shape in shapes))


def _mosaic(first: list[list[list[list[float]]]]) -> Any:
    """Filters in a grid ``(H, W, 3)`` or ``(H, W)``, each scaled so that 0 is mid-grey, with white lines between."""
    import numpy as np

    weights = np.asarray(first)  # (n, c, h, w)
    count, channels, height, width = weights.shape
    across = int(np.ceil(np.sqrt(count)))
    down = -(-count // across)
    colours = 3 if channels == 3 else 1
    grid = np.ones((down * (height + 1) - 1, across * (width + 1) - 1, colours))
    for number, kernel in enumerate(weights):
        top, left = number // across * (height + 1), number % across * (width + 1)
        shown = kernel[:colours].transpose(1, 2, 0)
        grid[top : top + height, left : left + width] = 0.5 + 0.5 * shown / max(np.abs(shown).max(), 1e-12)
    return grid.squeeze()


def _smoothness(results: Sequence[KernelsResult]) -> tuple[float, Callable[[SubFigure | Figure], None]]:
    """Share of high-frequency energy and total variation of every convolution, by depth."""
    import torch

    from freqrobust.analyses._spectra import share_above
    from freqrobust.harness.analysis_context import LOW_SHARE
    from freqrobust.results.figures import Line, draw_lines

    def draw(part: SubFigure | Figure) -> None:
        above, below = part.subplots(2, 1, sharex=True)
        shares = [[100 * layer.high_share for layer in result.layers] for result in results]
        variations = [[layer.total_variation for layer in result.layers] for result in results]
        for axis, values, label in (
            (above, shares, "high-frequency\nenergy (%)"),
            (below, variations, "total variation\nper weight"),
        ):
            lines = [Line(r.label, range(1, len(y) + 1), y) for r, y in zip(results, values, strict=True)]
            draw_lines(axis, lines, markers=True)
            axis.set_ylabel(label)
            axis.set_ylim(bottom=0)
        white = 100 * share_above(torch.ones(POINTS, POINTS), LOW_SHARE * POINTS)
        above.set_ylim(0, 100)
        above.axhline(white, color="0.5", linewidth=0.6, linestyle=":")
        below.legend().remove()
        below.set_xlabel("convolution, in the order of the network (dotted: white noise)")
        below.xaxis.get_major_locator().set_params(integer=True)

    return 2.5, draw
