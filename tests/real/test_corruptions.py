"""Corruptions and frequency shifts on a real network and real images."""

from __future__ import annotations

from freqrobust import evaluate
from freqrobust.plugins.corruption_names import COMMON, EXTRA

ALL = f"corruption:name=[{','.join(COMMON + EXTRA)}],severity="


def test_counts_do_not_depend_on_the_batch_size(models, cifar) -> None:
    part = cifar.first(30)
    attacks = [f"{ALL}3", "hybrid:radius=8", "phase-swap", "critical-band:center=4", "filtered-noise:l2=4,low=8"]
    found = [
        [cell.correct for cell in evaluate(models["resnet20"], part, attacks=attacks, device="cpu", batch_size=n).cells]
        for n in (7, 30)
    ]
    assert max(abs(a - b) for a, b in zip(*found, strict=True)) <= 1  # ties of the network, not of the images


def test_the_network_fails_gradually(models, cifar) -> None:
    """A naturally trained network on CIFAR-10: noise and blur hurt, brightness hardly, and severity 5 more than 1."""
    report = evaluate(models["resnet20"], cifar.first(100), attacks=[f"{ALL}[1,5]"], device="cpu")
    common, extra = report.corruptions
    by_name = {row.name: row.accuracies for row in (*common.rows, *extra.rows)}
    for name, accuracies in by_name.items():
        assert accuracies["1"] >= accuracies["5"] - 0.03, name
    assert by_name["brightness"]["5"] > 0.8
    assert by_name["gaussian_noise"]["5"] < 0.35
    assert by_name["contrast"]["5"] < 0.4
    assert 0.6 < common.mean_accuracy < 0.75


def test_low_pass_noise_hurts_less_than_high_pass_noise(models, cifar) -> None:
    """Yin et al. 2019, fig. 5: of two Gaussian noises of one norm, a natural network minds the high frequencies."""
    attacks = ["filtered-noise:l2=4,high=6", "filtered-noise:l2=4,low=12"]
    low, high = evaluate(models["resnet20"], cifar.first(200), attacks=attacks, device="cpu").cells[1:]
    assert low.accuracy > high.accuracy + 0.1
