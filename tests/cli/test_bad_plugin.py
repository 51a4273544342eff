"""Plugins from files that are not usable plugins: exit code 2 and one line that names the culprit."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from freqrobust.core.commands import reserved_names

Rejected = Callable[..., str]
Write = Callable[[str, str], str]

HEAD = """
from typing import ClassVar
import torch
from torch import nn
from freqrobust import Attack, Defense, InputDefense
number = 3
def function(): pass
"""
ATTACK = "\n    def perturb(self, model, images, labels, context): return images\n"
APPLY = "\n    def apply(self, model, context): return model\n"
TRANSFORM = "\n    def transform(self, images): return images\n"


@pytest.mark.parametrize(
    ("kind", "source", "expected"),
    [
        ("attack", "class Mine(Attack):\n    seed: int = 0" + ATTACK, "the parameter 'seed' has the name of an option"),
        ("attack", "class Mine(Attack):\n    kind: str = 'shift'" + ATTACK, "the field 'kind' hides an attribute"),
        (
            "attack",
            "class Mine(Attack):\n    needs_gradient: bool = False" + ATTACK,
            "to set the attribute write 'needs_gradient = ...' without a type",
        ),
        ("attack", "class Mine(Attack):\n    perturb: int = 1", "the field 'perturb' hides an attribute of Attack"),
        ("attack", "class Mine(Attack): pass", "does not implement perturb()"),
        ("attack", "class Mine(Defense):" + APPLY, "expected a subclass of freqrobust.Attack"),
        ("attack", "class Mine(Attack):\n    eps: list = unknown" + ATTACK, "NameError: name 'unknown' is not defined"),
        ("attack", "class Mine(Attack:\n", "SyntaxError"),
        ("attack", "import no_such_module\n", "No module named 'no_such_module'"),
        ("attack", "raise RuntimeError('first line\\nsecond line')", "RuntimeError: first line second line"),
        ("attack", "Mine = 7", "expected a subclass of freqrobust.Attack"),
        ("attack", "def Mine(): pass", "expected a subclass of freqrobust.Attack"),
        ("attack", "class Mine(nn.Module): pass", "expected a subclass of freqrobust.Attack"),
        ("attack", "class Mien(Attack):" + ATTACK, "has no 'Mine'; did you mean 'Mien'?"),
        ("defense", "class Mine(Attack):" + ATTACK, "expected a subclass of freqrobust.Defense"),
        ("defense", "class Mine(nn.Module): pass", "expected a subclass of freqrobust.Defense"),
        ("defense", "class Mine(Defense): pass", "does not implement apply()"),
        ("defense", "class Mine(InputDefense): pass", "does not implement transform()"),
        (
            "defense",
            "class Mine(Defense):\n    differentiable: bool = False" + APPLY,
            "to set the attribute write 'differentiable = ...' without a type",
        ),
        ("defense", "class Mine(Defense):\n    stochastic: bool = True" + APPLY, "the field 'stochastic' hides"),
        ("defense", "class Mine(Defense):\n    apply: int = 1", "the field 'apply' hides an attribute of Defense"),
        (
            "defense",
            "class Mine(Defense):\n    differentiable: ClassVar[bool] = False" + APPLY,
            "differentiable = False and so has to implement surrogate(model)",
        ),
        ("defense", "class Mine(InputDefense):\n    bits: int" + TRANSFORM, "parameter 'bits' is required"),
        ("defense", "class Mine(Defense:\n", "SyntaxError"),
    ],
)
def test_bad_plugin(kind: str, source: str, expected: str, base: list[str], rejected: Rejected, write: Write) -> None:
    write("mine.py", HEAD + source)
    message = rejected(*base, f"--{kind}", "mine.py:Mine")
    assert "mine.py" in message or "Mine" in message
    assert expected in message


CORE_OPTIONS = sorted(reserved_names("eval"))


@pytest.mark.parametrize("field", CORE_OPTIONS)
def test_a_field_named_like_a_core_option(field: str, base: list[str], rejected: Rejected, write: Write) -> None:
    write("mine.py", f"{HEAD}class Mine(InputDefense):\n    {field}: int = 0{TRANSFORM}")
    message = rejected(*base, "--defense", "mine.py:Mine")
    assert "Mine" in message
    if field == "json":  # an attribute of all pydantic models
        assert "the field 'json' hides an attribute" in message
    else:
        assert f"the parameter {field!r} has the name of an option of freqrobust eval" in message


def test_core_options_were_found() -> None:
    assert {"seed", "json", "model", "limit"} <= set(CORE_OPTIONS)


@pytest.mark.parametrize("kind", ["attack", "defense"])
@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("absent.py:Mine", "absent.py does not exist"),
        ("mine.py", "name the class in the file as well, for example mine.py:MyPlugin"),
        ("mine.py:", "mine.py"),
        ("no_such_module:Mine", "cannot import 'no_such_module'"),
        ("freqrobust:Nothing", "freqrobust has no 'Nothing'"),
        ("mine.py:number", "mine.py:number is not"),
    ],
)
def test_bad_place(kind: str, spec: str, expected: str, base: list[str], rejected: Rejected, write: Write) -> None:
    write("mine.py", HEAD)
    assert expected in rejected(*base, f"--{kind}", spec)


@pytest.mark.parametrize(
    "source",
    [
        "class Mine(Attack):\n    kind: ClassVar[str] = 'shift'\n    needs_gradient = False" + ATTACK,
        "class Base(Attack):" + ATTACK + "class Mine(Base):\n    kind = 'shift'\n    strength: float = 1.0\n",
    ],
)
def test_attributes_set_without_a_field_are_accepted(
    source: str, base: list[str], report: Callable[..., dict], write: Write
) -> None:
    write("mine.py", HEAD + source)
    cells = report(*base, "--attack", "mine.py:Mine")["cells"]
    assert [cell["attack"] for cell in cells] == ["clean", "Mine"]
    assert cells[1]["kind"] == "shift"
    assert cells[1]["correct"] == cells[0]["correct"]
