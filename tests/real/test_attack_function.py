"""``attack`` on a real network and real images."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from freqrobust import ImageData, attack, evaluate, wrap


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


def test_a_loop_written_by_hand_gives_the_same_accuracies(models: Any, cifar: ImageData) -> None:
    loaded, eps, spec = next(iter(models.values())), 2 / 255, "fgsm:eps=2/255"
    network, mean, std = loaded.network, loaded.normalization.mean, loaded.normalization.std
    images, labels, _ = cifar.batch(torch.arange(50), torch.device("cpu"))
    normalized = [torch.tensor(values)[:, None, None] for values in (mean, std)]

    def logits(pixels: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = network((pixels - normalized[0]) / normalized[1])
        return found

    network.eval()
    varied = images.clone().requires_grad_()
    # summed, as in attacks: of the mean, the gradients of confident predictions are rounded in another way
    (gradient,) = torch.autograd.grad(cross_entropy(logits(varied), labels, reduction="sum"), varied)
    with torch.no_grad():
        expected = (images + eps * gradient.sign()).clamp(0, 1)
        right = [logits(pixels).argmax(dim=1) == labels for pixels in (images, expected)]

    wrapped, loader = wrap(network, mean, std), DataLoader(TensorDataset(images, labels), batch_size=16)
    report = evaluate(wrapped, loader, attacks=["clean", spec], diagnose=None, device="cpu")
    assert [cell.correct for cell in report.cells] == [int(which.sum()) for which in right]
    result = attack(wrapped, images, labels, spec, device="cpu")
    assert torch.equal(result.is_adversarial, ~right[1])
    assert float((result.images != expected).float().mean()) < 1e-3  # gradients of about zero
