"""Several models in one evaluation: the same numbers as one by one, on the same samples."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from freqrobust import Report, evaluate
from freqrobust.core.errors import FreqRobustError, ModelError
from freqrobust.harness.multi_model import join
from freqrobust.results.summary import Entry, entries, entry_labels, model_labels
from support.networks import untrained as network

torch.manual_seed(5)
DATA = (torch.rand(40, 1, 8, 8), torch.randint(0, 4, (40,)))
SETTINGS = {
    "attacks": ["pgd:eps=[0.02,0.1],steps=2", "lfc:radius=2"],
    "defenses": ["lowpass:radius=3"],
    "device": "cpu",
}


def numbers(report: Report, model: int) -> list[tuple[object, ...]]:
    cells = [c for c in report.cells if c.model == model]
    rows = [w for w in report.worst_case if w.model == model]
    return [(c.defense_spec, c.attack_spec, c.knowledge, c.outcomes, c.difference) for c in cells] + [
        (w.defense_spec, w.threat, w.outcomes, w.difference) for w in rows
    ]


@pytest.fixture(scope="module")
def several() -> Report:
    return evaluate({"one": network(0), "two": network(1)}, DATA, **SETTINGS)


def test_each_has_the_numbers_that_it_has_alone(several) -> None:
    for index in (0, 1):
        alone = evaluate(network(index), DATA, **SETTINGS)
        assert numbers(several, index) == numbers(alone, 0)
        assert several.models[index].sha256 == alone.models[0].sha256
        assert [w.message for w in several.warnings if w.model == index] == [w.message for w in alone.warnings]
    assert several.data == evaluate(network(0), DATA, **SETTINGS).data


def test_cells_say_whose_they_are(several) -> None:
    assert [record.name for record in several.models] == ["one", "two"]
    assert model_labels(several) == ["one", "two"]
    defended = "lowpass:radius=3"
    assert entries(several) == [Entry(0, "undefended"), Entry(0, defended), Entry(1, "undefended"), Entry(1, defended)]
    assert list(entry_labels(several).values()) == ["one", f"one + {defended}", "two", f"two + {defended}"]
    assert several.cell("clean", model=1).model == 1
    assert several.cell("clean").model == 0


def test_a_sequence_and_what_is_read_only_once(several) -> None:
    again = evaluate(
        [network(0), network(1)],
        DATA,
        attacks=iter(SETTINGS["attacks"]),
        defenses=iter(SETTINGS["defenses"]),
        device="cpu",
    )
    assert [numbers(again, index) for index in (0, 1)] == [numbers(several, index) for index in (0, 1)]
    assert model_labels(again) == ["Sequential (1)", "Sequential (2)"]


def test_one_in_a_list_is_one() -> None:
    assert numbers(evaluate([network(0)], DATA, **SETTINGS), 0) == numbers(evaluate(network(0), DATA, **SETTINGS), 0)


def test_the_file_holds_it(several, tmp_path: Path) -> None:
    several.to_json(tmp_path / "report.json")
    assert Report.from_json(tmp_path / "report.json") == several


class Counted(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.seen: list[int] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen.append(len(x))
        return self.inner(x)


def test_a_wrong_one_is_said_before_the_first_is_measured(tmp_path: Path) -> None:
    first = Counted(network(0))
    with pytest.raises(FreqRobustError, match="channel"):
        evaluate([first, network(1, channels=3)], DATA, **SETTINGS)
    assert max(first.seen) <= 2  # a look whether it fits
    first.seen.clear()
    with pytest.raises(ModelError, match=r"nowhere\.pt"):
        evaluate([first, tmp_path / "nowhere.pt"], DATA, **SETTINGS)
    assert not first.seen


@pytest.mark.parametrize(
    ("models", "message"),
    [
        ([], "at least one model"),
        ({}, "at least one model"),
        ([3], "but got int"),
        (3, "but got int"),
        ({"a": None}, "for a"),
    ],
)
def test_no_models(models, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        evaluate(models, DATA, **SETTINGS)


def test_the_journal_is_per_model(tmp_path: Path) -> None:
    evaluate(network(0), DATA, run_dir=tmp_path, **SETTINGS)
    first = Counted(network(0))
    both = [network(0), network(1)]
    made = len(list((tmp_path / "cells").iterdir()))
    report = evaluate(both, DATA, run_dir=tmp_path, **SETTINGS)
    assert len(list((tmp_path / "cells").iterdir())) == 2 * made  # those of the first were there
    again = evaluate(both, DATA, run_dir=tmp_path, **SETTINGS)
    assert [numbers(again, i) for i in (0, 1)] == [numbers(report, i) for i in (0, 1)]
    assert not first.seen


def test_only_what_belongs_together_is_joined(several) -> None:
    other = several.model_copy(update={"seed": 1})
    with pytest.raises(ValueError, match="same data, seed and environment"):
        join([several, other])
    doubled = join([several, several])
    assert [c.model for c in doubled.cells] == [c.model for c in several.cells] + [c.model + 2 for c in several.cells]
    assert len(several.models) == 2  # what was joined is as it was
