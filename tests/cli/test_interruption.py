"""Runs that are killed or interrupted: what is finished is kept, and the same command goes on from there."""

from __future__ import annotations

import json
import random
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.waiting import PATIENCE

Command = Callable[..., Any]
Start = Callable[..., "subprocess.Popen[str]"]

#: An attack whose result depends on its parameters and on the sample. Behind its first cell it waits as long as a file is there.
SLOW = """
import time
from pathlib import Path
from freqrobust import Attack
class Slow(Attack):
    eps: float = 0.1
    norm: str = "linf"
    shift: int = 0
    needs_gradient = False
    def perturb(self, model, images, labels, context):
        while (self.eps, self.shift) != (0.1, 1) and Path("hold").exists():
            time.sleep(0.01)
        noise = context.uniform(images.shape[1:], f"slow {self.shift}")
        return (images + self.eps * (2 * noise - 1).sign()).clamp(0, 1)
"""
#: Kills the process before or after it makes sure that a file is on disk, or gives it its name.
DIES = """
import os, signal
left = OPERATIONS
def counted(function):
    def call(*given):
        passed()
        result = function(*given)
        passed()
        return result
    return call
def passed():
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
os.fsync, os.replace = counted(os.fsync), counted(os.replace)
"""
ATTACKS = ["--attack", "slow.py:Slow:eps=[0.1,0.2,0.3],shift=[1,2,3,4]", "--batch-size", "20"]
CELLS = 13


@pytest.fixture
def base(base: list[str]) -> list[str]:
    """A line for each cell says whether it was measured."""
    return [*base, "--verbose"]


@pytest.fixture
def slow(write: Callable[[str, str], str]) -> None:
    write("slow.py", SLOW)


@pytest.fixture
def undisturbed(base: list[str], command: Command, slow: None) -> list[dict[str, Any]]:
    """The cells of the same run without an interruption."""
    assert command(*base, *ATTACKS, "--run-dir", "undisturbed").code == 0
    return cells("undisturbed")


def cells(run: str) -> list[dict[str, Any]]:
    found = json.loads(Path(run, "report.json").read_text(encoding="utf-8"))["cells"]
    return [{key: value for key, value in cell.items() if key != "seconds"} for cell in found]


def finished(run: str) -> set[str]:
    return {path.name for path in Path(run, "cells").glob("*.json")}


def wait_for(process: subprocess.Popen[str], text: str) -> None:
    """Read standard error up to a line that holds the text."""
    assert process.stderr is not None
    for line in process.stderr:
        if text in line:
            return
    pytest.fail(f"the process ended without saying {text!r}")


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_killed_at_random_moments(
    seed: int, base: list[str], command: Command, start: Start, undisturbed: list[dict[str, Any]]
) -> None:
    moments = random.Random(seed)
    kept: set[str] = set()
    for _ in range(3):  # each finished cell is four operations
        process = start(
            *base, *ATTACKS, "--run-dir", "killed", before=DIES.replace("OPERATIONS", f"{moments.randint(10, 16)}")
        )
        assert process.wait(PATIENCE) == -signal.SIGKILL
        assert kept < finished("killed")
        kept = finished("killed")
    assert len(kept) < CELLS
    assert not Path("killed", "report.json").exists()
    last = command(*base, *ATTACKS, "--run-dir", "killed")
    assert last.code == 0
    assert last.err.count("(from the journal)") == len(kept)
    assert "damaged" not in last.out
    assert cells("killed") == undisturbed


@pytest.mark.slow
def test_interrupted(base: list[str], command: Command, start: Start, undisturbed: list[dict[str, Any]]) -> None:
    Path("hold").touch()
    process = start(*base, *ATTACKS)
    wait_for(process, "undefended / Slow:eps=0.1,shift=1")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert out == ""
    assert "Traceback" not in err
    (run,) = Path("runs").iterdir()
    said = err.splitlines()[-1]
    assert said.startswith("freqrobust: interrupted (exit code 130)")
    assert "run the same command again to resume" in said
    assert str(run) in said
    done = len(finished(str(run)))
    assert done == 2
    Path("hold").unlink()
    resumed = command(*base, *ATTACKS)
    assert resumed.code == 0
    assert resumed.err.count("(from the journal)") == done
    assert cells(str(run)) == undisturbed


WHEN = """
import pathlib, torch
from torch import nn
from freqrobust import Attack, Defense

def stop():
    if not pathlib.Path("calm").exists():
        raise KeyboardInterrupt

class Interrupted(Attack):
    kind = "shift"
    needs_gradient = False
    def perturb(self, model, images, labels, context):
        stop()
        return images

class InterruptedDefense(Defense):
    def apply(self, model, context):
        stop()
        return model

def data():
    stop()
    return torch.zeros(20, 1, 8, 8), torch.arange(20) % 10

def model():
    stop()
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
"""


@pytest.mark.parametrize(
    "arguments",
    [
        ["--attack", "lfc:radius=2", "--attack", "when.py:Interrupted"],
        ["--attack", "lfc:radius=2", "--defense", "when.py:InterruptedDefense"],
        ["--attack", "lfc:radius=2", "--data", "when.py:data"],
        ["--attack", "lfc:radius=2", "--model", "when.py:model", "--normalize", "none"],
    ],
    ids=["attack", "defense", "data", "model"],
)
def test_ctrl_c_wherever_it_comes(
    arguments: list[str], base: list[str], command: Command, write: Callable[[str, str], str]
) -> None:
    write("when.py", WHEN)
    stopped = command(*base, *arguments)
    assert stopped.code == 130
    assert stopped.out == ""
    assert "Traceback" not in stopped.err
    assert stopped.error.startswith("freqrobust: interrupted")
    assert "(exit code 130)" in stopped.error
    assert "same command again" in stopped.error
    Path("calm").touch()
    resumed = command(*base, *arguments)
    assert resumed.code == 0
    assert len(list(Path("runs").iterdir())) == 1
    before = any(word in arguments for word in ("--data", "--model"))
    assert ("(from the journal)" in resumed.err) != before
