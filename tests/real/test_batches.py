"""Batch sizes change nothing on real networks, up to floating-point ties: counts differ by one at most."""

from __future__ import annotations

import pytest

from freqrobust import evaluate

ATTACKS = ["lfc:radius=12", "hfc:radius=4", "fgsm:eps=1/255", "pgd:eps=1/255,steps=5"]
ROBUST = ["lfc:radius=4", "fgsm:eps=8/255", "pgd:eps=4/255,steps=5", "pgd:eps=0.5,norm=l2,steps=5,restarts=2"]


def counts(model, data, attacks, size, **options) -> list[int]:
    report = evaluate(model, data, attacks=attacks, device="cpu", batch_size=size, diagnose=None, **options)
    assert report.status == "complete"
    return [cell.correct for cell in report.cells]


def assert_close(found: dict[int, list[int]]) -> None:
    for column in zip(*found.values(), strict=True):
        assert max(column) - min(column) <= 1, found


@pytest.mark.slow
def test_resnet20_in_batches_of_7_and_all(models, cifar) -> None:
    part = cifar.first(100)
    assert_close({size: counts(models["resnet20"], part, ATTACKS, size) for size in (7, 500)})


@pytest.mark.slow
def test_resnet20_filtered_in_batches_of_128_and_500(models, cifar) -> None:
    assert_close({size: counts(models["resnet20"], cifar, ["lfc:radius=8"], size) for size in (128, 500)})


def test_resnet20_one_by_one(models, cifar) -> None:
    part = cifar.first(40)
    assert_close({size: counts(models["resnet20"], part, ATTACKS, size) for size in (1, 128)})


@pytest.mark.parametrize("defense", ["smooth:rho=0.1,layers=all", "lowpass:radius=8"])
def test_the_small_network_in_batches_of_any_size(models, cifar, defense) -> None:
    model, part = models["cifar_small_36px"], cifar.first(250)
    found = {size: counts(model, part, ROBUST, size, defenses=[defense], undefended=False) for size in (7, 250)}
    assert_close(found)


def test_the_small_network_one_by_one(models, cifar) -> None:
    model, part = models["cifar_small_36px"], cifar.first(40)
    assert_close({size: counts(model, part, ROBUST, size) for size in (1, 40)})
