"""Finished cells are served from the run directory, and only where everything their numbers depend on is the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from freqrobust.models.files import save_model
from freqrobust.models.loading import load_model

Command = Callable[..., Any]
Write = Callable[[str, str], str]

CELLS = [
    "undefended / clean",
    "undefended / pgd:eps=0.1,steps=2",
    "smooth:rho=0.05 / clean",
    "smooth:rho=0.05 / pgd:eps=0.1,steps=2",
]
WHAT = ["--attack", "pgd:eps=0.1,steps=2", "--defense", "smooth:rho=0.05"]


@pytest.fixture
def base(base: list[str]) -> list[str]:
    """A line for each cell says whether it was measured."""
    return [*base, "--verbose"]


def lines(err: str) -> dict[str, bool]:
    """The cells that a run reported, and whether each came from the journal."""
    found = {}
    for line in err.splitlines():
        label, separator, rest = line.partition(": ")
        if separator and " / " in label:
            found[label] = "(from the journal)" in rest
    return found


def stored(folder: str | Path) -> dict[str, tuple[bytes, int]]:
    """The cells in a run directory: content and time of writing."""
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in Path(folder, "cells").iterdir()}


def reported(folder: str | Path) -> Any:
    return json.loads(Path(folder, "report.json").read_text(encoding="utf-8"))


def test_the_same_command_again(base: list[str], command: Command) -> None:
    first = command(*base, *WHAT)
    (run,) = Path("runs").iterdir()
    before, report = stored(run), reported(run)
    assert lines(first.err) == dict.fromkeys(CELLS, False)
    second = command(*base, *WHAT)
    assert lines(second.err) == dict.fromkeys(CELLS, True)
    assert [path.name for path in Path("runs").iterdir()] == [run.name]
    assert stored(run) == before
    again = reported(run)
    assert [again.pop("created"), report.pop("created")]
    assert again == report
    assert second.out == first.out


def test_another_folder_another_run(base: list[str], command: Command) -> None:
    command(*base, *WHAT, "--run-dir", "a")
    assert lines(command(*base, *WHAT, "--run-dir", "b").err) == dict.fromkeys(CELLS, False)
    assert stored("a").keys() == stored("b").keys()


def test_a_larger_run_takes_what_is_there(base: list[str], command: Command) -> None:
    command(*base, *WHAT, "--run-dir", "run")
    more = command(*base, *WHAT, "--attack", "lfc:radius=2", "--run-dir", "run")
    expected = {
        **dict.fromkeys(CELLS, True),
        "undefended / lfc:radius=2": False,
        "smooth:rho=0.05 / lfc:radius=2": False,
    }
    assert lines(more.err) == expected


@pytest.mark.parametrize(
    "change", [["--seed", "1"], ["--first", "59"], ["--limit", "59"], ["--precision", "bf16"], ["--normalize", "half"]]
)
def test_a_change_of_everything(change: list[str], base: list[str], command: Command) -> None:
    command(*base, *WHAT, "--run-dir", "run")
    other = command(*base, *WHAT, *change, "--run-dir", "run")
    assert other.code == 0
    assert lines(other.err) == dict.fromkeys(CELLS, False)
    assert lines(command(*base, *WHAT, "--run-dir", "run").err) == dict.fromkeys(CELLS, True)


def test_other_labels(trained: Path, digits: Path, command: Command) -> None:
    with np.load(digits) as archive:
        images, labels = archive["images"], archive["labels"].copy()
    np.savez("mine.npz", images=images, labels=labels)
    command("eval", "--model", trained, "--data", "mine.npz", *WHAT, "--run-dir", "run", "-v")
    correct = reported("run")["cells"][0]["correct"]
    labels[0] = (labels[0] + 1) % 10
    np.savez("mine.npz", images=images, labels=labels)
    other = command("eval", "--model", trained, "--data", "mine.npz", *WHAT, "--run-dir", "run", "-v")
    assert lines(other.err) == dict.fromkeys(CELLS, False)
    assert reported("run")["cells"][0]["correct"] == correct - 1


def test_another_model_in_the_same_file(trained: Path, digits: Path, command: Command) -> None:
    model = load_model(trained)
    arguments = ["eval", "--model", "mine.pt", "--data", digits, *WHAT, "--run-dir", "run", "-v"]
    save_model(model, "mine.pt")
    command(*arguments)
    with torch.no_grad():
        model.network.linear.bias[3] += 1e-3  # type: ignore[union-attr, operator]
    save_model(model, "mine.pt")
    assert lines(command(*arguments).err) == dict.fromkeys(CELLS, False)


def test_other_parameters(base: list[str], command: Command) -> None:
    command(*base, *WHAT, "--run-dir", "run")
    rho = command(*base, *WHAT[:2], "--defense", "smooth:rho=0.06", "--run-dir", "run")
    served = lines(rho.err)
    assert served == {
        "undefended / clean": True,
        "undefended / pgd:eps=0.1,steps=2": True,
        "smooth:rho=0.06 / clean": False,
        "smooth:rho=0.06 / pgd:eps=0.1,steps=2": False,
    }
    steps = command(*base, "--attack", "pgd:eps=0.1,steps=3", "--run-dir", "run")
    assert lines(steps.err) == {"undefended / clean": True, "undefended / pgd:eps=0.1,steps=3": False}


def test_the_spelling_does_not_matter(base: list[str], command: Command) -> None:
    command(*base, *WHAT, "--run-dir", "run")
    other = command(
        *base, "--attack", "pgd:steps=2,eps=1/10", "--defense", "smooth", "--rho", "5e-2", "--run-dir", "run"
    )
    assert set(lines(other.err).values()) == {True}


def test_a_sweep_is_part_of_the_identity(base: list[str], command: Command) -> None:
    """With a smaller eps before it a cell starts from what that one broke: another way to count."""
    command(*base, "--attack", "pgd:eps=0.2,steps=2", "--run-dir", "run")
    sweep = command(*base, "--attack", "pgd:eps=[0.1,0.2],steps=2", "--run-dir", "run")
    assert lines(sweep.err)["undefended / pgd:eps=0.2,steps=2"] is False


SHIFT = """
from freqrobust import Attack
IMPORT
class Darken(Attack):
    kind = "shift"
    needs_gradient = False
    def perturb(self, model, images, labels, context):
        return images * FACTOR
