"""The run directory: finished cells are kept, damaged ones noticed, and nothing stale is served."""

from __future__ import annotations

import json
import os

import pytest
import torch
from torch import nn

from freqrobust import evaluate
from freqrobust.core.errors import JournalError
from freqrobust.core.files import identity, write_atomically
from freqrobust.harness.journal import Journal

ATTACKS = ["pgd:eps=[0.05,0.1],steps=3", "lfc:radius=2"]
PLUGIN = '''
from freqrobust import Attack

class Shift(Attack):
    """A fixed change."""
    kind = "shift"

    def perturb(self, model, images, labels, context):
        return images {change}
'''


class Counting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(64, 4)
        self.seen = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen += len(x)
        return self.linear(x.flatten(1))


@pytest.fixture
def data() -> tuple[torch.Tensor, torch.Tensor]:
    images = torch.rand(40, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return images, Counting()(images).argmax(dim=1)


def run(data, tmp_path, attacks=ATTACKS, model=None, **options):
    model = model or Counting()
    report = evaluate(model, data, attacks=attacks, run_dir=tmp_path / "run", device="cpu", batch_size=16, **options)
    values = json.loads(report.dumps())
    values.pop("created")
    return values, model.seen


def test_a_second_run_measures_nothing_and_says_the_same(data, tmp_path) -> None:
    first, seen = run(data, tmp_path)
    again, seen_again = run(data, tmp_path)
    assert again == first
    assert seen_again < 10 < seen  # the check that model and data fit


def test_an_interrupted_run_is_resumed(data, tmp_path) -> None:
    whole = run(data, tmp_path / "other")[0]

    class Stops:
        def begin(self, label: str, total: int) -> None:
            if "eps=0.1" in label:
                raise KeyboardInterrupt

        def advance(self, amount: int) -> None: ...

        def end(self, summary: str) -> None: ...

        def say(self, message: str) -> None: ...

    with pytest.raises(KeyboardInterrupt):
        run(data, tmp_path, progress=Stops())
    kept = len(list((tmp_path / "run" / "cells").iterdir()))
    assert 0 < kept < len(whole["cells"])
    resumed = run(data, tmp_path)[0]
    for a, b in zip(whole["cells"], resumed["cells"], strict=True):
        assert {**a, "seconds": 0} == {**b, "seconds": 0}


DAMAGES = {
    "emptied": lambda content: b"",
    "replaced": lambda content: b"{}",
    "cut off": lambda content: content[:-20],
    "overwritten": lambda content: content[:-3] + b"xyz",
    "edited": lambda content: content.replace(b'"inherited": 0', b'"inherited": 7').replace(b'"n": 40', b'"n":  40'),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_cell_is_measured_again_and_reported(data, tmp_path, damage) -> None:
    first, _ = run(data, tmp_path)
    for path in (tmp_path / "run" / "cells").iterdir():
        content = path.read_bytes()
        path.write_bytes(DAMAGES[damage](content))
        assert path.read_bytes() != content
    again, seen = run(data, tmp_path)
    assert [c["outcomes"] for c in again["cells"]] == [c["outcomes"] for c in first["cells"]]
    assert seen > 40
    assert [w["code"] for w in again["warnings"]].count("damaged-journal") == len(first["cells"])


CHANGES = {
    "seed": {"seed": 1},
    "other images": {"data": (torch.rand(40, 1, 8, 8), torch.zeros(40, dtype=torch.int64))},
    "attack parameter": {"attacks": ["pgd:eps=0.05,steps=4"]},
    "precision": {"precision": "bf16"},
}


@pytest.mark.parametrize("change", CHANGES)
def test_whatever_numbers_depend_on_is_measured_anew(data, tmp_path, change) -> None:
    run(data, tmp_path)
    before = len(list((tmp_path / "run" / "cells").iterdir()))
    options = {"data": data, **CHANGES[change]}
    run(options.pop("data"), tmp_path, **options)
    assert len(list((tmp_path / "run" / "cells").iterdir())) > before


def test_other_weights_are_measured_anew(data, tmp_path) -> None:
    run(data, tmp_path)
    model = Counting()
    with torch.no_grad():
        model.linear.weight[0, 0] += 1e-3
    assert run(data, tmp_path, model=model)[1] > 40


def test_an_edited_plugin_is_never_served_from_the_journal(data, tmp_path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(PLUGIN.format(change=""))
    spec = [f"{path}:Shift"]
    first, _ = run(data, tmp_path, spec)
    path.write_text(PLUGIN.format(change="* 0"))
    second, _ = run(data, tmp_path, spec)
    assert first["cells"][1]["correct"] == 40
    assert second["cells"][1]["correct"] < 40


def test_a_cell_of_a_sweep_is_not_that_of_a_run_alone(data, tmp_path) -> None:
    sweep, _ = run(data, tmp_path, ["pgd:eps=[0.05,0.1],steps=3"])
    alone, _ = run(data, tmp_path, ["pgd:eps=0.1,steps=3"])
    assert sweep["cells"][2]["inherited"] > 0
    assert alone["cells"][1]["inherited"] == 0


def test_without_a_run_directory_nothing_is_written(data, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    evaluate(Counting(), data, attacks=ATTACKS, device="cpu")
    assert list(tmp_path.iterdir()) == []


def test_identity_is_that_of_the_content() -> None:
    assert identity({"a": 1, "b": [1, 2]}) == identity({"b": [1, 2], "a": 1})
    assert len({identity(x) for x in [{"a": 1}, {"a": 2}, {"a": "1"}, {"b": 1}, [1], None]}) == 6


def test_files_appear_whole_or_not_at_all(tmp_path, monkeypatch) -> None:
    path = tmp_path / "sub" / "file.json"
    write_atomically(path, "first")

    def fails(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fails)
    with pytest.raises(JournalError, match=r"cannot write .*file.json: No space left"):
        write_atomically(path, "second")
    assert path.read_text() == "first"
    assert [p.name for p in path.parent.iterdir()] == ["file.json"]


def test_a_run_directory_that_cannot_be_used(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(JournalError, match="cannot use the run directory"):
        Journal(tmp_path / "file")
