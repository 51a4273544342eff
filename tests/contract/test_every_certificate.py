"""What is asked of every registered certificate, those of other packages included."""

from __future__ import annotations

import pytest
import torch

from freqrobust import evaluate
from freqrobust.models.fingerprint import state_hash
from freqrobust.numerics.norms import project
from freqrobust.plugins.certificate import CertificateContext
from freqrobust.plugins.context import DefenseContext
from freqrobust.plugins.registry import certificates, defenses
from support.networks import untrained

NAMES = certificates.names()
#: The defense that a certificate is about; the others are about the undefended model.
DEFENSE = {"smoothing": "randomized-smoothing:sigma=0.25,copies=3", "band": "lowpass:radius=2"}
#: Budgets at which some samples of the network below are certified, and what would take too long otherwise.
PARAMS = {"eps": 0.01, "n": 60, "n0": 20}


@pytest.fixture(params=NAMES)
def case(request):
    """A certificate, the defense that it is about, the defended model, images and labels."""
    cls = certificates.get(request.param)
    plugin = cls.build(request.param, {key: value for key, value in PARAMS.items() if key in cls.model_fields})
    parts = [part.plugin for part in defenses.parse(DEFENSE[request.param])] if request.param in DEFENSE else []
    model = untrained(0).eval().requires_grad_(False)
    for part in parts:
        model = part.apply(model, DefenseContext())
    torch.manual_seed(1)
    images = torch.rand(10, 1, 8, 8)
    base = untrained(0).eval() if not parts or parts[0].stochastic else model
    labels = base(images).argmax(dim=1).detach()
    labels[3] = (labels[3] + 1) % 4
    return plugin, parts, model, images, labels


def certify(case, where=slice(None), seed: int = 0):
    plugin, parts, model, images, labels = case
    context = CertificateContext(torch.arange(10)[where], seed, tuple(parts))
    return plugin.certify(model, images[where].clone(), labels[where].clone(), context)


def test_some_but_not_all_are_certified_and_no_wrong_one(case) -> None:
    result = certify(case)
    assert result.certified.shape == (10,)
    assert result.certified.dtype == torch.bool
    assert result.certified.any()
    assert not result.certified[3]
    if result.radius is not None:
        assert result.radius.shape == (10,)
        assert bool((result.radius >= 0).all())


def test_the_same_again_and_in_every_batch(case) -> None:
    whole, again = certify(case), certify(case)
    assert torch.equal(whole.certified, again.certified)
    parts = [certify(case, slice(i, i + 3)) for i in range(0, 10, 3)]
    assert torch.equal(torch.cat([part.certified for part in parts]), whole.certified)
    if whole.radius is not None:
        joined = torch.cat([part.radius for part in parts])
        assert torch.allclose(joined, whole.radius, rtol=1e-4, atol=1e-6)


def test_the_model_given_is_untouched(case) -> None:
    model = case[2]
    before, modes = state_hash(model), [module.training for module in model.modules()]
    certify(case)
    assert state_hash(model) == before
    assert [module.training for module in model.modules()] == modes


def test_random_perturbations_within_the_budget_change_no_certified_prediction(case) -> None:
    plugin, _, model, images, labels = case
    threat = plugin.threat()
    if threat is None or plugin.guarantee != "deterministic":
        pytest.skip("no ball around the image of the model itself")
    certified = certify(case).certified
    for draw in range(20):
        torch.manual_seed(draw)
        direction = torch.randn_like(images)
        changed = project(images + 10 * threat.eps * direction.sign(), images, threat.norm, threat.eps)
        assert bool((model(changed).argmax(dim=1) == labels)[certified].all())


def test_it_says_what_it_certifies(case) -> None:
    plugin, parts, *_ = case
    assert len(plugin.statement().split()) > 5
    assert len(plugin.statement_about(parts).split()) > 5
    assert plugin.guarantee in ("deterministic", "statistical")
    assert plugin.passes() >= 0
    plugin.check_defenses(parts)


def test_certified_is_at_most_attacked(case) -> None:
    """In the harness, where a contradiction would stop the run."""
    plugin, parts, _, images, labels = case
    threat = plugin.threat()
    attack = f"pgd:eps={threat.eps},norm={threat.norm},steps=10" if threat is not None else "clean"
    report = evaluate(
        untrained(0),
        (images, labels),
        attacks=[attack],
        defenses=[parts] if parts else None,
        undefended=not parts,
        certify=[plugin],
        oblivious=False,
        device="cpu",
    )
    (record,) = report.certificates
    assert record.status == "ok", record.error
    if threat is not None and record.guarantee == "deterministic":
        (worst,) = report.worst_case
        assert not (record.right() & ~worst.right()).any()
