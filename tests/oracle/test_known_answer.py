"""A known answer: images whose label only low frequencies carry, only high ones, or both.

The label is the orientation of a texture, horizontal or vertical. There is one texture of low and one of high
frequencies in every image; the one that does not carry the label has an orientation of its own. A small network
trained on each kind of images depends on what carries the label, and every analysis has to say so.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Literal

import pytest
import torch
from torch import nn

from freqrobust import ImageData, analyze
from freqrobust.data.dataset import check
from freqrobust.harness.analysis import analyses
from freqrobust.results.analysis_record import AnalysisRecord
from freqrobust.training.loop import fit
from freqrobust.training.plan import sgd_plan

Carrier = Literal["low", "high", "both"]
SIDE = 16
STRENGTH = {"low": 0.12, "high": 0.07}
BANDS = {"low": (1.0, 4.0), "high": (5.0, 8.0)}
#: A shift of the tests' own: noise of one band, the same strength at every band.
NOISE = """
from typing import ClassVar
from pydantic import Field
from freqrobust import Attack


class BandNoise(Attack):
    kind: ClassVar = "shift"
    needs_gradient: ClassVar = False
    low: float = Field(examples=["1"])
    high: float = Field(examples=["2"])

    def perturb(self, model, images, labels, context):
        from freqrobust.numerics.frequency import band_pass

        noise = band_pass(context.normal(images.shape[1:], "noise"), self.low, self.high)
        return images + 0.17 * noise / noise.std(dim=(1, 2, 3), keepdim=True)
"""
NOISES = [(1, 2), (1, 3), (2, 3), (2, 4), (3, 4), (5, 6), (5, 7), (6, 7), (6, 8), (7, 8)]
SPECS = {
    "heatmap": "heatmap",
    "misalignment": "misalignment:gallery=0",
    "spectrum": "spectrum:shifts=[none],attacks=[[pgd:eps=0.1,steps=5]]",
    "energy": "energy:shifts=[" + ",".join(f"[noise.py:BandNoise:low={a},high={b}]" for a, b in NOISES) + "]",
    "kernels": "kernels",
    "sensitivity": "sensitivity",
    "radius-curve": "radius-curve",
}


def texture(vertical: torch.Tensor, band: str, generator: torch.Generator) -> torch.Tensor:
    """Noise of one band, ``(N, 16, 16)``: frequencies within 45 degrees of one axis or of the other."""
    u = torch.fft.fftfreq(SIDE, 1 / SIDE)[:, None]
    v = torch.fft.fftfreq(SIDE, 1 / SIDE)[None, :]
    distance = torch.hypot(u, v)
    low, high = BANDS[band]
    inside = (distance >= low) & (distance < high)
    masks = torch.stack([inside & (u.abs() > v.abs()), inside & (v.abs() > u.abs())]).float()
    noise = torch.randn(len(vertical), SIDE, SIDE, generator=generator)
    found = torch.fft.ifft2(torch.fft.fft2(noise) * masks[vertical]).real
    return found / found.std(dim=(1, 2), keepdim=True)


def images(carrier: Carrier, n: int, seed: int, gaps: bool = False) -> ImageData:
    """With ``gaps`` one of two textures that both carry the label is missing in most images, so that both are needed."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 2, (n,), generator=generator)
    other = torch.randint(0, 2, (n,), generator=generator)
    pixels = torch.full((n, SIDE, SIDE), 0.5)
    which = torch.randint(0, 3, (n,), generator=generator)  # the missing one; 2 stands for neither
    for number, band in enumerate(BANDS):
        carries = carrier in (band, "both")
        strength = torch.full((n, 1, 1), STRENGTH[band] * (1.0 if carries else 1.5))
        if gaps and carrier == "both":
            strength[which == number] = 0.0
        pixels += texture(labels if carries else other, band, generator) * strength
    pixels.clamp_(0, 1)
    return check(pixels[:, None], labels, f"{carrier} frequencies", 2)


class Energies(nn.Module):
    """Energy of what a few 7 x 7 filters let pass: enough to tell orientations apart, whatever phase and brightness."""

    def __init__(self) -> None:
        super().__init__()
        self.filters = nn.Conv2d(1, 8, 7, bias=False)
        self.scale = nn.BatchNorm1d(8)
        self.linear = nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        energy = self.filters(x - x.mean(dim=(2, 3), keepdim=True)).square().mean(dim=(2, 3))
        logits: torch.Tensor = self.linear(self.scale((energy + 1e-6).log()))
        return logits


def trained(carrier: Carrier, seed: int = 0) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Energies()
    recipe = sgd_plan(30, 0.1, batch_size=64, weight_decay=5e-3)
    fit(model, images(carrier, 768, 10 + seed, gaps=True), recipe, device=torch.device("cpu"), seed=seed)
    return model.eval()


@pytest.fixture(scope="module")
def models() -> dict[str, nn.Module]:
    """The reference comes first: energies are read against a model that depends on both."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        found = {carrier: trained(carrier) for carrier in ("low", "high", "both")}  # type: ignore[arg-type]
        return {"reference": copy.deepcopy(found["both"])} | found
    finally:
        torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def data() -> ImageData:
    """Images on which every model is right: both textures carry the label."""
    return images("both", 128, 99)


def look(name: str, models: dict[str, nn.Module], data: ImageData) -> AnalysisRecord:
    return analyze(models, data, SPECS[name], device="cpu")


@pytest.mark.parametrize("carrier", ["low", "high", "both"])
def test_the_models_have_learned(carrier: Carrier, models: dict[str, nn.Module], data: ImageData) -> None:
    pixels, labels, _ = data.batch(torch.arange(len(data)), torch.device("cpu"))
    with torch.no_grad():
        assert float((models[carrier](pixels).argmax(dim=1) == labels).float().mean()) > 0.95


@pytest.mark.parametrize("name", sorted(SPECS))
def test_every_analysis_says_which(
    name: str, models: dict[str, nn.Module], data: ImageData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("noise.py").write_text(NOISE, encoding="utf-8")
    found = {one.label: one.reading for one in look(name, models, data).results}
    assert {label: found[label] for label in ("low", "high", "both")} == {"low": "low", "high": "high", "both": "both"}


def test_no_analysis_is_left_out() -> None:
    ours = {name for name in analyses.names() if analyses.get(name).__module__.startswith("freqrobust.")}
    assert ours == set(SPECS) | {"robustness-curve", "aum"}  # which say nothing about frequencies
