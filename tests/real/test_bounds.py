"""Certificates by bounds of a network that was trained for them, and of the demo, against attacks."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from freqrobust import ImageData
from freqrobust.certificates.bounds.lowering import network
from freqrobust.certificates.bounds.propagation import layer_bounds, margins
from freqrobust.certificates.bounds.region import Region
from freqrobust.plugins.certificate import CertificateContext
from freqrobust.plugins.context import AttackContext
from freqrobust.plugins.registry import attacks, certificates


@pytest.fixture
def robust(models) -> nn.Module:
    return models["cifar_small_36px"].eval()


def samples(cifar: ImageData, n: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return cifar.batch(torch.arange(n), torch.device("cpu"))


def certified(spec: str, model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return (
        certificates.parse(spec)[0]
        .plugin.certify(model, images, labels, CertificateContext(torch.arange(len(images))))
        .certified
    )


def robust_to_pgd(spec: str, model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    attack = attacks.parse(spec)[0].plugin
    found = attack.perturb(model, images, labels, AttackContext(torch.arange(len(images)), seed=0, goal="decide"))
    with torch.no_grad():
        return model(found).argmax(dim=1) == labels


@pytest.mark.parametrize(("budget", "count"), [("eps=1/255", 13), ("eps=36/255,norm=l2", 12)])
def test_counts_of_a_network_trained_for_certificates(robust, cifar, budget, count) -> None:
    """Linear bounds certify most samples that PGD does not misclassify, and none that it does; intervals certify none."""
    images, labels, _ = samples(cifar, 20)
    with torch.no_grad():
        right = robust(images).argmax(dim=1) == labels
    crown = certified(f"crown:{budget}", robust, images, labels)
    ibp = certified(f"ibp:{budget}", robust, images, labels)
    pgd = robust_to_pgd(f"pgd:{budget},steps=20", robust, images, labels)
    assert not (crown & ~(pgd & right)).any()
    assert not (ibp & ~crown).any()
    assert (int(crown.sum()), int(ibp.sum())) == (count, 0)


@pytest.mark.parametrize(("norm", "eps"), [("linf", 2 / 255), ("linf", 8 / 255), ("l2", 36 / 255)])
@torch.no_grad()
def test_logits_stay_within_their_bounds(robust, cifar, norm, eps) -> None:
    images, labels, _ = samples(cifar, 4)
    x = images.double()
    model = copy.deepcopy(robust).double()
    layers = network(model, x)
    for method in ("ibp", "crown-ibp", "crown"):
        bounds = layer_bounds(layers, Region(x, eps, norm), method)
        least = margins(bounds, labels).amin(dim=1)
        lower, upper = bounds.intervals[-1]
        for seed in range(25):
            noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(seed)).double()
            length = noise.flatten(1).norm(dim=1).view(-1, 1, 1, 1) if norm == "l2" else 1
            delta = noise / length if norm == "l2" else noise.sign()
            logits = model((x + eps * delta).clamp(0, 1))
            assert ((logits >= lower) & (logits <= upper)).all()
            own = logits.gather(1, labels[:, None])
            assert ((own - logits.scatter(1, labels[:, None], -torch.inf)).amin(dim=1) >= least).all()


@torch.no_grad()
def test_a_resnet_with_option_a_shortcuts(models, cifar) -> None:
    """Without a perturbation the bounds are the margins themselves; with a small one no logit leaves its bounds."""
    images, labels, _ = samples(cifar, 2)
    x = images.double()
    model = copy.deepcopy(models["resnet20"]).eval().double()
    layers = network(model, x)
    logits = model(x)
    expected = torch.stack([z[y] - torch.cat([z[:y], z[y + 1 :]]) for z, y in zip(logits, labels, strict=True)])
    for method in ("ibp", "crown-ibp"):
        found = margins(layer_bounds(layers, Region(x, 0.0, "linf"), method), labels)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
        bounds = layer_bounds(layers, Region(x, 1e-5, "linf"), method).intervals[-1]
        noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(0)).sign()
        moved = model((x + 1e-5 * noise).clamp(0, 1))
        assert ((moved >= bounds.lower) & (moved <= bounds.upper)).all()
