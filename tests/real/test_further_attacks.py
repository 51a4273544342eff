"""L1 climbs, bands and waves on a real network: as strong as peers, and what the papers found."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from freqrobust import evaluate
from freqrobust.numerics.norms import norms

from .test_peers import optional, robust

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore:pkg_resources is deprecated:UserWarning"),
]
N = 100


@pytest.fixture(scope="module")
def samples(cifar):
    part = cifar.first(N)
    return part, *part.batch(torch.arange(N), torch.device("cpu"))[:2]


@pytest.mark.parametrize(("eps", "steps"), [(2.0, 20), (12.0, 10)])
def test_l1_pgd_is_not_weaker_than_foolbox(models, samples, eps, steps) -> None:
    """Against both of its L1 attacks that climb, with as many steps; SLIDE with 1 % of the pixels is the stronger one."""
    peer = optional("foolbox")
    part, images, labels = samples[0].first(50), samples[1][:50], samples[2][:50]
    model = models["resnet20"]
    ours = evaluate(model, part, attacks=[f"pgd:norm=l1,eps={eps},steps={steps}"], device="cpu").cells[1]
    wrapped = peer.PyTorchModel(model, bounds=(0, 1), device="cpu")
    for attack in (peer.attacks.SparseL1DescentAttack(steps=steps), peer.attacks.L1PGD(steps=steps)):
        torch.manual_seed(0)
        _, adversarial, _ = attack(wrapped, images, labels, epsilons=eps)
        assert norms(adversarial - images, "l1").max() <= eps * 1.0001
        assert ours.accuracy <= robust(model, images, labels, adversarial) + 0.02


def test_a_wave_of_high_frequency_breaks_most_samples(models, cifar) -> None:
    """Convolutional networks are sensitive to single Fourier directions (Tsuzuku and Sato 2019); random noise is not one."""
    attacks = ["fourier:samples=16", "noise:distribution=sign"]
    cells = evaluate(models["resnet20"], cifar.first(100), attacks=attacks, device="cpu", diagnose=None).cells
    assert cells[1].accuracy < 0.4
    assert cells[2].accuracy > cells[1].accuracy + 0.2


def test_low_frequencies_alone_are_harder_to_attack_with(models, samples) -> None:
    """A narrower band can only be weaker, and nearly all of the perturbation lies inside of it."""
    part, _, _ = samples
    cells = evaluate(
        models["resnet20"],
        part,
        attacks=[*(f"lowfreq-pgd:radius={r},eps=3/255,steps=10" for r in (4, 8, 12, 99)), "pgd:eps=3/255,steps=10"],
        device="cpu",
        diagnose=None,
    ).cells[1:]
    counts = [cell.correct for cell in cells]
    assert counts == sorted(counts, reverse=True)
    assert counts[0] >= counts[1] + 10
    assert abs(counts[3] - counts[4]) <= 2


def test_most_of_a_low_frequency_perturbation_is_in_its_band(models, samples) -> None:
    from freqrobust.plugins.context import AttackContext
    from freqrobust.plugins.registry import attacks

    images, labels = (part[:40] for part in samples[1:])
    attack = attacks.parse("lowfreq-pgd:radius=8,eps=8/255")[0].plugin
    found = (
        attack.perturb(models["resnet20"].eval(), images, labels, AttackContext(torch.arange(40), 0, "maximize"))
        - images
    )
    energy = np.abs(np.fft.fft2(found.double().numpy())) ** 2
    frequency = np.fft.fftfreq(32, 1 / 32)
    inside = np.hypot(frequency[:, None], frequency[None, :]) < 8
    share = (energy * inside).sum(axis=(1, 2, 3)) / energy.sum(axis=(1, 2, 3))
    assert share.mean() > 0.95
    assert np.median(share) > 0.98
