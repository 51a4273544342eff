"""The commands and the code of docs/reports.md are run as they stand there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from freqrobust.cli.main import main
from freqrobust.results.reporter import reports

DOC = Path(__file__).parents[2] / "docs" / "reports.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", DOC.read_text(encoding="utf-8"), flags=re.DOTALL)


def block(part: str) -> str:
    """The only block of Python with this text."""
    (found,) = [one for one in blocks("python") if part in one]
    return found


def test_the_documented_commands(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "140")
    Path("lines.py").write_text(block("class Lines"), encoding="utf-8")
    lines = [line for block in blocks("sh") for line in block.splitlines() if ".pt" not in line]
    assert len(lines) == 7
    shown = {}
    for line in lines:
        with pytest.raises(SystemExit) as stop:
            main(shlex.split(line)[1:])
        assert stop.value.code == 0, line
        shown[line] = capsys.readouterr().out
    written = {path.name for path in tmp_path.iterdir()}
    assert {"out.html", "out.md", "out.xml", "table.tex", "cells.csv", "board.html", "board.md", "lines.txt"} <= written
    assert "undefended clean 1.0" in Path("lines.txt").read_text()
    documented = DOC.read_text(encoding="utf-8").partition("```\nLeaderboard")[2].partition("```")[0]
    board = next(text for line, text in shown.items() if line == "freqrobust report a.json b.json")
    assert f"Leaderboard{documented}".rstrip() in board


@pytest.mark.slow
def test_the_documented_methods(capsys) -> None:
    values: dict[str, Any] = {}
    exec(compile(block("to_html"), str(DOC), "exec"), values)
    shown = capsys.readouterr().out
    assert shown.startswith("demo on digits, 50 samples\n")
    assert str(values["report"].cell("fgsm:eps=0.1").accuracy) in shown
    assert values["page"].startswith("<!doctype html>")
    assert len(values["report"].examples[0].samples) == 2
    assert values["figure"].get_axes()


@pytest.mark.slow
def test_the_documented_code(capsys) -> None:
    exec(compile(block("load_model"), str(DOC), "exec"), {})
    name, accuracy = capsys.readouterr().out.split()
    assert name == "second"
    assert 0.8 < float(accuracy) <= 1


def test_every_report_is_documented() -> None:
    text = DOC.read_text(encoding="utf-8")
    for name in reports.names():
        if not reports.origin(name).startswith("freqrobust "):
            continue
        row = next(line for line in text.splitlines() if line.startswith(f"| `{name}` |"))
        assert set(re.findall(r"`(\w+)`", row)) - {name} == set(reports.get(name).model_fields)
