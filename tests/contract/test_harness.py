"""The rules that the harness keeps, so that no plugin has to, and so that no plugin can get around them."""

from __future__ import annotations

import copy
from typing import ClassVar, Literal

import pytest
import torch
from torch import nn

from freqrobust import Attack, Defense, FreqRobustError, InputDefense, evaluate
from freqrobust.errors import PluginError, SpecError
from freqrobust.models import frozen, state_hash


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
    "in place": r"left its budget: linf 0\.5 > 0\.1",
    "too far": r"left its budget",
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
    assert report.worst_case[0].correct == fgsm.correct
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
    assert [w.code for w in run(model, digits, []).warnings if "train" in w.code] == ["train-mode-layers"]


class SmoothsInPlace(Defense):
    """Forgets to copy the model."""

    def apply(self, model, context):
        with torch.no_grad():
            model.conv1.weight.mul_(0)
        return model


class Returns(Defense):
    """Returns what ``what`` says, or fails."""

    what: str

    def apply(self, model, context):
        if self.what == "number":
            return 3
        if self.what == "raises":
            raise ValueError("no idea")
        if self.what == "features":
            return nn.Flatten(0)
        if self.what == "tuple":
            return Tupled(model)
        if self.what == "fails":
            return Fails(model, always=True)
        if self.what == "spec error":
            raise SpecError("rho and radius do not go together")
        assert self.what == "fails later"
        return Fails(model, always=False)


class Tupled(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: torch.Tensor) -> tuple:
        return self.model(x), x


class Fails(nn.Module):
    """Fails always, or only on the sizes of batches that the data are cut into."""

    def __init__(self, model: nn.Module, always: bool) -> None:
        super().__init__()
        self.model, self.always = model, always

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.always or len(x) == 32:
            raise RuntimeError("shapes do not fit")
        return self.model(x)


@pytest.mark.parametrize("what", ["number", "raises", "features", "tuple", "fails", "fails later", "spec error"])
def test_a_defense_that_fails_costs_only_its_own_cells(network, digits, what) -> None:
    report = run(network, digits, ["fgsm:eps=0.1"], [Returns(what=what), "smooth:rho=0"])
    by_defense = {name: [c.status for c in report.cells if c.defense == name] for name in ("none", "Returns", "smooth")}
    assert by_defense == {"none": ["ok"] * 2, "Returns": ["failed"] * 2, "smooth": ["ok"] * 2}
    assert report.status == "partial"
    assert not [row for row in report.worst_case if row.defense == "Returns"]


def test_a_defense_that_changes_the_model_is_found_out_and_blamed_alone(network, digits) -> None:
    model = copy.deepcopy(network)
    report = run(model, digits, ["fgsm:eps=0.1"], [SmoothsInPlace(), "smooth:rho=0"])
    errors = {cell.defense: cell.error for cell in report.cells if cell.status == "failed"}
    assert "changed the model it was given" in errors["SmoothsInPlace"]
    assert set(errors) == {"SmoothsInPlace"}
    assert report.cell("clean", "smooth").outcomes == report.cell("clean").outcomes


# ---------------------------------------------------------------- defenses without gradients


class Rounds(InputDefense):
    """Rounds pixels to a few levels: its own gradient is zero everywhere."""

    differentiable: ClassVar[bool] = False
    levels: int = 4

    def transform(self, images):
        return (images * self.levels).round() / self.levels


class RoundsHonestly(Rounds):
    """The same, and claims to be differentiable."""

    differentiable: ClassVar[bool] = True


class RoundsBackwards(Rounds):
    """With a surrogate whose gradient points the wrong way."""

    def surrogate(self, model):
        return 1 - model


class Steps(Defense):
    """A model of two parts without a gradient in between; the surrogate is the model without the steps."""

    differentiable: ClassVar[bool] = False

    def apply(self, model, context):
        return Stepped(copy.deepcopy(model))

    def surrogate(self, model):
        return model


class Stepped(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.model((x * 4).round() / 4)


def test_attacks_go_straight_through_what_has_no_gradient(network, digits) -> None:
    """Backward-pass differentiable approximation: PGD breaks the rounded model about as well as the plain one."""
    attacks = ["pgd:eps=0.3,steps=10"]
    report = run(network, digits, attacks, [Rounds(), RoundsHonestly(), RoundsBackwards(), Steps()])
    robust = {cell.defense: cell.correct for cell in report.cells if cell.attack == "pgd"}
    clean = {cell.defense: cell.correct for cell in report.cells if cell.attack == "clean"}
    assert clean["Rounds"] == clean["RoundsHonestly"] == clean["Steps"] > 48
    assert robust["Rounds"] <= 8
    assert robust["Steps"] == robust["Rounds"]
    assert robust["RoundsHonestly"] > robust["Rounds"] + 20
    assert robust["RoundsBackwards"] > robust["Rounds"] + 20
    warned = {w.defense for w in report.warnings if w.code == "zero-gradients"}
    assert warned == {"RoundsHonestly"}


def test_predictions_come_from_the_defense_itself_not_from_the_surrogate(network, digits) -> None:
    rounded = (digits.images * 4).round() / 4
    with torch.no_grad():
        expected = network(rounded).argmax(dim=1) == digits.labels
    report = run(network, digits, [], [Rounds(), Steps()])
    for name in ("Rounds", "Steps"):
        assert report.cell("clean", name).right().tolist() == expected.tolist()


def test_a_defense_without_gradient_or_surrogate_is_refused(network, digits) -> None:
    class NoWayBack(Defense):
        """Not differentiable, and gives nothing instead."""

        differentiable: ClassVar[bool] = False

        def apply(self, model, context):
            return copy.deepcopy(model)

    with pytest.raises(PluginError, match=r"has to implement surrogate\(model\)"):
        run(network, digits, [], [NoWayBack()])


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"attacks": ["fgsm"], "suite": "quick"}, "either attacks or a suite"),
        ({"attacks": [], "batch_size": 0}, "batch_size"),
        ({"attacks": [], "precision": "fp16"}, "precision"),
        ({"attacks": [], "baseline": False}, "has to be a defense"),
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
