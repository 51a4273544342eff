"""Mean Fourier spectra of images, of the changes made by shifts, and of adversarial perturbations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from freqrobust.analyses._base import SplitAnalysis, only
from freqrobust.core.errors import SpecError
from freqrobust.results.analysis import AnalysisResult, AnalysisTable, SpectrumRecord

if TYPE_CHECKING:
    import torch
    from matplotlib.figure import Figure
    from torch import nn

    from freqrobust.data.dataset import ImageData
    from freqrobust.harness.analysis_context import AnalysisContext
    from freqrobust.plugins.base import Attack
    from freqrobust.plugins.specs import PluginSpec


class SpectrumResult(AnalysisResult):
    """Spectra of images and shifts do not depend on the model and are in the first result only."""

    spectra: list[SpectrumRecord]


class Spectra(SplitAnalysis):
    """Mean Fourier amplitude of the images, of the changes of each shift and of the perturbations of each attack.

    For every sample, the perturbation is the one with the highest loss that the attack reaches.  (Yin et al. 2019)
    """

    attacks: list[str] = Field(
        [], description="adversarial attacks, may be repeated; default pgd:eps=8/255,steps=20; none: no attack"
    )
    shifts: list[str] = Field(
        [], description="shifts or suites of shifts, may be repeated; default: the suite corruptions; none: no shift"
    )
    severity: int = Field(3, ge=1, le=5, description="severity of the shifts that have one")

    def run(self, model: nn.Module, data: ImageData, context: AnalysisContext) -> SpectrumResult:
        from freqrobust.harness.analysis_context import lean

        radius = self.split(data.shape)
        attacks, shifts = self.attack_specs(), self._shifts(data.shape)
        spectra: list[SpectrumRecord] = []

        def of_the_data() -> bool:
            spectra.append(_images(context, radius))
            spectra.extend(_difference(context, name, shift, "shift", radius) for name, shift in shifts.items())
            return True

        context.once("spectra of the data", of_the_data)
        perturbations = [_difference(context, attack.spec, attack, "adversarial", radius) for attack in attacks]
        result = SpectrumResult(spectra=[*spectra, *perturbations])
        if perturbations:
            first = perturbations[0]
            result.reading = lean(first.low, first.high)
            result.sentence = (
                f"{first.source}: {first.above:.1%} of the energy is at {radius:g} cycles per image or above"
            )
        return result

    def attack_specs(self) -> list[PluginSpec[Attack]]:
        from freqrobust.plugins.selection import parse_attacks

        if self.attacks == ["none"]:
            return []
        parsed = parse_attacks(self.attacks or ["pgd:eps=8/255,steps=20"])
        for attack in parsed:
            if attack.plugin.kind != "adversarial":
                raise SpecError(f"expected an adversarial attack, but {attack.spec} is a shift; give it with --shifts")
        return parsed

    def _shifts(self, shape: tuple[int, ...]) -> dict[str, PluginSpec[Attack]]:
        from freqrobust.analyses._shifts import shift_groups

        if self.shifts == ["none"]:
            return {}
        return {name: group[0] for name, group in shift_groups(self.shifts, shape, [self.severity]).items()}

    def tables(self, results: Sequence[AnalysisResult]) -> list[AnalysisTable]:
        from freqrobust.analyses._spectra import band_columns, band_numbers

        rows = []
        shown = [(result, spectrum) for result in only(results, SpectrumResult) for spectrum in result.spectra]
        for result, spectrum in shown:
            model = result.label if spectrum.kind == "adversarial" else "(data)"
            rows.append([spectrum.source, model, *band_numbers(spectrum)])
        columns = ["spectrum of", "model", *band_columns(shown[0][1].radius if shown else 0.0)]
        return [AnalysisTable(title="Mean Fourier amplitude (unitary DFT)", columns=columns, rows=rows)]

    def draw(self, results: Sequence[AnalysisResult]) -> Figure | None:
        from freqrobust.results.figures import Maps, profiles, stacked

        spectra = [(result.label, spectrum) for result in only(results, SpectrumResult) for spectrum in result.spectra]
        shared = [(spectrum.source, spectrum) for _, spectrum in spectra if spectrum.kind != "adversarial"]
        made = [(label, spectrum) for label, spectrum in spectra if spectrum.kind == "adversarial"]
        if len({spectrum.source for _, spectrum in made}) > 1:
            made = [(f"{spectrum.source}, {label}", spectrum) for label, spectrum in made]
        parts = [_maps(shared, "mean amplitude", 2 if len(shared) < 3 else 4), _maps(made, "perturbation", 2)]
        lines = [(title, spectrum.profile) for title, spectrum in made or shared]
        maps = [(part.height, part.draw) for part in parts if isinstance(part, Maps)]
        radius = spectra[0][1].radius if spectra else 0.0
        return stacked(*maps, profiles(lines, "mean amplitude", radius, logarithmic=True)) if lines else None


def _maps(panels: list[tuple[str, SpectrumRecord]], label: str, columns: int) -> object:
    """Amplitudes on one logarithmic scale of at most three decades; None if there are no panels."""
    from freqrobust.results.figures import Maps

    if not panels:
        return None
    values = [(title, spectrum.amplitude) for title, spectrum in panels]
    high = max(max(map(max, rows)) for _, rows in values) or 1.0
    low = max(min(min(map(min, rows)) for _, rows in values), high * 1e-3)
    return Maps(values, label, low if low < high else high / 10, high, logarithmic=True, columns=columns)


def _images(context: AnalysisContext, radius: float) -> SpectrumRecord:
    from freqrobust.analyses._spectra import Spectrum

    total = Spectrum(*context.data.shape[1:])
    context.each_batch("spectrum of the images", lambda images, labels, ids, chunk: total.add(images))
    return total.record("images", "images", radius)


def _difference(
    context: AnalysisContext,
    name: str,
    attack: PluginSpec[Attack],
    kind: Literal["shift", "adversarial"],
    radius: float,
) -> SpectrumRecord:
    from freqrobust.analyses._spectra import Spectrum

    total = Spectrum(*context.data.shape[1:])
    changed = context.attacker(attack)

    def work(images: torch.Tensor, labels: torch.Tensor, ids: torch.Tensor, chunk: torch.Tensor) -> None:
        total.add(changed(images, labels, ids) - images)

    context.each_batch(f"spectrum of {name}", work)
    return total.record(name, kind, radius)
