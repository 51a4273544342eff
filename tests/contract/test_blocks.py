"""A run measured in many blocks of samples is the run measured in one, bit for bit, for every plugin."""

from __future__ import annotations

import pytest

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


@pytest.mark.parametrize("name", attacks.names())
def test_an_attack_in_many_blocks_is_the_attack_in_one(measured, make, name) -> None:
    attack = make(attacks, name)
    assert measured(10, attacks=[attack]) == measured(30, attacks=[attack])


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
