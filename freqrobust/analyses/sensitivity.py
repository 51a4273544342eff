"""Fourier sensitivity: which frequencies of the input the loss depends on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import Field

from freqrobust.harness.analysis import Analysis
from freqrobust.results.analysis import AnalysisResult, AnalysisTable, SpectrumRecord

if TYPE_CHECKING:
    import torch
    from matplotlib.figure import Figure
    from torch import nn

    from freqrobust.data.dataset import ImageData
    from freqrobust.harness.analysis_context import AnalysisContext


class SensitivityResult(AnalysisResult):
    """The mean amplitude of the input gradient's unitary DFT."""

    spectrum: SpectrumRecord


class Sensitivity(Analysis):
    """Unitary DFT of the gradient of the cross-entropy in the image.  (Krishnamachari et al. 2022)

    As the DFT is unitary, this is the gradient in the image's Fourier coefficients. Gradients are not rescaled, so
    samples near a decision count more; ``unit`` scales every sample's gradient to length 1 first.
    """

    radius: float | None = Field(
        None, gt=0, description="where the high frequencies begin, cycles per image; default half of Nyquist"
    )
    unit: bool = Field(False, description="scale the gradient of every sample to length 1 first")

    def run(self, model: nn.Module, data: ImageData, context: AnalysisContext) -> SensitivityResult:
        from freqrobust.analyses._spectra import Spectrum
        from freqrobust.harness.analysis_context import lean, split_radius
        from freqrobust.numerics.norms import length, per_sample

        radius = self.radius if self.radius is not None else split_radius(data.shape)
        total = Spectrum(*data.shape[1:])

        def work(images: torch.Tensor, labels: torch.Tensor, ids: torch.Tensor, chunk: torch.Tensor) -> None:
            gradient = context.gradient(images, labels, ids)
            if self.unit:
                gradient = gradient / per_sample(length(gradient).clamp_min(1e-30), gradient)
            total.add(gradient)

        context.each_batch("gradients", work)
        found = total.record("gradient", "gradient", radius)
        return SensitivityResult(
            spectrum=found,
            reading=lean(found.low, found.high),
            sentence=f"{found.above:.1%} of the gradient's energy at {radius:g} cycles per image and above",
        )

    def tables(self, results: Sequence[AnalysisResult]) -> list[AnalysisTable]:
        rows = []
        for one in results:
            assert isinstance(one, SensitivityResult)
            found = one.spectrum
            numbers = [f"{100 * found.above:.1f}", f"{found.low:.3g}", f"{found.high:.3g}"]
            rows.append([one.label, *numbers, str(one.reading)])
        radius = next((r.spectrum.radius for r in results if isinstance(r, SensitivityResult)), 0.0)
        columns = ["", f"energy from {radius:g} on, %", "energy per frequency below", "above", "depends on"]
        return [AnalysisTable(title="Fourier sensitivity: amplitude of the input gradient", columns=columns, rows=rows)]

    def draw(self, results: Sequence[AnalysisResult]) -> Figure:
        from freqrobust.results.figures import Maps, profiles, stacked

        found = [one for one in results if isinstance(one, SensitivityResult)]
        scaled = [(one.label, _share_of_top(one.spectrum.amplitude)) for one in found]
        maps = Maps(scaled, "share of its largest", 0.0, 1.0)
        lines = [(one.label, _shares(one.spectrum.profile)) for one in found]
        return stacked((maps.height, maps.draw), profiles(lines, "share of amplitude", found[0].spectrum.radius))


def _share_of_top(rows: list[list[float]]) -> list[list[float]]:
    top = max(map(max, rows)) or 1.0
    return [[value / top for value in row] for row in rows]


def _shares(profile: list[float]) -> list[float]:
    """A profile that sums to 1: models differ in the size of their gradients by orders of magnitude."""
    total = sum(profile) or 1.0
    return [value / total for value in profile]
