"""A run measured in many blocks of samples is the run measured in one, bit for bit, for every plugin."""

from __future__ import annotations

from typing import ClassVar, Literal

import pytest

from freqrobust import Attack
from freqrobust.attacks.pgd import PGD
from freqrobust.harness.blocks import blocks
from freqrobust.plugins.registry import attacks, certificates
from support.sharing import content, in_blocks_of, shared_report

#: Certificates that are about a defense.
DEFENSE = {"smoothing": "randomized-smoothing:sigma=0.25,copies=3", "band": "lowpass:radius=2"}
CERTIFICATE = {"eps": 0.01, "n": 60, "n0": 20}


@pytest.fixture
def measured(monkeypatch, network, digits):
    """``measured(block, n=30, **options)``: the report of a run in blocks of that size, without timings."""

    def measure(block: int, n: int = 30, **options):
        in_blocks_of(monkeypatch, block)
        return content(shared_report(network, digits.first(n), **options))

    return measure


@pytest.mark.parametrize("name", [name for name in attacks.names() if attacks.get(name).batch_invariant])
def test_an_attack_in_many_blocks_is_the_attack_in_one(measured, make, name) -> None:
    attack = make(attacks, name)
    assert measured(10, attacks=[attack]) == measured(30, attacks=[attack])


class Whole(Attack):
    """Looks at all samples first."""

    kind: ClassVar[Literal["adversarial", "shift"]] = "shift"

    def prepare(self, samples, context):
        return len(samples.ids)

    def perturb(self, model, images, labels, context):
        return images


class Together(Attack):
    """Depends on its batch."""

    batch_invariant: ClassVar[bool] = False

    def perturb(self, model, images, labels, context):
        return images


@pytest.mark.parametrize(
    ("n", "attack", "batch_size", "expected"),
    [
        (25, None, 4, [(0, 10), (10, 20), (20, 25)]),
        (20, PGD(), 4, [(0, 10), (10, 20)]),
        (9, PGD(), 4, [(0, 9)]),
        (25, Whole(), 4, [(0, 25)]),
        (25, Together(), 4, [(0, 12), (12, 24), (24, 25)]),
        (25, Together(), 5, [(0, 10), (10, 20), (20, 25)]),
        (25, Together(), 100, [(0, 25)]),
        (64 * 10, None, 4, [(start, start + 10) for start in range(0, 640, 10)]),
        (64 * 10 + 1, None, 4, [(start, min(start + 20, 641)) for start in range(0, 641, 20)]),
    ],
)
def test_blocks_follow_from_the_data_and_the_plugin(monkeypatch, n, attack, batch_size, expected) -> None:
    in_blocks_of(monkeypatch, 10)
    assert [(block.start, block.stop) for block in blocks(n, "cpu", attack, batch_size)] == expected


@pytest.mark.parametrize("name", certificates.names())
def test_a_certificate_in_many_blocks_is_the_certificate_in_one(measured, make, name) -> None:
    cls = certificates.get(name)
    given = {
        "certify": [
            make(certificates, name, **{key: value for key, value in CERTIFICATE.items() if key in cls.model_fields})
        ],
        "defenses": [DEFENSE[name]] if name in DEFENSE else [],
        "undefended": name not in DEFENSE,
        "attacks": ["clean"],
    }
    assert measured(10, **given) == measured(30, **given)
