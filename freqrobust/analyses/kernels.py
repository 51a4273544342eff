"""First-layer filters as pictures, and how smooth every convolution is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

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

#: Points of the DFT that a kernel is padded to in each direction.
POINTS = 32


class LayerRecord(BaseModel):
    """How smooth the kernels of one convolution are, averaged over its filters, each weighted by its size."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    layer: str
    shape: list[int] = Field(description="filters, input channels of each, height, width")
    total_variation: float = Field(
        description="sum of |differences| of neighbours, vertical and horizontal, over the sum of |weights|"
    )
    high_share: float = Field(description="share of the filters' energy above half of the Nyquist frequency")
    low: float = Field(description="mean energy per frequency below half of Nyquist")
    high: float = Field(description="mean energy per frequency above it")


class KernelsResult(AnalysisResult):
    """Every convolution with a kernel larger than 1x1, in the order of the network."""

    layers: list[LayerRecord]
    first: list[list[list[list[float]]]] = Field(
        description="weights of the first one: filters, channels, rows, columns"
    )


class Kernels(Analysis):
    """First-layer filters as pictures, and the smoothness of every convolution.  (Wang et al., CVPR 2020, fig. 7)

    Smooth kernels have a small total variation and little energy at high frequencies. White noise has a share of
    high-frequency energy of 0.81: that is the area of the frequency plane above half of the Nyquist frequency.
    """

    needs_data: ClassVar[bool] = False

    filters: Count = Field(64, description="filters of the first layer to show, at most")

    def run(self, model: nn.Module, data: ImageData, context: AnalysisContext) -> KernelsResult:
        from freqrobust.analyses._spectra import rounded
        from freqrobust.harness.analysis_context import lean

        found = convolutions(model)
        if not found:
            raise SpecError(f"{context.label} has no convolution with a kernel larger than 1x1")
        layers = [measure(name, weight) for name, weight in found]
        weight = found[0][1][: self.filters].detach().float().cpu()
        first = [[[rounded(row) for row in channel] for channel in one] for one in weight]
        top = layers[0]
        return KernelsResult(
            layers=layers,
            first=first,
            reading=lean(top.low, top.high),
            sentence=f"first layer: total variation {top.total_variation:.2f} per weight, {top.high_share:.1%} of the "
            f"energy above half of Nyquist",
        )

    def tables(self, results: Sequence[AnalysisResult]) -> list[AnalysisTable]:
        rows = []
        for one in results:
            assert isinstance(one, KernelsResult)
            for layer in one.layers:
                size = " x ".join(map(str, layer.shape))
                numbers = [f"{layer.total_variation:.2f}", f"{100 * layer.high_share:.1f}"]
                rows.append([one.label, layer.layer, size, *numbers])
        columns = ["model", "layer", "kernels", "total variation", "high-frequency energy, %"]
        return [AnalysisTable(title="Smoothness of the convolutions", columns=columns, rows=rows)]

    def draw(self, results: Sequence[AnalysisResult]) -> Figure:
        from freqrobust.results.figures import stacked

        found = [one for one in results if isinstance(one, KernelsResult)]
        return stacked(_filters(found), _smoothness(found))


def convolutions(model: nn.Module) -> list[tuple[str, torch.Tensor]]:
    """Name and weight ``(out, in, kh, kw)`` of every convolution larger than 1x1, each once, in order."""
    from torch import nn

    from freqrobust.harness.analysis_context import short_name

    found: dict[int, tuple[str, torch.Tensor]] = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d) and max(module.kernel_size) > 1:
            found.setdefault(id(module.weight), (short_name(name), module.weight))
    return list(found.values())


def measure(name: str, weight: torch.Tensor) -> LayerRecord:
    """Smoothness of kernels ``(out, in, kh, kw)``; sums over all of them, so that large ones count more."""
    import torch

    from freqrobust.analyses._spectra import band_means, share_above
    from freqrobust.harness.analysis_context import LOW_SHARE

    kernels = weight.detach().cpu().double()
    rough = kernels.diff(dim=-1).abs().sum() + kernels.diff(dim=-2).abs().sum()
    size = [max(POINTS, side) for side in kernels.shape[-2:]]
    energy = torch.fft.fft2(kernels, s=size).abs().square().sum(dim=(0, 1))
    energy = torch.fft.fftshift(energy) / kernels[:, :, 0, 0].numel()
    radius = LOW_SHARE * min(size)
    low, high = band_means(energy, radius)
    return LayerRecord(
        layer=name,
        shape=list(kernels.shape),
        total_variation=float(rough / kernels.abs().sum().clamp_min(1e-300)),
        high_share=share_above(energy, radius),
        low=low,
        high=high,
    )


def _filters(results: Sequence[KernelsResult]) -> tuple[float, Callable[[SubFigure | Figure], None]]:
    """First-layer filters of all results side by side: as colours where they have three channels, else channel 0."""
    from freqrobust.results.figures import COLUMN, wrapped

    columns = min(len(results), 2)
    rows = -(-len(results) // columns)
    side = COLUMN / columns - 0.1

    def draw(part: SubFigure | Figure) -> None:
        axes = part.subplots(rows, columns, squeeze=False)
        for axis, one in zip(axes.flat, results, strict=False):
            axis.imshow(_mosaic(one.first), vmin=0, vmax=1, cmap="gray")
            axis.set_title(wrapped(one.label, 44 if columns == 1 else 24))
        for axis in axes.flat:
            axis.axis("off")

    return rows * (side * _mosaic_ratio(results) + 0.3), draw


def _mosaic_ratio(results: Sequence[KernelsResult]) -> float:
    shapes = [_mosaic(one.first).shape for one in results]
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
    for number, one in enumerate(weights):
        top, left = number // across * (height + 1), number % across * (width + 1)
        shown = one[:colours].transpose(1, 2, 0)
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
        depth = [list(range(1, len(one.layers) + 1)) for one in results]
        shares = [[100 * layer.high_share for layer in one.layers] for one in results]
        rough = [[layer.total_variation for layer in one.layers] for one in results]
        for axis, values, label in (
            (above, shares, "high-frequency\nenergy (%)"),
            (below, rough, "total variation\nper weight"),
        ):
            lines = [Line(one.label, x, y) for one, x, y in zip(results, depth, values, strict=True)]
            draw_lines(axis, lines, markers=True)
            axis.set_ylabel(label)
            axis.set_ylim(bottom=0)
        white = 100 * share_above(torch.ones(POINTS, POINTS), LOW_SHARE * POINTS)
        above.set_ylim(0, 100)
        above.axhline(white, color="0.5", linewidth=0.6, linestyle=":")
        below.legend().remove()
        below.set_xlabel("convolution, from the input on (dotted: white noise)")
        below.xaxis.get_major_locator().set_params(integer=True)

    return 2.5, draw
