"""``freqrobust reproduce``: what it prints and writes, on experiments of a file that take no time."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from freqrobust.cli import reproduce as reproduce_module
from freqrobust.cli.analyze import column_widths, render
from freqrobust.experiments.experiment import experiments
from freqrobust.results.analysis import AnalysisTable
from freqrobust.results.findings import Findings, Measured, Trend
from support.command import Result

MINE = """
from typing import ClassVar
from freqrobust.experiments.experiment import Experiment
from freqrobust.results.findings import Curve, Findings, Measured, Trend

class Mine(Experiment):
    '''Something small is measured.'''

    source: ClassVar[str] = "Somebody 2020, table 1"
    level: float = 0.5

    def run(self, bench):
        bench.progress.say("working")
        return Findings(
            settings={"network": "none"},
            measured=[Measured(name="level", value=self.level, published=0.4, ci95=(0.3, 0.6), unit="%")],
            trends=[Trend(statement="It is more.", verdict="undecided", estimate=0.1, ci95=(-0.1, 0.3), measure="d")],
            curves=[Curve(panel="p", label="l", x=[0, 1], y=[1, 2])],
            notes=[f"{len(bench.test)} images"] if bench.scale == "cpu" else [],
        )

class Broken(Experiment):
    '''It fails.'''

    def run(self, bench):
        raise RuntimeError("it does not work")

class BadPicture(Mine):
    '''Its picture fails.'''

    def draw(self, findings):
        raise RuntimeError("no ink")

class Slow(Experiment):
    '''It is interrupted.'''

    def run(self, bench):
        raise KeyboardInterrupt
