"""Sweeps over eps, and the worst case per threat."""

from __future__ import annotations

from itertools import pairwise
from typing import ClassVar, Literal

import pytest
import torch

from freqrobust import Attack, evaluate, load_data

BUDGETS = [0.02, 0.04, 0.06, 0.1, 0.2]


@pytest.fixture(scope="module")
def all_digits():
    return load_data("digits")


def run(network, data, attacks, **options):
    return evaluate(network, data, attacks=attacks, device="cpu", batch_size=250, **options)


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_sweep_is_consistent_and_close_to_separate_runs(network, all_digits, norm) -> None:
    budgets = BUDGETS if norm == "linf" else [8 * eps for eps in BUDGETS]
    order = [budgets[i] for i in (2, 0, 4, 1, 3)]  # as written: measured upwards all the same
    spec = "pgd:eps={},norm=" + norm + ",steps=10"
    report = run(network, all_digits, [spec.format("[" + ",".join(map(str, order)) + "]")])
    clean = report.cell("clean")
    assert [cell.threat.eps for cell in report.cells[1:]] == order
    upwards = sorted(report.cells[1:], key=lambda cell: cell.threat.eps)
    handed = 0
    previous = clean.right()
    for cell in upwards:
        assert cell.inherited == handed
        assert not (cell.right() & ~previous).any()  # once broken, always broken
        assert cell.correct <= previous.sum()
        previous, handed = cell.right(), int(clean.correct - cell.correct)
        assert cell.perturbation.successes == handed
        alone = run(network, all_digits, [spec.format(cell.threat.eps)]).cells[1]
        assert alone.inherited == 0
        assert abs(alone.accuracy - cell.accuracy) <= 0.01
        assert cell.backwards <= alone.backwards
    assert upwards[-1].correct < upwards[0].correct - 100


def test_the_lowest_of_a_sweep_is_exactly_the_separate_run(network, digits) -> None:
    sweep = run(network, digits, ["pgd:eps=[0.04,0.1],steps=5"])
    alone = run(network, digits, ["pgd:eps=0.04,steps=5"])
    assert sweep.cells[1].outcomes == alone.cells[1].outcomes
    assert sweep.cells[1].forwards == alone.cells[1].forwards


@pytest.mark.parametrize(
    "attacks",
    [
        ["pgd:eps=0.05,steps=3", "pgd:eps=0.1,steps=4"],
        ["pgd:eps=0.05,steps=3", "pgd:eps=0.8,steps=3,norm=l2"],
        ["pgd:eps=0.05,steps=3", "fgsm:eps=0.1"],
        ["pgd:eps=0.05,steps=3", "pgd:eps=0.1,steps=3,step_size=0.02"],
    ],
)
def test_attacks_that_differ_in_more_than_eps_hand_nothing_over(network, digits, attacks) -> None:
    report = run(network, digits, attacks)
    assert [cell.inherited for cell in report.cells] == [0, 0, 0]


def test_a_failed_cell_does_not_end_the_sweep(network, digits) -> None:
    class Fails(Attack):
        """Fails at the middle budget."""

        eps: float
        norm: Literal["linf"] = "linf"

        def perturb(self, model, images, labels, context):
            if self.eps == 0.1:
                raise RuntimeError("not this one")
            return (images + self.eps * torch.where(images > 0.5, -1.0, 1.0)).clamp(0, 1)

    report = run(network, digits, [Fails(eps=eps) for eps in (0.05, 0.1, 0.4)])
    assert [cell.status for cell in report.cells] == ["ok", "ok", "failed", "ok"]
    low, high = report.cells[1], report.cells[3]
    assert high.inherited == low.perturbation.successes
    assert high.correct <= low.correct


# ---------------------------------------------------------------- worst case

MIXED = [
    "pgd:eps=[0.05,0.1],steps=5",
    "fgsm:eps=[0.05,0.1]",
    "pgd:eps=0.1,steps=5,loss=margin",
    "pgd:eps=[0.4,1,3],steps=5,norm=l2",
    "fgsm:eps=3,norm=l2",
    "lfc:radius=2",
]


def check_worst_case(report) -> None:
    for row in report.worst_case:
        same = [c for c in report.cells if c.defense_spec == row.defense_spec and c.status == "ok"]
        cells = [cell for cell in same if cell.threat == row.threat]
        assert cells
        together = row.right()
        clean = next(cell for cell in same if cell.attack == "clean")
        assert not (together & ~clean.right()).any()
        for cell in cells:
            assert not (together & ~cell.right()).any(), f"{cell.attack_spec} broke what {row.threat} calls right"
            assert row.correct <= cell.correct


@pytest.mark.slow
def test_worst_case_is_at_most_every_cell_of_its_threat(network, all_digits) -> None:
    report = run(network, all_digits, MIXED, defenses=["smooth:rho=0.3", "lowpass:radius=3"])
    check_worst_case(report)
    threats = [(row.threat.norm, row.threat.eps) for row in report.worst_case if row.defense == "undefended"]
    assert threats == [("l2", 0.4), ("l2", 1.0), ("l2", 3.0), ("linf", 0.05), ("linf", 0.1)]
    for norm in ("l2", "linf"):  # a larger budget holds every example of a smaller one
        rows = [row for row in report.worst_case if row.defense == "undefended" and row.threat.norm == norm]
        for small, large in pairwise(rows):
            assert not (large.right() & ~small.right()).any()


def test_an_example_counts_wherever_it_fits(network, digits) -> None:
    """An unbounded attack, and one of the other norm, whose examples happen to be small."""

    class Tiny(Attack):
        """Declares no budget, and changes pixels by at most 0.1."""

        needs_gradient: ClassVar[bool] = True

        def perturb(self, model, images, labels, context):
            x = images.clone().requires_grad_(True)
            loss = torch.nn.functional.cross_entropy(model(x), labels, reduction="sum")
            return (images + 0.1 * torch.autograd.grad(loss, x)[0].sign()).clamp(0, 1)

    report = run(network, digits, [Tiny(), "fgsm:eps=0.02", "fgsm:eps=0.12"], diagnose=None)
    tiny, _, large = report.cells[1:]
    assert tiny.threat is None
    rows = {round(row.threat.eps, 3): row for row in report.worst_case}
    assert set(rows) == {0.02, 0.12}
    assert (rows[0.12].right() == (tiny.right() & large.right() & report.cells[2].right())).all()
    assert rows[0.02].correct > rows[0.12].correct


def test_the_tolerance_of_the_budget_is_that_of_the_worst_case(network, digits) -> None:
    """What passes as inside of a large L2 budget is also counted there."""

    class Rounded(Attack):
        """L2 distance 1.0000009 eps: more than 1e-6 over, and less than the millionth that rounding may take."""

        eps: float = 4.0
        norm: Literal["l2"] = "l2"

        def perturb(self, model, images, labels, context):
            delta = torch.where(images > 0.5, -1.0, 1.0).double()
            delta *= (self.eps * (1 + 9e-7) / delta.flatten(1).norm(dim=1)).view(-1, 1, 1, 1)
            return (images.double() + delta).float()

    report = run(network, digits, [Rounded()])
    assert report.cells[1].status == "ok", report.cells[1].error
    assert report.cells[1].correct < report.cells[0].correct
    check_worst_case(report)
