"""Certificates of a real network on real images."""

from __future__ import annotations

import torch

from freqrobust import evaluate


def test_resnet20_smoothed_by_little_noise(models, cifar) -> None:
    """Other noise, drawn by torch, gives certified samples their label by a clear majority, and shrinks with the radius."""
    model, part = models["resnet20"], cifar.first(6)
    report = evaluate(
        model,
        part,
        attacks=["clean"],
        defenses=["randomized-smoothing:sigma=0.05,copies=2"],
        certify=["smoothing:eps=[0.001,0.03,0.06],n=60,n0=20,alpha=0.01"],
        undefended=False,
        diagnose=None,
        device="cpu",
    )
    assert report.status == "complete"
    first, *_ = report.certificates
    counts = [record.certified for record in report.certificates]
    assert counts == sorted(counts, reverse=True)
    assert counts[0] > counts[2]
    radii = first.certified_radii()
    assert radii is not None
    images, labels, _ = part.batch(torch.arange(6), torch.device("cpu"))
    generator = torch.Generator().manual_seed(7)
    for index in range(6):
        noise = torch.randn(60, *part.shape, generator=generator)
        with torch.no_grad():
            votes = model(images[index] + 0.05 * noise).argmax(dim=1) == labels[index]
        share = float(votes.float().mean())
        # p >= Phi(radius / sigma) holds with confidence 99 %; four standard errors of 60 draws are at most 0.26
        least = float(torch.special.ndtr(torch.tensor(float(radii[index]) / 0.05)))
        assert share >= least - 0.26 if radii[index] > 0 else share < 0.95