"""


@pytest.fixture
def mine(write: Callable[[str, str], str]) -> str:
    return write("mine.py", MINE)


def test_it_prints_and_writes_what_was_found(mine: str, command: Callable[..., Result], workspace: Path) -> None:
    result = command("reproduce", "mine.py:Mine:level=0.25", "--json", "out.json")
    assert result.err.startswith("reproducing mine.py:Mine:level=0.25\n")
    assert result.code == 0
    lines = [" ".join(line.split()) for line in result.out.splitlines()]
    assert "Mine:level=0.25: Somebody 2020, table 1" in lines
    assert "network none" in lines
    assert "level | 40.0 % | 25.0 % | [30.0, 60.0]" in lines
    assert "undecided It is more." in lines
    assert "d: +0.1 [-0.1, 0.3]" in lines
    assert "0 of 1 trend reproduced, 1 undecided" in lines
    assert "working" in result.err
    assert "Mine:level=0.25 (Somebody 2020, table 1), scale digits: Something small is measured." in result.err
    (folder,) = (workspace / "runs").iterdir()
    assert folder.name.startswith("reproduce-Mine-digits-")
    assert sorted(path.name for path in folder.iterdir()) == ["Mine.json", "Mine.md", "Mine.png"]
    assert (folder / "Mine.png").read_bytes()[:4] == b"\x89PNG"
    assert "![Mine: Somebody 2020, table 1](Mine.png)" in (folder / "Mine.md").read_text()
    found = Findings.from_json(folder / "Mine.json")
    assert (found.params, found.scale, found.picture) == ({"level": 0.25}, "digits", None)
    assert (workspace / "out.json").read_text() == (folder / "Mine.json").read_text()
    assert all(path.name in result.err for path in folder.iterdir())


def test_the_folder_is_named_by_content(mine: str, command: Callable[..., Result], workspace: Path) -> None:
    for spec in ("mine.py:Mine", "mine.py:Mine", "mine.py:Mine:level=0.1"):
        assert command("reproduce", spec, "--quiet").code == 0
    assert command("reproduce", "mine.py:Mine", "--seed", 1, "--quiet").code == 0
    assert len(list((workspace / "runs").iterdir())) == 3


def test_quiet_prints_nothing(mine: str, command: Callable[..., Result], workspace: Path) -> None:
    result = command("reproduce", "mine.py:Mine", "--quiet", "--out", "here")
    assert (result.code, result.out, result.err) == (0, "", "")
    assert (workspace / "here" / "Mine.json").is_file()


def test_data_of_the_user(mine: str, command: Callable[..., Result], digits: Path) -> None:
    arguments = ["reproduce", "mine.py:Mine", "--scale", "cpu", "--data", digits, "--train-data", digits]
    result = command(*arguments)
    assert result.code == 0
    assert "60 images" in result.out
    assert f"60 test images ({digits}, 1x8x8)" in result.out


def test_a_picture_that_fails_loses_no_numbers(mine: str, command: Callable[..., Result]) -> None:
    result = command("reproduce", "mine.py:BadPicture")
    assert result.code == 0
    assert "the picture of BadPicture failed: RuntimeError: no ink" in result.out
    assert "25.0" not in result.out
    assert "50.0 %" in result.out


def test_an_interruption_has_a_message(mine: str, command: Callable[..., Result], workspace: Path) -> None:
    result = command("reproduce", "mine.py:Slow")
    assert result.code == 130
    assert (
        result.error
        == "freqrobust: interrupted; finished trainings are kept, run the same command again (exit code 130)"
    )
    assert not (workspace / "runs").exists()


def test_a_failure_is_one_line(mine: str, rejected: Callable[..., str]) -> None:
    assert rejected("reproduce", "mine.py:Broken") == "Broken failed: RuntimeError: it does not work"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name an experiment, or all (experiments: "),
        (["wang-tabel1"], "unknown experiment 'wang-tabel1'; did you mean 'wang-table1'? (experiments: "),
        (["spectral-bias:x=1"], "spectral-bias: unknown parameter 'x' (parameters: none)"),
        (["wang-table1", "--scale", "huge"], "--scale should be 'digits', 'cpu' or 'paper', but got 'huge'"),
        (["wang-table1", "--scale", "cpu"], "--scale cpu needs --data and --train-data"),
        (["all", "--scale", "cpu"], "all with --scale cpu needs --data and --train-data"),
        (["wang-table1", "--scale", "cpu", "--data", "x.npz"], "--data and --train-data are given together"),
        (["wang-table1", "--data", "x.npz", "--train-data", "y.npz"], "--data needs --scale cpu or paper"),
        (["wang-table1", "--scale", "cpu", "--data", "x.npz", "--train-data", "y.npz"], "x.npz does not exist"),
        (["wang-table1", "--json", "missing.json/x"], None),
        (["wang-table1", "--device", "tpu"], None),
    ],
)
def test_bad_input(arguments: list[str], message: str | None, rejected: Callable[..., str], workspace: Path) -> None:
    if "missing.json/x" in arguments:
        (workspace / "missing.json").write_text("a file")
    said = rejected("reproduce", *arguments)
    assert message is None or message in said


def test_a_file_that_cannot_be_written_is_noticed_before_anything_is_run(
    mine: str, rejected: Callable[..., str], workspace: Path
) -> None:
    (workspace / "taken").write_text("a file")
    assert "taken" in rejected("reproduce", "mine.py:Mine", "--out", "taken")


def test_the_published_scale_without_a_gpu_is_announced(mine: str, command: Callable[..., Result]) -> None:
    result = command("reproduce", "mine.py:Mine", "--scale", "paper", "--device", "cpu")
    assert result.code == 0
    assert "warning: the scale paper trains the published networks on the full data; without a GPU" in result.err
    assert "warning" not in command("reproduce", "mine.py:Mine", "--device", "cpu").err


def test_the_list_has_name_source_and_sentence(command: Callable[..., Result]) -> None:
    result = command("reproduce", "--list")
    assert (result.code, result.err) == (0, "")
    text = " ".join(result.out.split())
    for name in experiments.names():
        cls = experiments.get(name)
        sentence = " ".join((cls.__doc__ or "").split("\n\n")[0].split())
        assert f"{name} {cls.source} {sentence}" in text


def test_all_goes_on_after_a_failure(
    mine: str, command: Callable[..., Result], workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(experiments, "names", lambda: ["mine.py:Mine", "mine.py:Broken", "mine.py:Mine:level=1"])
    result = command("reproduce", "all", "--json", "all.json", "--out", "here")
    assert result.code == 3
    assert "freqrobust: mine.py:Broken: Broken failed: RuntimeError: it does not work" in result.err.splitlines()
    assert result.error == "freqrobust: exit code 3: 1 of 3 experiments failed: mine.py:Broken"
    rows = [[cell.strip() for cell in line.split("|")] for line in result.out.splitlines() if "|" in line]
    assert rows[0] == ["experiment", "reproduced", "not reproduced", "undecided", "seconds"]
    assert rows[1][:4] == ["mine.py:Mine", "-", "-", "1"]
    assert rows[3][:4] == ["mine.py:Broken", "failed", "failed", "failed"]
    assert rows[4][:4] == ["all", "0", "0", "2"]
    assert set(json.loads((workspace / "all.json").read_text())) == {"mine.py:Mine", "mine.py:Mine:level=1"}


def test_it_fits_into_80_columns(mine: str, workspace: Path) -> None:
    """Long settings, statements and numbers of many columns are folded, never cut."""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    words = " ".join(f"word{n}" for n in range(40))
    found = Findings(
        spec="x",
        settings={"network": words},
        measured=[Measured(name=words, value=np.pi, published=1.0, ci95=(1, 2))],
        trends=[Trend(statement=words, verdict="not reproduced", estimate=-1, ci95=(-2, -0.5), measure=words)],
        notes=[words],
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", "80")
        target = Terminal()
        reproduce_module.show(found, target)
    lines = target.getvalue().splitlines()
    plain = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in lines]
    assert max(map(len, plain)) <= 80
    assert "\n".join(plain).count("word39") == 5


def test_no_number_of_a_wide_table_is_cut_off_in_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    heads = ["kernel", "images", "training error", "left-out error", "test error", "with a ridge", "norm"]
    row = ["Gaussian kernel of pixels, b = 0.125", "2000", "0.0", "62.5", "65.4", "64.2", "66.9", "76.5"]
    table = AnalysisTable(title="Exact fits", columns=[*heads, "norm, shuffled labels"], rows=[row])
    monkeypatch.setenv("COLUMNS", "80")
    shown = Terminal()
    render([table], shown)
    lines = re.sub(r"\x1b\[[0-9;]*m", "", shown.getvalue()).splitlines()
    (first,) = [line for line in lines if "2000" in line]
    assert first.split()[-7:] == row[1:]
    assert all(len(line) <= 80 for line in lines)
    words = " ".join(lines).split()
    assert {word for head in heads for word in head.split()} | {"shuffled", "labels"} <= set(words)


def test_columns_take_no_more_than_there_is() -> None:
    table = AnalysisTable(title="", columns=["rho", "apgd:eps=0.1,steps=20"], rows=[["0.25", "adaptive 12.0 / 45.5"]])
    assert column_widths(table, 40) == [None, None]
    assert column_widths(table, 20) == [4, 16]
    assert column_widths(table, 6) == [3, 3]
