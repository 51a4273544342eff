"""A plugin that breaks its contract while it runs: exit code 3, and only its own cells are lost."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from freqrobust.results.report import Report

ATTACKS = """
import torch
from freqrobust import Attack

class Attacks(Attack):
    eps: float = 0.1
    norm: str = "linf"
    def perturb(self, model, images, labels, context):
        return self.change(images)

class OverBudget(Attacks):
    def change(self, images): return (images + 2 * self.eps).clamp(0, 1)
class SlightlyOver(Attacks):
    norm: str = "l2"
    def change(self, images):
        step = torch.zeros_like(images)
        step[..., 0, 0] = torch.where(images[..., 0, 0] > 0.5, -1.0, 1.0) * (self.eps + 1e-4)
        return images + step
class NotFinite(Attacks):
    def change(self, images): return images * float("nan")
class Raises(Attacks):
    def change(self, images): raise KeyError("nothing there")
class OutOfRange(Attacks):
    def change(self, images): return images + self.eps
class WrongShape(Attacks):
    def change(self, images): return images[:, :, 1:]
class NoTensor(Attacks):
    def change(self, images): return [images]
class Nothing(Attacks):
    def change(self, images): pass
class Integers(Attacks):
    def change(self, images): return (images * 255).byte()
"""

DEFENSES = """
import torch
from torch import nn
from freqrobust import Defense, InputDefense

class Raises(Defense):
    def apply(self, model, context): raise KeyError("nothing there")
class NoModule(Defense):
    def apply(self, model, context): return "a model"
class InPlace(Defense):
    def apply(self, model, context):
        with torch.no_grad():
            next(model.parameters()).add_(1)
        return model
class WrongShape(InputDefense):
    def transform(self, images): return images[:, 0]
class RaisesLater(InputDefense):
    def transform(self, images): raise KeyError("nothing there")
"""


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("OverBudget", "exceeds its perturbation budget: Linf 0.2 > 0.1"),
        ("SlightlyOver", "exceeds its perturbation budget: L2 0.1001 > 0.1"),
        ("NotFinite", "NaN or infinite"),
        ("Raises", "KeyError: 'nothing there'"),
        ("OutOfRange", "outside of [0, 1]"),
        ("WrongShape", "(60, 1, 7, 8)"),
        ("NoTensor", "returned a list"),
        ("Nothing", "returned a NoneType"),
        ("Integers", "returned torch.uint8"),
    ],
)
def test_failing_attack(
    name: str, expected: str, base: list[str], command: Callable[..., Any], write: Callable[[str, str], str]
) -> None:
    write("attacks.py", ATTACKS)
    arguments = ["--attack", "fgsm:eps=0.1", "--attack", f"attacks.py:{name}", "--attack", "lfc:radius=2"]
    result = command(*base, "--batch-size", 60, *arguments, "--json", "out.json")
    assert result.code == 3
    assert "Traceback" not in result.err
    report = Report.from_json("out.json")
    assert report.status == "partial"
    by_name = {cell.attack: cell for cell in report.cells}
    failed = by_name.pop(name)
    assert failed.status == "failed"
    assert name in str(failed.error)
    if name != "WrongShape":
        assert expected in str(failed.error)
    assert failed.accuracy is None
    assert failed.outcomes is None
    assert {cell.status for cell in by_name.values()} == {"ok"}
    assert list(by_name) == ["clean", "fgsm", "lfc"]
    assert f"failed: undefended / {name}" in result.out
    if name != "SlightlyOver":  # an attack that failed does not weaken the worst case, or strengthen it
        (worst,) = [row for row in report.worst_case if row.threat.norm == "linf"]
        assert worst.correct + worst.by_checks == by_name["fgsm"].correct


def test_the_others_have_the_numbers_they_have_alone(
    base: list[str], report: Callable[..., dict[str, Any]], write: Callable[[str, str], str]
) -> None:
    write("attacks.py", ATTACKS)
    alone = report(*base, "--attack", "pgd:eps=0.1,steps=3", "--run-dir", "one")
    mixed = report(
        *base, "--attack", "attacks.py:Raises", "--attack", "pgd:eps=0.1,steps=3", "--run-dir", "two", code=3
    )
    ours = [{cell["attack"]: cell for cell in found["cells"]}["pgd"] for found in (alone, mixed)]
    assert ours[0]["outcomes"] == ours[1]["outcomes"]


def test_a_failed_cell_is_tried_again(
    base: list[str], command: Callable[..., Any], write: Callable[[str, str], str]
) -> None:
    code = """
import pathlib
from freqrobust import Attack
class Flaky(Attack):
    kind = "shift"
    def perturb(self, model, images, labels, context):
        if not pathlib.Path("ready").exists():
            raise OSError("not ready")
        return images
"""
    write("flaky.py", code)
    arguments = [*base, "--attack", "flaky.py:Flaky", "--attack", "lfc:radius=2", "--run-dir", "run"]
    assert command(*arguments).code == 3
    assert json.loads(Path("run/report.json").read_text(encoding="utf-8"))["status"] == "partial"
    Path("ready").touch()
    again = command(*arguments, "-v")
    assert again.code == 0
    assert "undefended / lfc:radius=2" in again.err
    assert json.loads(Path("run/report.json").read_text(encoding="utf-8"))["status"] == "complete"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Raises", "KeyError: 'nothing there'"),
        ("NoModule", "should return an nn.Module, but returned a str"),
        ("InPlace", "changed the model it was given"),
        ("WrongShape", "should return images shaped like"),
        ("RaisesLater", "KeyError: 'nothing there'"),
    ],
)
def test_failing_defense(
    name: str, expected: str, base: list[str], command: Callable[..., Any], write: Callable[[str, str], str]
) -> None:
    write("defenses.py", DEFENSES)
    arguments = ["--defense", f"defenses.py:{name}", "--defense", "smooth:rho=0", "--attack", "fgsm:eps=0.1"]
    result = command(*base, *arguments, "--json", "out.json")
    assert result.code == 3
    assert "Traceback" not in result.err
    report = Report.from_json("out.json")
    assert report.status == "partial"
    assert [warning.code for warning in report.warnings if warning.defense == name] == ["defense-failed"]
    for cell in report.cells:
        assert cell.status == ("failed" if cell.defense == name else "ok")
        if cell.defense == name:
            assert name in str(cell.error)
            assert expected in str(cell.error)
    for attack in ("clean", "fgsm"):  # smoothing with rho=0 is the identity: the model is as it was
        assert report.cell(f"smooth/{attack}").outcomes == report.cell(f"undefended/{attack}").outcomes
    assert {row.defense for row in report.worst_case} == {"undefended", "smooth"}
