"""Passes in the report: those that a spy inside the model counts, and those that the algorithm needs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from freqrobust import evaluate


class Tally:
    """Images forward and backward, shared by all copies of a model."""

    def __init__(self) -> None:
        self.forwards = self.backwards = 0

    def __deepcopy__(self, memo: dict) -> Tally:
        return self


class _Watch(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, tally: Tally) -> torch.Tensor:
        ctx.tally = tally
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        ctx.tally.backwards += len(gradient)
        return gradient, None


class Counted(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.tally = model, Tally()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.tally.forwards += len(x)
        return self.model(_Watch.apply(x, self.tally))


class Sure(nn.Module):
    """Always class 0, with a gradient: no sample is ever broken."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(64, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x.flatten(1)) + torch.tensor([1e3, 0.0, 0.0, 0.0])


N = 30
IMAGES = torch.randint(0, 256, (N, 1, 8, 8), generator=torch.Generator().manual_seed(0)) / 255

#: Attack -> forwards and backwards on N samples that nobody breaks, and how many predictions verify: one of examples that are
#: images of 8 bits, or whose rounded image is outside of the budget or the clean one, and two of others.
CLOSED_FORM = {
    "fgsm:eps=26/255": (N, N, {N}),
    "fgsm:eps=25.5/255": (N, N, {N}),
    "fgsm:eps=0.1,norm=l2": (N, N, range(N, 2 * N)),
    "pgd:eps=26/255,steps=1": (N, N, {2 * N}),
    "pgd:eps=26/255,steps=20": (20 * N, 20 * N, {2 * N}),
    "pgd:eps=26/255,steps=20,eight_bit=true": (20 * N, 20 * N, {N}),
    "pgd:eps=26/255,steps=7,random_start=false": (7 * N, 7 * N, {N}),
    "pgd:eps=0.001,steps=7": (7 * N, 7 * N, {N}),
    "pgd:eps=0.5,norm=l2,steps=5,loss=margin": (5 * N, 5 * N, range(N, 2 * N)),
    # a restart needs to know what the last step of the climb before it broke
    "pgd:eps=26/255,steps=5,restarts=3": (3 * 5 * N + 2 * N, 3 * 5 * N, {2 * N}),
    # classes are looked up once
    "pgd:eps=26/255,steps=5,target=random": (6 * N, 5 * N, {N}),
    "lfc:radius=3": (0, 0, {N}),
    "hfc:radius=3": (0, 0, {N}),
}


@pytest.mark.parametrize("spec", CLOSED_FORM)
@pytest.mark.parametrize("size", [4, 64])
def test_closed_form_on_a_model_that_is_never_wrong(spec, size) -> None:
    torch.manual_seed(0)
    report = evaluate(
        Sure(), (IMAGES, torch.zeros(N, dtype=torch.int64)), attacks=[spec], device="cpu", batch_size=size
    )
    forwards, backwards, predictions = CLOSED_FORM[spec]
    clean, attacked = report.cells
    assert (clean.forwards, clean.backwards) == (N, 0)
    assert attacked.forwards - forwards in predictions
    assert attacked.backwards == backwards
    assert attacked.correct == N


SPECS = [
    "fgsm:eps=0.1",
    "pgd:eps=0.1,steps=6",
    "pgd:eps=0.02,steps=6,restarts=3",
    "pgd:eps=[0.02,0.1],steps=4",
    "pgd:eps=0.1,steps=3,target=next",
    "lfc:radius=3",
]


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("defense", [None, "lowpass:radius=3", "smooth:rho=0.2"])
def test_the_report_counts_what_the_model_sees(network, digits, spec, defense) -> None:
    """The spy's count with the attack, less its count without, is that of the attack's cells and of the checks."""

    def counted(attacks: list[str]) -> tuple[Tally, Any]:
        model = Counted(network)
        defenses = [defense] if defense else []
        options = {"compile": "off", "device": "cpu", "batch_size": 16}  # to decide about it, a pass is timed
        report = evaluate(model, digits, attacks=attacks, defenses=defenses, **options)
        return model.tally, report

    without, _ = counted(["clean"])
    tally, report = counted([spec])
    cells = [*(cell for cell in report.cells if cell.attack != "clean"), *report.diagnostics]
    assert tally.forwards - without.forwards == sum(cell.forwards for cell in cells)
    assert tally.backwards - without.backwards == sum(cell.backwards for cell in cells)
    assert sum(cell.forwards for cell in cells) > 0


def test_only_samples_that_are_right_are_attacked_and_broken_ones_are_left(network, digits) -> None:
    report = evaluate(network, digits, attacks=["pgd:eps=0.2,steps=10"], device="cpu")
    clean, attacked = report.cells
    assert attacked.correct < clean.correct / 2
    assert clean.correct < 64
    assert attacked.backwards < 10 * clean.correct
    assert attacked.backwards >= clean.correct + 9 * attacked.correct
    # every example is predicted by the exact model, at most twice: with pixels rounded to 8 bits, and as it is
    assert clean.correct <= attacked.forwards - attacked.backwards <= 2 * clean.correct


def test_clean_images_are_predicted_once_whatever_the_attacks(network, digits) -> None:
    for attacks in (["fgsm:eps=0.1"], ["fgsm:eps=0.1", "clean", "pgd:eps=0.1,steps=2", "lfc:radius=3"]):
        report = evaluate(network, digits, attacks=attacks, device="cpu")
        assert [cell.forwards for cell in report.cells if cell.attack == "clean"] == [64]
