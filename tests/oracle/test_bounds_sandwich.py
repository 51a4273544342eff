"""Lower and upper bounds of the robust accuracy: no certified sample has an adversarial example."""

from __future__ import annotations

import pytest
import torch

from freqrobust.data.loading import load_data
from freqrobust.plugins.certificate import CertificateContext
from freqrobust.plugins.context import AttackContext
from freqrobust.plugins.registry import attacks, certificates


@pytest.mark.slow
@pytest.mark.parametrize(("norm", "budgets"), [("linf", (0.004, 0.01, 0.02, 0.04)), ("l2", (0.03, 0.08, 0.15, 0.3))])
def test_no_certified_digit_has_an_adversarial_example(demo, norm, budgets) -> None:
    """25 images at four budgets, for both norms; both kinds of samples occur, and some that are neither."""
    ids = torch.arange(25)
    images, labels, _ = load_data("digits").batch(ids, torch.device("cpu"))
    counts = []
    for eps in budgets:
        found = {
            name: certificates.parse(f"{name}:eps={eps},norm={norm}")[0]
            .plugin.certify(demo, images, labels, CertificateContext(ids))
            .certified
            for name in ("ibp", "crown")
        }
        attack = attacks.parse(f"pgd:eps={eps},norm={norm},steps=20")[0].plugin
        examples = attack.perturb(demo, images, labels, AttackContext(ids, seed=0, goal="decide"))
        with torch.no_grad():
            robust = demo(examples).argmax(dim=1) == labels
        assert not (found["crown"] & ~robust).any()
        assert not (found["ibp"] & ~found["crown"]).any()
        counts.append((int(found["ibp"].sum()), int(found["crown"].sum()), int(robust.sum())))
    ibp, crown, robust_to_pgd = (sum(column) for column in zip(*counts, strict=True))
    assert ibp < crown < robust_to_pgd < 25 * len(budgets)
