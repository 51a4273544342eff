"""What is printed: it fits the terminal, says the same as the report, and is plain text in a pipe."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from freqrobust.reports._short import without_parameters
from freqrobust.results.report import Report
from support.terminal import written
from support.waiting import PATIENCE

Command = Callable[..., Any]

DEFENSES = ["smooth:rho=0.05", "smooth:rho=0.5,layers=all", "lowpass:radius=3", "smooth:rho=0.1+lowpass:radius=2"]
ARGUMENTS = ["--attack", "lfc:radius=3", "--attack", "pgd:eps=[1/255,8/255],steps=2,loss=margin,target=least-likely"]
ARGUMENTS += [part for spec in DEFENSES for part in ("--defense", spec)]


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same cells are measured once, and shown at several widths."""
    return tmp_path_factory.mktemp("run")


@pytest.mark.parametrize("full", [[], ["--full"]], ids=["short", "full"])
@pytest.mark.parametrize("columns", [40, 60, 80, 100, 120, 200])
def test_lines_fit(
    columns: int, full: list[str], base: list[str], run_dir: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    result = command(*base, *ARGUMENTS, "--run-dir", run_dir, *full)
    assert result.code == 0
    assert [line for line in result.out.splitlines() if len(line) > columns] == []


def test_lines_of_verdicts_lose_parameters_before_numbers(
    base: list[str], run_dir: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    result = command(*base, *ARGUMENTS, "--run-dir", run_dir)
    verdicts = result.out.partition("Verdicts on")[2].partition("\n\n")[0]
    assert "\nsmooth+lowpass: oblivious attacks overstate it by up to " in verdicts
    labels = ["undefended", "bit-depth:bits=4+lowpass:radius=3", "m.py:Mine:a=1/2", "smooth:rho=1", "smooth:rho=2"]
    assert list(without_parameters(labels).values()) == ["undefended", "bit-depth+lowpass", "m.py:Mine", *labels[3:]]


def test_side_by_side_where_there_is_room(base: list[str], command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    arguments = ["--attack", "lfc:radius=3", "--defense", DEFENSES[0], "--defense", DEFENSES[2]]
    lines = command(*base, *arguments, "--full").out.splitlines()
    headers = [line for line in lines if "undefended" in line and DEFENSES[0] in line and DEFENSES[2] in line]
    assert len(headers) == 2
    assert not any("continued" in line for line in lines)


@pytest.mark.parametrize("columns", [80, 200])
def test_every_number_is_shown(
    columns: int, base: list[str], command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The values of a row, over all pieces of the table, are those of the report."""
    monkeypatch.setenv("COLUMNS", str(columns))
    arguments = ["--attack", "lfc:radius=1", "--attack", "hfc:radius=1", "--defense", "lowpass:radius=[1,2,3]"]
    result = command(*base, *arguments, "--json", "out.json", "--full")
    report = Report.from_json("out.json")
    _, _, every = result.out.partition("Every cell")
    for attack in ("clean", "lfc:radius=1", "hfc:radius=1"):
        rows = [line for line in every.splitlines() if line.startswith(f"{attack} ")]
        shown = [float(value) for row in rows for value in re.findall(r"[| ] *(\d+\.\d)~? \[", row)]
        cells = [cell for cell in report.cells if cell.attack_spec == attack]
        values = [round(100 * float(cell.accuracy or 0), 1) for cell in cells]
        points = [round(100 * cell.difference.points, 1) for cell in cells if cell.difference]
        differences = [float(value) for row in rows for value in re.findall(r"([+-]\d+\.\d) \[", row)]
        assert shown == values
        assert differences == points


def test_headline(base: list[str], command: Command) -> None:
    result = command(
        *base, "--attack", "lfc:radius=3", "--attack", "fgsm:eps=8/255", "--attack", "pgd:eps=8/255,norm=l2"
    )
    assert "Every cell" not in result.out
    headline, _, _ = result.out.partition("Verdicts")
    for label in ("clean", "LFC, radius 3", "worst case Linf 8/255", "worst case L2 8/255"):
        assert len([line for line in headline.splitlines() if line.startswith(label)]) == 1


def test_the_first_lines_say_what_was_measured(base: list[str], command: Command) -> None:
    result = command(*base, "--attack", "lfc:radius=3", "--seed", "5", "--first", "40", "--device", "cpu")
    text = " ".join(result.out.split())
    for word in ("small_cnn", "digits.pt", "digits60.npz", "n = 40", "seed 5", "cpu", "fp32", "normalisation none"):
        assert word in text
    assert result.err.splitlines()[0] == "evaluating digits.pt on digits60.npz"


def test_no_better_than_chance_is_marked(base: list[str], command: Command) -> None:
    result = command(*base, "--attack", "hfc:radius=8", "--attack", "lfc:radius=8", "--full")
    rows = {line.split()[0]: line for line in result.out.partition("Every cell")[2].splitlines() if line.strip()}
    assert "~" in rows["hfc:radius=8"]
    assert "~" not in rows["lfc:radius=8"]
    assert "~ no better than chance" in result.out


@pytest.mark.slow
def test_a_pipe_gets_plain_text(base: list[str], start: Callable[..., subprocess.Popen[str]]) -> None:
    arguments = ["--attack", "fgsm", "--attack", "lfc:radius=3", "--defense", "smooth:rho=0.5"]
    out, err = start(*base, *arguments).communicate(timeout=PATIENCE)
    assert "clean" in out
    assert "undefended / clean" not in err
    assert err.splitlines()[0].startswith("evaluating ")
    assert "\x1b" not in out + err
    assert (out + err).isascii()
    assert max(map(len, out.splitlines())) <= 160


@pytest.mark.slow
def test_a_terminal_gets_the_same_numbers(
    base: list[str], start: Callable[..., subprocess.Popen[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    pty = pytest.importorskip("pty")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    main, other = pty.openpty()
    with os.fdopen(other, "w") as terminal:
        process = start(*base, "--attack", "fgsm", "--defense", "smooth:rho=0.5", "--json", "out.json", out=terminal)
    received = b"".join(written(main))
    os.close(main)
    assert process.wait(timeout=PATIENCE) == 0
    shown = received.decode()
    assert "\x1b[1m" in shown
    for cell in Report.from_json("out.json").cells:
        assert f"{100 * float(cell.accuracy or 0):.1f}" in shown


def test_failures_and_warnings_are_shown(base: list[str], command: Command, write: Callable[[str, str], str]) -> None:
    code = (
        "from freqrobust import Attack\nclass Broken(Attack):\n    def perturb(self, *all): raise OSError('[bold]no')\n"
    )
    write("mine.py", code)
    arguments = [*base, "--attack", "mine.py:Broken", "--defense", "smooth:rho=5"]
    result = command(*arguments, "--full")
    assert result.code == 3
    assert "failed: undefended / Broken: Broken: OSError: [bold]no" in " ".join(result.out.split())
    assert "(near-chance-accuracy)" in result.out
    row, *_ = [line for line in result.out.splitlines() if line.startswith("Broken ")]
    assert row.count("failed") == 2
    assert result.error == "freqrobust: exit code 3: 3 of 5 cells failed"
    short = command(*arguments)
    assert "failed: undefended / Broken: Broken: OSError: [bold]no" in short.out
    assert "failed: smooth:rho=5 / Broken and 1 more: Broken: OSError: [bold]no" in short.out
    assert short.error == result.error
    assert Path("runs").is_dir()
