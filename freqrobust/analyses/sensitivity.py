"""Fourier sensitivity: the dependence of the loss on the frequencies of the input."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import Field

from freqrobust.analyses._base import SplitAnalysis, only
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


class Sensitivity(SplitAnalysis):
    """Unitary DFT of the gradient of the cross-entropy with respect to the image.  (Krishnamachari et al. 2022)

    As the DFT is unitary, this is the gradient with respect to the image's Fourier coefficients. Gradients are not
    rescaled, so samples with large gradients count more; ``unit=true`` scales every gradient to length 1 first.
    """

    unit: bool = Field(False, description="scale the gradient of every sample to length 1 first")

    def run(self, model: nn.Module, data: ImageData, context: AnalysisContext) -> SensitivityResult:
        from freqrobust.analyses._spectra import Spectrum
        from freqrobust.harness.analysis_context import lean
        from freqrobust.numerics.norms import length, per_sample

        radius = self.split(data.shape)
        total = Spectrum(*data.shape[1:])

        def work(images: torch.Tensor, labels: torch.Tensor, ids: torch.Tensor, chunk: torch.Tensor) -> None:
            gradient = context.gradient(images, labels, ids)
            if self.unit:
                gradient = gradient / per_sample(length(gradient).clamp_min(1e-30), gradient)
            total.add(gradient)

        context.each_batch("gradients", work)
        spectrum = total.record("gradient", "gradient", radius)
        return SensitivityResult(
            spectrum=spectrum,
            reading=lean(spectrum.low, spectrum.high),
            sentence=f"{spectrum.above:.1%} of the gradient's energy is at {radius:g} cycles per image or above",
        )

    def tables(self, results: Sequence[AnalysisResult]) -> list[AnalysisTable]:
        from freqrobust.analyses._spectra import band_columns, band_numbers

        shown = only(results, SensitivityResult)
        rows = [[result.label, *band_numbers(result.spectrum), str(result.reading)] for result in shown]
        columns = ["model", *band_columns(shown[0].spectrum.radius), "depends on"]
        return [AnalysisTable(title="Fourier sensitivity: amplitude of the input gradient", columns=columns, rows=rows)]

    def draw(self, results: Sequence[AnalysisResult]) -> Figure:
        from freqrobust.results.figures import Maps, profiles, stacked

        shown = only(results, SensitivityResult)
        scaled = [(result.label, _relative(result.spectrum.amplitude)) for result in shown]
        maps = Maps(scaled, "share of the maximum", 0.0, 1.0)
        lines = [(result.label, _shares(result.spectrum.profile)) for result in shown]
        return stacked((maps.height, maps.draw), profiles(lines, "share of amplitude", shown[0].spectrum.radius))


def _relative(rows: list[list[float]]) -> list[list[float]]:
    """Values as shares of the maximum."""
    maximum = max(map(max, rows)) or 1.0
    return [[value / maximum for value in row] for row in rows]


def _shares(profile: list[float]) -> list[float]:
    """A profile that sums to 1, as the gradients of models differ by orders of magnitude."""
    total = sum(profile) or 1.0
    return [value / total for value in profile]
