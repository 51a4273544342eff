"""Mean Fourier spectra of images, of what shifts change, and of what attacks change."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import Field

from freqrobust.core.errors import SpecError
from freqrobust.harness.analysis import Analysis
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
    """Spectra of images and of shifts do not depend on the model: the first result holds them."""

    spectra: list[SpectrumRecord]


class Spectra(Analysis):
    """Mean Fourier amplitude of images, of each shift's difference and of each attack's perturbation.

    Perturbations are those of the highest loss that the attack finds, for every sample.  (Yin et al. 2019)
    """

    attacks: list[str] = Field(
        [], description="adversarial attacks, may be repeated; default pgd:eps=8/255,steps=20; none for none"
    )
    shifts: list[str] = Field(
        [], description="shifts or suites of them, may be repeated; default corruptions; none for none"
    )
    severity: int = Field(3, ge=1, le=5, description="severity of the shifts that have one")
    radius: float | None = Field(
        None, gt=0, description="where the high frequencies begin, cycles per image; default half of Nyquist"
    )

    def run(self, model: nn.Module, data: ImageData, context: AnalysisContext) -> SpectrumResult:
        from freqrobust.harness.analysis_context import lean, split_radius

        radius = self.radius if self.radius is not None else split_radius(data.shape)
        attacks, shifts = self._attacks(), self._shifts(data.shape)
        spectra: list[SpectrumRecord] = []

        def of_the_data() -> bool:
            spectra.append(_images(context, radius))
            spectra.extend(_difference(context, name, one, "shift", radius) for name, one in shifts.items())
            return True

        context.once("spectra of the data", of_the_data)
        made = [_difference(context, one.spec, one, "adversarial", radius) for one in attacks]
        result = SpectrumResult(spectra=[*spectra, *made])
        if made:
            first = made[0]
            result.reading = lean(first.low, first.high)
            result.sentence = (
                f"{first.source}: {first.above:.1%} of the energy at {radius:g} cycles per image and above"
            )
        return result

    def _attacks(self) -> list[PluginSpec[Attack]]:
        from freqrobust.plugins.selection import parse_attacks

        if self.attacks == ["none"]:
            return []
        found = parse_attacks(self.attacks or ["pgd:eps=8/255,steps=20"])
        for one in found:
            if one.plugin.kind != "adversarial":
                raise SpecError(f"{one.spec} is a shift; give it as one of the shifts")
        return found

    def _shifts(self, shape: tuple[int, ...]) -> dict[str, PluginSpec[Attack]]:
        from freqrobust.analyses._shifts import shift_groups

        if self.shifts == ["none"]:
            return {}
        return {name: group[0] for name, group in shift_groups(self.shifts, shape, [self.severity]).items()}

    def tables(self, results: Sequence[AnalysisResult]) -> list[AnalysisTable]:
        rows = []
        for result in results:
            assert isinstance(result, SpectrumResult)
            for one in result.spectra:
                owner = result.label if one.kind == "adversarial" else "data"
                numbers = [f"{100 * one.above:.1f}", f"{one.low:.3g}", f"{one.high:.3g}"]
                rows.append([one.source, owner, *numbers])
        radius = next((s.radius for r in results if isinstance(r, SpectrumResult) for s in r.spectra), 0.0)
        columns = ["spectrum of", "model", f"energy from {radius:g} on, %", "energy per frequency below", "above"]
        return [AnalysisTable(title="Mean Fourier amplitude (unitary DFT)", columns=columns, rows=rows)]

    def draw(self, results: Sequence[AnalysisResult]) -> Figure | None:
        from freqrobust.results.figures import Maps, profiles, stacked

        found = [one for one in results if isinstance(one, SpectrumResult)]
        shared = [one for result in found for one in result.spectra if one.kind != "adversarial"]
        made = [(r.label, one) for r in found for one in r.spectra if one.kind == "adversarial"]
        several = len({one.source for _, one in made}) > 1
        titles = [(f"{one.source}, {label}" if several else label, one) for label, one in made]
        parts = [
            _maps([(one.source, one) for one in shared], "mean amplitude", 2 if len(shared) < 3 else 4),
            _maps(titles, "perturbation", 2),
        ]
        lines = [(title, one.profile) for title, one in titles] or [(one.source, one.profile) for one in shared]
        radius = (made[0][1] if made else shared[0]).radius if lines else 0.0
        drawn = [(one.height, one.draw) for one in parts if isinstance(one, Maps)]
        return stacked(*drawn, profiles(lines, "mean amplitude", radius, logarithmic=True)) if lines else None


def _maps(panels: list[tuple[str, SpectrumRecord]], label: str, columns: int) -> object:
    """Amplitudes on one logarithmic scale of at most three decades; None without panels."""
    from freqrobust.results.figures import Maps

    if not panels:
        return None
    top = max(max(map(max, one.amplitude)) for _, one in panels) or 1.0
    least = min(min(map(min, one.amplitude)) for _, one in panels)
    low = max(least, top * 1e-3)
    values = [(title, one.amplitude) for title, one in panels]
    return Maps(values, label, low if low < top else top / 10, top, logarithmic=True, columns=columns)


def _images(context: AnalysisContext, radius: float) -> SpectrumRecord:
    from freqrobust.analyses._spectra import Spectrum

    total = Spectrum(*context.data.shape[1:])
    context.each_batch("spectrum of the images", lambda images, labels, ids, chunk: total.add(images))
    return total.record("images", "images", radius)


def _difference(
    context: AnalysisContext, name: str, attack: PluginSpec[Attack], kind: str, radius: float
) -> SpectrumRecord:
    from freqrobust.analyses._spectra import Spectrum

    total = Spectrum(*context.data.shape[1:])
    changed = context.attacker(attack)

    def work(images: torch.Tensor, labels: torch.Tensor, ids: torch.Tensor, chunk: torch.Tensor) -> None:
        total.add(changed(images, labels, ids) - images)

    context.each_batch(f"spectrum of {name}", work)
    return total.record(name, "adversarial" if kind == "adversarial" else "shift", radius)