"""


@pytest.mark.parametrize(
    ("how", "factor", "edited"),
    [
        ("SHADE = 1.0", "SHADE", "darken.py"),
        ("import shade", "shade.SHADE", "shade.py"),
        ("from shade import dark", "dark()", "shade.py"),
        ("from shade import SHADE", "SHADE", "shade.py"),
    ],
)
def test_an_edited_attack(
    how: str,
    factor: str,
    edited: str,
    base: list[str],
    command: Command,
    write: Write,
    forget_modules: Callable[[], None],
) -> None:
    write("shade.py", "SHADE = 1.0\ndef dark(): return SHADE\n")
    write("darken.py", SHIFT.replace("IMPORT", how).replace("FACTOR", factor))
    arguments = [*base, "--attack", "darken.py:Darken", "--run-dir", "run"]
    assert lines(command(*arguments).err)["undefended / Darken"] is False
    forget_modules()
    assert lines(command(*arguments).err) == {"undefended / clean": True, "undefended / Darken": True}
    cells = reported("run")["cells"]
    assert cells[1]["correct"] == cells[0]["correct"]
    write(edited, Path(edited).read_text(encoding="utf-8").replace("SHADE = 1.0", "SHADE = 0.0"))
    forget_modules()
    again = command(*arguments)
    assert lines(again.err) == {"undefended / clean": True, "undefended / Darken": False}
    assert reported("run")["cells"][1]["correct"] < cells[1]["correct"]


def test_an_edited_defense(base: list[str], command: Command, write: Write) -> None:
    code = (
        "from freqrobust import InputDefense\n"
        "class Fade(InputDefense):\n    def transform(self, images): return images * 1.0\n"
    )
    write("fade.py", code)
    arguments = [*base, "--attack", "lfc:radius=2", "--defense", "fade.py:Fade", "--run-dir", "run"]
    command(*arguments)
    assert set(lines(command(*arguments).err).values()) == {True}
    write("fade.py", code.replace("1.0", "0.0"))
    served = lines(command(*arguments).err)
    assert served == {
        "undefended / clean": True,
        "undefended / lfc:radius=2": True,
        "Fade / clean": False,
        "Fade / lfc:radius=2": False,
    }


def test_an_edited_network(digits: Path, command: Command, write: Write) -> None:
    code = (
        "from torch import nn\n"
        "class Net(nn.Module):\n    def forward(self, x): return x.flatten(1)[:, 20:30] * 1\n"
        "def make(): return Net()\n"
    )
    write("net.py", code)
    arguments = ["eval", "--model", "net.py:make", "--normalize", "none", "--data", digits]
    arguments += ["--attack", "lfc:radius=2", "--run-dir", "run", "-v"]
    command(*arguments)
    assert set(lines(command(*arguments).err).values()) == {True}
    write("net.py", code.replace("* 1", "* -1"))
    assert set(lines(command(*arguments).err).values()) == {False}


def cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


def nothing(content: bytes) -> bytes:
    return b""


def edited(content: bytes) -> bytes:
    return content.replace(b'"inherited": 0', b'"inherited": 1')


def binary(content: bytes) -> bytes:
    return bytes(range(256))


@pytest.mark.parametrize("damage", [cut, nothing, edited, binary])
def test_a_damaged_cell_is_noticed_and_measured_again(
    damage: Callable[[bytes], bytes], base: list[str], command: Command
) -> None:
    command(*base, *WHAT, "--no-oblivious", "--run-dir", "run")
    before, counts = stored("run"), [cell["outcomes"] for cell in reported("run")["cells"]]
    target_model = sorted(before)[1]  # whichever it is: the oblivious one would have no line of its own
    path = Path("run", "cells", target_model)
    path.write_bytes(damage(path.read_bytes()))
    assert path.read_bytes() != before[target_model][0]
    result = command(*base, *WHAT, "--no-oblivious", "--run-dir", "run")
    assert result.code == 0
    assert sorted(lines(result.err).values()) == [False, True, True, True]
    report = reported("run")
    (warning,) = [w for w in report["warnings"] if w["code"] == "damaged-journal"]
    assert target_model in warning["message"]
    assert "damaged-journal" in result.out
    assert [cell["outcomes"] for cell in report["cells"]] == counts
    after = command(*base, *WHAT, "--no-oblivious", "--run-dir", "run")
    assert set(lines(after.err).values()) == {True}
    assert all(w["code"] != "damaged-journal" for w in reported("run")["warnings"])


def test_no_half_written_files_stay(base: list[str], command: Command) -> None:
    command(*base, *WHAT, "--run-dir", "run", "--json", "out.json", "--no-oblivious")
    files = [path for path in Path().rglob("*") if path.is_file()]
    decided = [path.name for path in files if path.parent.name == "compilation"]
    names = [path.name for path in files if path.parent.name != "compilation"]
    checks = [check for one in reported("run")["diagnostics"] for check in one["checks"]]
    strong = [check for check in checks if check["name"] == "strong attack" and check["status"] != "not applicable"]
    # the report twice, the quick checks of two defenses, and the strong attacks of those with robust samples
    assert len(names) == len(CELLS) + 2 + 2 + len(strong)
    assert not [name for name in names if name.startswith(".")]
    assert len(decided) == 2  # whether passes are compiled, and the lock of those that decide
    assert ".lock" in decided
