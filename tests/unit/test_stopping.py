"""Cells that are left early: what is measured until then is what the full run measures."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from freqrobust import Report, evaluate
from freqrobust.core.errors import SpecError
from freqrobust.core.progress import Silent
from freqrobust.data.dataset import ImageData
from freqrobust.data.loading import as_data
from freqrobust.gate.sequential import SequentialGate
from freqrobust.gate.thresholds import Threshold
from freqrobust.plugins.selection import parse_attacks, parse_defenses
from support.networks import untrained

ATTACKS = ["lfc:radius=2", "pgd:eps=[0.01,0.03,0.1],steps=2", "fgsm:eps=0.03", "pgd:eps=0.5,norm=l2,steps=2"]
DEFENSES = ["undefended", "lowpass:radius=3", "gaussian-noise:sigma=0.05"]


@pytest.fixture(scope="module")
def network() -> nn.Module:
    return untrained(0, width=8).eval()


@pytest.fixture(scope="module")
def data(network: nn.Module) -> ImageData:
    """Labels that the network mostly gets right; ids that are not positions."""
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(96, 1, 8, 8, generator=generator)
    labels = network(images).argmax(1)
    labels[::7] = (labels[::7] + 1) % 4
    return as_data((images, labels)).take(torch.arange(95, -1, -1))


@pytest.fixture(scope="module")
def full(network: nn.Module, data: ImageData) -> Report:
    # sequential measurements make no diagnostic checks
    return evaluate(network, data, attacks=ATTACKS, defenses=DEFENSES, device="cpu", seed=3, diagnose=None)


def measured(gate: SequentialGate, network: object, data: ImageData, **changes: object) -> Report:
    options = {
        "attacks": parse_attacks(ATTACKS),
        "defenses": parse_defenses(DEFENSES),
        "undefended": True,
        "oblivious": True,
        "seed": 3,
        "device": "cpu",
        "progress": Silent(),
    }
    return gate.measure(network, data, **{**options, **changes})


def everything(full: Report) -> list[Threshold]:
    """One more right sample would do, for every cell and worst case: only the last look can tell."""
    found = [
        Threshold(
            f"{c.defense_spec}/{c.attack_spec}{'@oblivious' if c.knowledge == 'oblivious' else ''}",
            min(1, (c.correct + 1) / c.n),
        )
        for c in full.cells
    ]
    return [
        *found,
        *(
            Threshold(f"{w.defense_spec}/worst-{w.threat.norm}-{w.threat.eps:g}", min(1, (w.correct + 1) / w.n))
            for w in full.worst_case
        ),
    ]


@pytest.mark.slow
def test_all_looks_together_are_the_full_run(network: nn.Module, data: ImageData, full: Report) -> None:
    """Counts of every cell and worst case: deterministic, random and oblivious ones, sweeps and all."""
    gate = SequentialGate(everything(full), false_pass=1e-12, false_fail=1e-12)
    report = measured(gate, network, data)
    decided_late = [row for row in gate.rows if row.n == len(data)]
    assert len(decided_late) > len(gate.rows) / 2
    assert not any(row.passed for row in gate.rows if row.required < 1)
    counts = {(c.defense_spec, c.attack_spec, c.knowledge): c.correct for c in full.cells}
    compared = 0
    for cell in report.cells:
        if cell.n == len(data):
            assert cell.correct == counts[cell.defense_spec, cell.attack_spec, cell.knowledge], cell.attack_spec
            assert cell.right().sum() == cell.correct
            compared += 1
    assert compared > len(full.cells) / 2
    worst = {(w.defense_spec, str(w.threat)): w.correct for w in full.worst_case}
    late = [w for w in report.worst_case if w.n == len(data)]
    assert late
    assert all(w.correct == worst[w.defense_spec, str(w.threat)] for w in late)


def test_what_is_open_is_measured_and_nothing_else(network: nn.Module, data: ImageData, full: Report) -> None:
    clean = full.cell("clean").accuracy
    gate = SequentialGate([Threshold("clean", 0.0), Threshold("lowpass/pgd:eps=0.03", 1.0)])
    report = measured(gate, network, data)
    assert [(row.name, row.passed) for row in gate.rows] == [
        ("undefended / clean", True),
        ("lowpass:radius=3 / pgd:eps=0.03,steps=2", False),
    ]
    assert clean is not None
    assert {(c.defense_spec, c.attack_spec) for c in report.cells} == {
        ("undefended", "clean"),
        ("lowpass:radius=3", "clean"),
        ("lowpass:radius=3", "pgd:eps=0.01,steps=2"),  # its adversarial examples are passed on
        ("lowpass:radius=3", "pgd:eps=0.03,steps=2"),
    }
    assert report.worst_case == []
    assert max(c.n for c in report.cells) < len(data)
    assert report.data.n == len(data)
    again = Report.model_validate_json(report.dumps())
    assert again == report


def test_several_models(network: nn.Module, data: ImageData) -> None:
    torch.manual_seed(5)
    other = nn.Sequential(nn.Flatten(), nn.Linear(64, 4)).eval()
    gate = SequentialGate([Threshold("clean", 0.6)])
    report = measured(gate, [network, other], data, defenses=[])
    assert [row.passed for row in gate.rows] == [True, False]
    assert len({row.name for row in gate.rows}) == 2
    assert [row.model for row in gate.rows] == [0, 1]
    assert len(report.models) == 2
    assert {cell.model for cell in report.cells} == {0, 1}


def test_the_order_is_that_of_the_seed(network: nn.Module, data: ImageData) -> None:
    def seen(seed: int) -> list[str | None]:
        gate = SequentialGate([Threshold("pgd:eps=0.03", 0.5)])
        return [cell.outcomes for cell in measured(gate, network, data, seed=seed).cells]

    assert seen(1) == seen(1)
    assert seen(1) != seen(2)


@pytest.mark.parametrize(
    ("thresholds", "rates", "said"),
    [
        ([], {}, "needs thresholds, but there are none"),
        ([Threshold("clean", 0.5)], {"false_pass": 0.0}, "false-pass should be between 0 and 0.5"),
        ([Threshold("clean", 0.5)], {"false_fail": 0.7}, "false-fail should be between 0 and 0.5"),
    ],
)
def test_what_cannot_be_decided(thresholds, rates, said: str) -> None:
    with pytest.raises(SpecError, match=said):
        SequentialGate(thresholds, **rates)
