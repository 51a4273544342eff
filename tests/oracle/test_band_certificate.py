"""Frequencies that an input filter removes change no logit."""

from __future__ import annotations

import pytest
import torch

from freqrobust.certificates.band import Band
from freqrobust.core.errors import SpecError
from freqrobust.defenses.gaussian_noise import GaussianNoise
from freqrobust.defenses.input_filter import HighPass, LowPass
from freqrobust.defenses.kernel_smoothing import KernelSmoothing
from freqrobust.numerics.frequency import band_pass
from freqrobust.plugins.certificate import CertificateContext
from freqrobust.plugins.context import DefenseContext
from support.networks import tiny

FILTERS = [
    LowPass(radius=2),
    LowPass(radius=2.5, shape="square"),
    HighPass(radius=3),
    HighPass(radius=3, shape="square", keep_mean=True),
]


def logits(defense, model, images: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return defense.apply(model, DefenseContext())(images)


@pytest.mark.parametrize("shape", [(8, 8), (7, 10), (9, 5)], ids=str)
@pytest.mark.parametrize("defense", FILTERS, ids=str)
def test_perturbations_of_removed_frequencies_change_nothing(defense, shape) -> None:
    """Random perturbations, twenty times as large as the pixels; those of the other frequencies do change the images."""
    torch.manual_seed(0)
    images, noise = torch.rand(6, 3, *shape), 20 * torch.randn(6, 3, *shape)
    band = defense.removed_band()
    outside = band_pass(noise, band.low, band.high, band.shape)
    assert float(outside.abs().amax()) > 1
    before = defense.transform(images)
    assert torch.allclose(defense.transform(images + outside), before, atol=1e-4)
    assert not torch.allclose(defense.transform(images + noise - outside), before, atol=0.1)


@pytest.mark.parametrize("defense", FILTERS, ids=str)
def test_no_logit_of_a_certified_sample_changes(defense) -> None:
    model, data = tiny()
    labels = logits(defense, model, data.images).argmax(dim=1)
    labels[0] = (labels[0] + 1) % 10
    context = CertificateContext(torch.arange(len(data)), 0, (defense,))
    defended = defense.apply(model, DefenseContext())
    assert Band().certify(defended, data.images, labels, context).certified.tolist() == [False] + [True] * 7
    band = defense.removed_band()
    torch.manual_seed(1)
    outside = band_pass(3 * torch.randn_like(data.images), band.low, band.high, band.shape)
    before, after = logits(defense, model, data.images), logits(defense, model, data.images + outside)
    assert torch.allclose(before, after, atol=1e-3 * float(before.abs().max()))
    assert torch.equal(before.argmax(dim=1), after.argmax(dim=1))


def test_it_says_which_frequencies() -> None:
    said = [Band().statement_about([defense]) for defense in FILTERS]
    assert "frequencies at distances of 2 or more cycles per image changes" in said[0]
    assert "distances of 2.5 or more cycles per image (square)" in said[1]
    assert "distances from 0 to less than 3 cycles per image" in said[2]
    assert "distances from 1 to less than 3 cycles per image (square)" in said[3]
    assert all("not clipped" in text for text in said)


def test_what_removes_nothing_is_refused() -> None:
    for chain in ([], [KernelSmoothing(rho=1.0)], [LowPass(radius=2), KernelSmoothing(rho=1.0)]):
        with pytest.raises(SpecError, match="needs a filter of the input as the outermost defense"):
            Band().check_defenses(chain)
    assert HighPass(radius=0).removed_band() is None
    assert HighPass(radius=1, keep_mean=True).removed_band() is None
    with pytest.raises(SpecError, match="GaussianNoise is stochastic"):
        Band().check_defenses([GaussianNoise(sigma=0.1), LowPass(radius=2)])
    model, data = tiny()
    wide = LowPass(radius=100)
    context = CertificateContext(torch.arange(len(data)), 0, (wide,))
    with pytest.raises(SpecError, match="images of 8 x 8 pixels have no frequencies at distances of 100 or more"):
        Band().certify(wide.apply(model, DefenseContext()), data.images, data.labels, context)
