"""Defenses in the harness: those that fail, those that cheat, and those without gradients."""

from __future__ import annotations

import copy
from typing import ClassVar

import pytest
import torch
from torch import nn

from freqrobust import Defense, InputDefense, evaluate
from freqrobust.core.errors import PluginError, SpecError


def run(model, data, attacks, defenses):
    return evaluate(model, data, attacks=attacks, defenses=defenses, oblivious=False, device="cpu", batch_size=32)


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
    by_defense = {
        name: [c.status for c in report.cells if c.defense == name] for name in ("undefended", "Returns", "smooth")
    }
    assert by_defense == {"undefended": ["ok"] * 2, "Returns": ["failed"] * 2, "smooth": ["ok"] * 2}
    assert report.status == "partial"
    assert not [row for row in report.worst_case if row.defense == "Returns"]


def test_a_defense_that_changes_the_model_is_found_out_and_blamed_alone(network, digits) -> None:
    model = copy.deepcopy(network)
    report = run(model, digits, ["fgsm:eps=0.1"], [SmoothsInPlace(), "smooth:rho=0"])
    errors = {cell.defense: cell.error for cell in report.cells if cell.status == "failed"}
    assert "changed the model it was given" in errors["SmoothsInPlace"]
    assert set(errors) == {"SmoothsInPlace"}
    assert report.cell("smooth/clean").outcomes == report.cell("clean").outcomes


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
    report = run(network, digits, ["clean"], [Rounds(), Steps()])
    for name in ("Rounds", "Steps"):
        assert report.cell(f"{name}/clean").right().tolist() == expected.tolist()


def test_a_defense_without_gradient_or_surrogate_is_refused(network, digits) -> None:
    class NoWayBack(Defense):
        """Not differentiable, and gives nothing instead."""

        differentiable: ClassVar[bool] = False

        def apply(self, model, context):
            return copy.deepcopy(model)

    with pytest.raises(PluginError, match=r"has to implement surrogate\(model\)"):
        run(network, digits, ["clean"], [NoWayBack()])
