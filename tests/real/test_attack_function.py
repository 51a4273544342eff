"""``attack`` on a real network and real images."""

from __future__ import annotations

from typing import Any

import torch

from freqrobust import ImageData, attack, evaluate


def test_the_examples_are_those_that_evaluate_counts(models: Any, cifar: ImageData) -> None:
    network, data = next(iter(models.values())), cifar.first(40)
    spec = "pgd:eps=1/255,steps=5"
    result = attack(network, data.images, data.labels, spec, goal="decide", device="cpu", batch_size=16)
    report = evaluate(network, data, attacks=[spec], diagnose=None, device="cpu")
    assert 0 < report.cells[1].correct < report.cells[0].correct
    assert int((~result.is_adversarial).sum()) == report.cells[1].correct
    assert float(result.distances["linf"].max()) <= 1 / 255 + 1e-6
    whole = attack(network, data.images, data.labels, spec, device="cpu")
    single = attack(network, data.images[:1], data.labels[:1], spec, device="cpu")
    torch.testing.assert_close(single.images, whole.images[:1], atol=2e-3, rtol=0)
