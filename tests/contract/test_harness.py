"""The rules that the harness keeps, so that no plugin has to, and so that no plugin can get around them."""

from __future__ import annotations

import copy
from typing import Literal

import pytest
import torch
from torch import nn

from freqrobust import Attack, FreqRobustError, evaluate
from freqrobust.models.classifier import frozen
from freqrobust.models.fingerprint import state_hash
from freqrobust.numerics.frequency import low_pass


def run(model, data, attacks, defenses=(), **options):
    return evaluate(model, data, attacks=attacks, defenses=defenses, device="cpu", batch_size=32, **options)


class Odd(Attack):
    """Declares a budget of 0.1 and does what ``how`` says."""

    how: str
    norm: Literal["linf", "l2"] = "linf"
    eps: float = 0.1

    def perturb(self, model, images, labels, context):
        if self.how == "in place":
            return images.fill_(0.5)
        if self.how == "in place, labels too":
            labels.add_(1).remainder_(10)
            return images
        if self.how == "too far":
            return (images + 0.11).clamp(0, 1)
        if self.how == "a hair too far":
            return images + torch.where(images > 0.5, -1, 1) * 0.100004
        if self.how == "too bright":
            return images + 0.05
        if self.how == "nan":
            return torch.where(images > 0.5, float("nan"), images)
        if self.how == "shape":
            return images[:, :, 1:]
        if self.how == "fewer":
            return images[1:]
        if self.how == "type":
            return images.numpy()
        if self.how == "integers":
            return (images * 255).to(torch.uint8)
        if self.how == "raises":
            raise RuntimeError("out of ideas")
        if self.how == "nothing":
            return None
        if self.how == "train mode":
            model.train()
            model(images)
            return images
        if self.how == "thaws":
            for parameter in model.parameters():
                parameter.requires_grad_(True)
            model(images).sum().backward()
            return images
        assert self.how == "float64"
        return images.double()


CAUGHT = {
    "in place": r"exceeds its perturbation budget: Linf 0\.5 > 0\.1",
    "too far": r"exceeds its perturbation budget",
    "a hair too far": r"exceeds its perturbation budget: Linf 0\.10000\d > 0\.1",
    "too bright": r"outside of \[0, 1\]",
    "nan": "NaN or infinite",
    "shape": "should return float images",
    "fewer": "should return float images",
    "type": "returned a ndarray",
    "integers": "should return float images",
    "nothing": "returned a NoneType",
    "raises": "RuntimeError: out of ideas",
}


@pytest.mark.parametrize("how", CAUGHT)
def test_a_violation_is_an_error_and_never_a_number(network, digits, how) -> None:
    report = run(network, digits, [Odd(how=how), "fgsm:eps=0.1"])
    clean, odd, fgsm = report.cells
    assert (odd.status, odd.outcomes, odd.accuracy, odd.perturbation) == ("failed", None, None, None)
    assert odd.error.startswith(("Odd:", "Odd "))
    with pytest.raises(AssertionError, match=CAUGHT[how]):
        raise AssertionError(odd.error)
    assert (clean.status, fgsm.status, report.status) == ("ok", "ok", "partial")
    # the worst case is that of what was measured
    assert report.worst_case[0].correct + report.worst_case[0].by_checks == fgsm.correct
    assert run(network, digits, ["fgsm:eps=0.1"]).cells[1].outcomes == fgsm.outcomes


@pytest.mark.parametrize("how", ["in place, labels too", "float64", "train mode", "thaws"])
def test_what_an_attack_does_aside_has_no_effect(network, digits, how) -> None:
    model = copy.deepcopy(network)
    before = state_hash(model)
    report = run(model, digits, [Odd(how=how), "fgsm:eps=0.1"])
    assert report.cells[1].status == "ok", report.cells[1].error
    assert report.cells[1].outcomes == report.cells[0].outcomes
    assert report.cells[2].outcomes == run(network, digits, ["fgsm:eps=0.1"]).cells[1].outcomes
    assert state_hash(model) == before
    assert not any(module.training for module in model.modules())


