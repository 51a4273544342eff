"""Examples made on the undefended model, shown to the defended ones."""

from __future__ import annotations

from typing import ClassVar

import pytest
import torch

from freqrobust import Attack, InputDefense, evaluate
from freqrobust.plugins.context import AttackContext, DefenseContext
from freqrobust.plugins.registry import attacks, defenses

SPEC = "pgd:eps=0.15,steps=5"


def run(network, digits, specs, **options):
    return evaluate(network, digits, attacks=specs, device="cpu", batch_size=32, **options)


@pytest.mark.parametrize("spec", ["lowpass:radius=3", "smooth:rho=0.3"])
@pytest.mark.parametrize("attack", [SPEC, "fgsm:eps=0.1", "pgd:eps=1,norm=l2,steps=4,restarts=2"])
def test_counts_are_those_of_a_computation_by_hand(network, digits, spec, attack) -> None:
    """The highest-loss examples for the undefended model, predicted by the defended one."""
    cell = run(network, digits, [attack], defenses=[spec]).cell(f"{spec}/{attack}@oblivious")
    images, labels, ids = digits.batch(torch.arange(len(digits)), torch.device("cpu"))
    examples = attacks.parse(attack)[0].plugin.perturb(network, images, labels, AttackContext(ids, 0, "maximize"))
    defended = defenses.parse(spec)[0].plugin.apply(network, DefenseContext()).eval()
    with torch.no_grad():
        expected = (defended(images).argmax(dim=1) == labels) & (defended(examples).argmax(dim=1) == labels)
    assert (cell.right() != expected.numpy()).sum() <= 1  # examples are made on the folded network: ties may differ
    assert (cell.knowledge, cell.inherited, cell.difference) == ("oblivious", 0, None)


def test_only_adversarial_attacks_and_only_defended_models(network, digits) -> None:
    report = run(network, digits, [SPEC, "lfc:radius=3"], defenses=["smooth:rho=0.3", "lowpass:radius=3"])
    found = [(cell.defense, cell.attack) for cell in report.cells if cell.knowledge == "oblivious"]
    assert sorted(found) == [("lowpass", "pgd"), ("smooth", "pgd")]
    assert not [c for c in run(network, digits, [SPEC]).cells if c.knowledge == "oblivious"]
    off = run(network, digits, [SPEC], defenses=["smooth:rho=0.3"], oblivious=False)
    assert not [c for c in off.cells if c.knowledge == "oblivious"]


def test_they_change_no_other_cell(network, digits) -> None:
    with_them = run(network, digits, [SPEC], defenses=["smooth:rho=0.3"])
    without = run(network, digits, [SPEC], defenses=["smooth:rho=0.3"], oblivious=False)
    adaptive = [cell for cell in with_them.cells if cell.knowledge == "adaptive"]
    assert [(c.defense_spec, c.attack_spec, c.outcomes) for c in adaptive] == [
        (c.defense_spec, c.attack_spec, c.outcomes) for c in without.cells
    ]


def test_the_baseline_need_not_be_shown(network, digits) -> None:
    report = run(network, digits, [SPEC], defenses=["smooth:rho=0.3"], undefended=False)
    full = run(network, digits, [SPEC], defenses=["smooth:rho=0.3"])
    assert report.cell("smooth/pgd@oblivious").outcomes == full.cell("smooth/pgd@oblivious").outcomes


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 7, 64])
def test_the_batch_size_does_not_matter(network, digits, size) -> None:
    found = [
        evaluate(network, digits, attacks=[SPEC], defenses=["lowpass:radius=3"], device="cpu", batch_size=b)
        .cell("lowpass/pgd@oblivious")
        .outcomes
        for b in (size, 32)
    ]
    assert found[0] == found[1]


def test_a_defense_that_hides_its_gradient_is_seen_through(network, digits) -> None:
    """Rounding with a gradient of zero: the adaptive attack finds nothing, and the transferred examples do."""

    class Hides(InputDefense):
        """Says that it is differentiable, and its gradient is zero."""

        differentiable: ClassVar[bool] = True

        def transform(self, images):
            return (images * 8).round() / 8

    report = run(network, digits, ["pgd:eps=0.3,steps=10"], defenses=[Hides()])
    adaptive, oblivious = (report.cell(f"Hides/pgd{mark}") for mark in ("", "@oblivious"))
    assert oblivious.correct < adaptive.correct - 20
    # and so the worst case of the defense counts them
    (worst,) = [row for row in report.worst_case if row.defense == "Hides"]
    assert worst.correct <= oblivious.correct


def test_a_violation_is_an_error_here_too(network, digits) -> None:
    class TooFar(Attack):
        """Stays in its budget when it decides, and leaves it when it maximises."""

        eps: float = 0.1
        norm: str = "linf"

        def perturb(self, model, images, labels, context):
            reach = 0.2 if context.goal == "maximize" else 0.05
            return images + torch.where(images > 0.5, -reach, reach)

    report = run(network, digits, [TooFar()], defenses=["smooth:rho=0.3"])
    states = {(cell.defense, cell.attack, cell.knowledge): cell.status for cell in report.cells}
    assert states["smooth", "TooFar", "oblivious"] == "failed"
    assert [state for key, state in states.items() if key[2] == "adaptive"] == ["ok"] * 4
    assert report.status == "partial"
