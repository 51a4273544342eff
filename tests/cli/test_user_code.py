"""Code of users that ends the process, or raises what is no ``Exception``, never looks like success."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Rejected = Callable[..., str]
Write = Callable[[str, str], str]

HEAD = """
import sys
import torch
from torch import nn
from freqrobust import Attack, Defense, InputDefense, Analysis, Reporter
class Stop(BaseException): pass
"""
RAISING = {
    "SystemExit": "sys.exit(0)",
    "GeneratorExit": "raise GeneratorExit",
    "Stop": "raise Stop('stopped here')",
    "StopIteration": "raise StopIteration",
}


@pytest.fixture(params=list(RAISING))
def raised(request: pytest.FixtureRequest) -> tuple[str, str]:
    """The name of an error, and the statement that raises it."""
    return request.param, RAISING[request.param]


@pytest.mark.parametrize("option", ["data", "model", "attack", "defense", "report", "arch", "train-data"])
@pytest.mark.parametrize("where", ["mine.py", "mine"])
def test_a_file_that_ends_the_process_when_it_is_imported(
    option: str, where: str, base: list[str], trained: Path, raised: tuple[str, str], rejected: Rejected, write: Write
) -> None:
    write("mine.py", HEAD + raised[1])
    spec = f"{where}:Mine"
    options = {
        "data": ["eval", "--model", trained, "--data", spec],
        "model": ["eval", "--model", spec, *base[3:]],
        "report": [*base, "--report", f"{spec}=out.txt"],
    }.get(option, [*base, f"--{option}", spec])
    message = rejected(*options)
    assert "mine" in message
    assert raised[0] in message


@pytest.mark.parametrize("option", ["data", "model", "arch"])
def test_a_factory_that_ends_the_process_when_it_is_called(
    option: str, base: list[str], trained: Path, raised: tuple[str, str], rejected: Rejected, write: Write
) -> None:
    write("mine.py", f"{HEAD}def make():\n    {raised[1]}\n")
    options = {
        "data": ["eval", "--model", trained, "--data", "mine.py:make"],
        "model": ["eval", "--model", "mine.py:make", *base[3:]],
        "arch": [*base, "--arch", "mine.py:make"],
    }[option]
    message = rejected(*options)
    assert "mine.py:make failed" in message
    assert raised[0] in message


def test_a_dataset_that_ends_the_process_when_it_is_read(
    trained: Path, raised: tuple[str, str], rejected: Rejected, write: Write
) -> None:
    write(
        "mine.py",
        f"{HEAD}class Mine:\n    def __len__(self): return 4\n    def __getitem__(self, i):\n        {raised[1]}\n",
    )
    message = rejected("eval", "--model", trained, "--data", "mine.py:Mine")
    assert raised[0] in message


def test_a_plugin_that_ends_the_process_while_its_parameters_are_checked(
    base: list[str], raised: tuple[str, str], rejected: Rejected, write: Write
) -> None:
    code = (
        "from pydantic import model_validator\n"
        "class Mine(Attack):\n"
        "    @model_validator(mode='after')\n"
        "    def _check(self):\n"
        f"        {raised[1]}\n"
        "    def perturb(self, model, images, labels, context): return images\n"
    )
    write("mine.py", HEAD + code)
    assert raised[0] in rejected(*base, "--attack", "mine.py:Mine")


def test_a_model_that_ends_the_process_on_the_first_images(
    base: list[str], raised: tuple[str, str], rejected: Rejected, write: Write
) -> None:
    write("mine.py", f"{HEAD}class Mine(nn.Module):\n    def forward(self, x):\n        {raised[1]}\n")
    message = rejected("eval", "--model", "mine.py:Mine", *base[3:], "--attack", "fgsm")
    assert "the model fails" in message
    assert raised[0] in message


ATTACK = "class Mine(Attack):\n    def perturb(self, model, images, labels, context):\n        {}\n"
DEFENSE = "class Mine(Defense):\n    def apply(self, model, context):\n        {}\n"
TRANSFORM = "class Mine(InputDefense):\n    def transform(self, images):\n        {}\n"


@pytest.mark.parametrize(("kind", "code"), [("attack", ATTACK), ("defense", DEFENSE), ("defense", TRANSFORM)])
def test_a_plugin_that_ends_the_process_is_a_failed_cell(
    kind: str, code: str, base: list[str], raised: tuple[str, str], report: Callable[..., Any], write: Write
) -> None:
    write("mine.py", HEAD + code.format(raised[1]))
    options = ["--attack", "fgsm", *(["--attack"] if kind == "attack" else ["--defense"]), "mine.py:Mine"]
    cells = report(*base, *options, code=3)["cells"]
    failed = [cell for cell in cells if cell["status"] == "failed"]
    assert failed
    assert all(raised[0] in cell["error"] for cell in failed)
    assert any(cell["attack"] == "fgsm" and cell["status"] == "ok" for cell in cells)


def test_a_model_that_ends_the_process_later_is_a_failed_cell(
    base: list[str], raised: tuple[str, str], report: Callable[..., Any], write: Write
) -> None:
    """It answers while it is looked at without gradients, and then no more."""
    code = (
        "class Mine(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.layer = nn.Linear(64, 10)\n"
        "        nn.init.zeros_(self.layer.weight)\n"
        "        self.layer.bias.data = torch.eye(10)[0]  # right on the zeros, which are more than four\n"
        "    def forward(self, x):\n"
        "        if len(x) > 4 and x.requires_grad:\n"
        f"            {raised[1]}\n"
        "        return self.layer(x.flatten(1))\n"
    )
    write("mine.py", HEAD + code)
    found = report("eval", "--model", "mine.py:Mine", *base[3:], "--attack", "fgsm", "--attack", "lfc:radius=2", code=3)
    by_attack = {cell["attack"]: cell for cell in found["cells"]}
    assert raised[0] in by_attack["fgsm"]["error"]
    assert by_attack["lfc"]["status"] == by_attack["clean"]["status"] == "ok"


def test_a_model_that_cannot_be_copied_is_attacked_as_it_is(
    base: list[str], raised: tuple[str, str], report: Callable[..., Any], write: Write
) -> None:
    code = (
        "class Mine(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.layer = nn.Linear(64, 10)\n"
        "    def __deepcopy__(self, memory):\n"
        f"        {raised[1]}\n"
        "    def forward(self, x):\n"
        "        return self.layer(x.flatten(1))\n"
    )
    write("mine.py", HEAD + code)
    options = ["--attack", "fgsm", "--defense", "lowpass:radius=2"]
    assert report("eval", "--model", "mine.py:Mine", *base[3:], *options)["status"] == "complete"


def test_an_analysis_that_ends_the_process(
    base: list[str], raised: tuple[str, str], rejected: Rejected, write: Write
) -> None:
    write("mine.py", f"{HEAD}class Mine(Analysis):\n    def run(self, model, data, context):\n        {raised[1]}\n")
    message = rejected("analyze", "mine.py:Mine", *base[1:], "--quiet")
    assert raised[0] in message


def test_a_reporter_that_ends_the_process(
    base: list[str], command: Callable[..., Any], raised: tuple[str, str], write: Write
) -> None:
    write("mine.py", f"{HEAD}class Mine(Reporter):\n    def render(self, report, target):\n        {raised[1]}\n")
    done = command(*base, "--attack", "lfc:radius=2", "--report", "mine.py:Mine=out.txt")
    assert done.code == 2
    assert raised[0] in done.error


def test_saved_examples_of_an_attack_that_ends_the_process(
    base: list[str], command: Callable[..., Any], raised: tuple[str, str], write: Write
) -> None:
    write("mine.py", HEAD + ATTACK.format(raised[1]))
    done = command(*base, "--attack", "fgsm", "--attack", "mine.py:Mine", "--save-adversarial", "saved")
    assert done.code == 3
    assert len(list(Path("saved").iterdir())) == 1


def test_whatever_else_ends_the_process_is_no_success(
    base: list[str], command: Callable[..., Any], write: Write
) -> None:
    """The last line of defence: a method of a plugin that is called outside of any cell."""
    code = "class Mine(Attack):\n    def threat(self): sys.exit(0)\n"
    write("mine.py", f"{HEAD}{code}    def perturb(self, model, images, labels, context): return images\n")
    for debug in ([], ["--debug"]):
        done = command(*base, "--attack", "mine.py:Mine", "--run-dir", "run", *debug)
        assert done.code in (2, 3), done
        assert "SystemExit" in done.err


def test_ctrl_c_in_user_code_is_ctrl_c(base: list[str], command: Callable[..., Any], write: Write) -> None:
    write("mine.py", HEAD + ATTACK.format("raise KeyboardInterrupt"))
    assert command(*base, "--attack", "mine.py:Mine").code == 130
    write("other.py", "raise KeyboardInterrupt")
    assert command("eval", "--model", "other.py:make", *base[3:]).code == 130


def test_a_file_that_failed_is_executed_again(base: list[str], command: Callable[..., Any], write: Write) -> None:
    write(
        "mine.py",
        "from pathlib import Path\nif not Path('there').exists(): raise SystemExit(0)\n"
        + HEAD
        + ATTACK.format("return images"),
    )
    assert command(*base, "--attack", "mine.py:Mine").code == 2
    Path("there").touch()
    assert command(*base, "--attack", "mine.py:Mine", "--json", "out.json").code == 0
    assert json.loads(Path("out.json").read_text(encoding="utf-8"))["status"] == "complete"