def test_an_attack_in_train_mode_does_not_reach_the_predictions(digits) -> None:
    """Without batch norm nothing is folded: the attack then holds the very modules that predict."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Dropout(0.9), nn.Linear(64, 10)).eval()
    with torch.no_grad():
        labels = model(digits.images).argmax(dim=1)
    report = run(model, (digits.images, labels), [Odd(how="train mode"), Odd(how="in place, labels too")])
    assert [cell.correct for cell in report.cells] == [64, 64, 64]


def test_a_shift_is_beside_chance_and_the_clean_prediction(network, digits) -> None:
    report = run(network, digits, ["lfc:radius=2", "fgsm:eps=0.1"])
    clean, shifted, attacked = report.cells
    with torch.no_grad():
        before = network(digits.images).argmax(dim=1)
        after = network(low_pass(digits.images, 2)).argmax(dim=1)
    assert shifted.clean_agreement == pytest.approx(float((before == after).float().mean()))
    assert 0.1 < shifted.clean_agreement < 1
    for cell, predicted in [(clean, before), (shifted, after)]:
        shares = [float(((predicted == k).float().mean()) * (digits.labels == k).float().mean()) for k in range(10)]
        assert cell.chance_accuracy == pytest.approx(sum(shares))
        assert cell.right().tolist() == (predicted == digits.labels).tolist()
    assert (clean.clean_agreement, attacked.clean_agreement, attacked.chance_accuracy) == (None, None, None)


def test_the_perturbation_is_measured(network, digits) -> None:
    """Of the examples that succeeded: how many, the largest Linf and the mean L2 distance."""
    clean, attacked = run(network, digits, ["fgsm:eps=0.2"]).cells
    x = digits.images.clone().requires_grad_(True)
    loss = nn.functional.cross_entropy(network(x), digits.labels, reduction="sum")
    changed = (digits.images + 0.2 * torch.autograd.grad(loss, x)[0].sign()).clamp(0, 1)
    with torch.no_grad():
        broken = (network(digits.images).argmax(dim=1) == digits.labels) & (
            network(changed).argmax(dim=1) != digits.labels
        )
    delta = (changed - digits.images)[broken].flatten(1)
    found = attacked.perturbation
    assert found.successes == int(broken.sum()) == clean.correct - attacked.correct > 10
    assert found.l2_mean == pytest.approx(float(delta.norm(dim=1).mean()), rel=1e-5)
    assert found.linf_max == pytest.approx(float(delta.abs().max()))
    assert clean.perturbation is None


# ---------------------------------------------------------------- the model that was given


def odd_modes(network: nn.Module) -> nn.Module:
    model = copy.deepcopy(network).train()
    model.bn2.eval()
    for i, parameter in enumerate(model.parameters()):
        parameter.requires_grad_(i % 2 == 0)
    return model


def modes(model: nn.Module) -> list:
    return [m.training for m in model.modules()] + [p.requires_grad for p in model.parameters()]


def test_frozen_restores_modes_and_gradients(network) -> None:
    model = odd_modes(network)
    before, state = modes(model), state_hash(model)
    with frozen(model) as stuck:
        assert stuck == []
        assert not any(modes(model))
        model(torch.rand(4, 1, 8, 8))
    assert modes(model) == before
    with pytest.raises(KeyError), frozen(model):
        raise KeyError
    assert modes(model) == before
    assert state_hash(model) == state


def test_evaluate_leaves_the_model_as_it_was(network, digits, training_digits) -> None:
    model = odd_modes(network)
    before, state = modes(model), state_hash(model)
    run(model, digits, ["pgd:eps=0.1,steps=2"], ["smooth:rho=1,recalibrate_bn=true"], train_data=training_digits)
    assert modes(model) == before
    assert state_hash(model) == state
    assert all(parameter.grad is None for parameter in model.parameters())


def test_evaluate_works_where_gradients_are_off(network, digits) -> None:
    expected = run(network, digits, ["pgd:eps=0.1,steps=2"]).cells[1].outcomes
    with torch.no_grad():
        assert run(network, digits, ["pgd:eps=0.1,steps=2"]).cells[1].outcomes == expected


def test_layers_that_stay_in_train_mode_are_reported(digits) -> None:
    class Stubborn(nn.Dropout):
        def train(self, mode: bool = True) -> nn.Module:
            return super().train(True)

    model = nn.Sequential(nn.Flatten(), Stubborn(0.0), nn.Linear(64, 10))
    assert [w.code for w in run(model, digits, ["clean"]).warnings if "train" in w.code] == ["train-mode-layers"]


# ---------------------------------------------------------------- requests


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"attacks": ["fgsm"], "suite": "quick"}, "either attacks or suite"),
        ({"attacks": [], "batch_size": 0}, "batch_size"),
        ({"attacks": [], "precision": "fp16"}, "precision"),
        ({"attacks": [], "undefended": False}, "undefended=False needs defenses"),
        ({"attacks": ["pgd:eps=8"]}, r"did you mean 8/255"),
        ({"attacks": ["pgd:stpes=3"]}, "did you mean 'steps'"),
        ({"attacks": ["pdg"]}, "did you mean 'pgd'"),
        ({"attacks": [], "device": "tpu"}, "unknown device"),
    ],
)
def test_wrong_requests_are_one_clear_line(network, digits, options, match) -> None:
    with pytest.raises(FreqRobustError, match=match) as error:
        evaluate(network, digits, **{"device": "cpu", **options})
    assert "\n" not in str(error.value)


class _NoLinf(Attack):
    """Says that it moves by l1."""

    norm: str = "l1"
    eps: float = 1.0

    def perturb(self, model, images, labels, context):
        changed = images.clone()
        changed[:, 0, 0, 0] = 1 - changed[:, 0, 0, 0]
        return changed


def test_a_threat_that_nothing_measured_has_no_worst_case(flat_model, flat_data) -> None:
    report = evaluate(flat_model, flat_data, attacks=["pgd:eps=8/255,loss=dlr"], device="cpu")  # needs 3 classes
    assert report.cell("pgd").status == "failed"
    assert report.worst_case == []


def test_l1_budgets_are_measured_in_l1(flat_model, flat_data) -> None:
    report = evaluate(flat_model, flat_data, attacks=[_NoLinf()], device="cpu")
    (worst,) = report.worst_case
    assert worst.threat.norm == "l1"
    assert worst.correct == report.cells[1].correct
    report = evaluate(flat_model, flat_data, attacks=[_NoLinf(eps=1e-3)], device="cpu")
    assert "exceeds its perturbation budget: L1" in (report.cells[1].error or "")


def test_restarts_end_when_everything_is_broken(flat_model, flat_data) -> None:
    report = evaluate(flat_model, flat_data, attacks=["pgd:eps=0.9,restarts=3,steps=5,loss=margin"], device="cpu")
    assert report.cells[1].status == "ok", report.cells[1].error
    assert report.cells[1].correct == 0


@pytest.fixture
def flat_model() -> nn.Module:
    """Two classes; refuses empty batches, as ``view(N, -1)`` does."""

    class Flat(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(16, 2)

        def forward(self, x):
            return self.linear(x.view(x.size(0), -1))

    torch.manual_seed(0)
    return Flat()


@pytest.fixture
def flat_data(flat_model):
    images = torch.rand(20, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return images, flat_model(images).argmax(dim=1)
