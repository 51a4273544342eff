"""The code of docs/writing-a-defense.md is run as it stands there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from freqrobust.cli.main import main

DOC = Path(__file__).parents[2] / "docs" / "writing-a-defense.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", DOC.read_text(encoding="utf-8"), flags=re.DOTALL)


def run(arguments: list[str]) -> int:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert isinstance(stop.value.code, int)
    return stop.value.code


def test_the_documented_command_runs_the_documented_defense(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("my_defense.py").write_text(blocks("python")[0], encoding="utf-8")
    _, *arguments = shlex.split(blocks("sh")[0])
    assert run([*arguments, "--limit", "100"]) == 0
    shown = capsys.readouterr()
    assert "Quantize:bits=4" in shown.out
    assert "zero-gradients" not in shown.out  # declared: attacks go straight through


def test_it_is_about_twenty_lines():
    assert len(blocks("python")[0].splitlines()) <= 22


def test_the_example_is_the_documented_one():
    example = DOC.parents[1] / "examples" / "quantize.py"
    assert example.read_text(encoding="utf-8") == blocks("python")[0]


def test_the_weight_defense_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("shrink.py").write_text(blocks("python")[1], encoding="utf-8")
    assert (
        run(["eval", "--defense", "shrink.py:Shrink", "--factor", "0.8", "--attack", "fgsm:eps=0.1", "--first", "50"])
        == 0
    )
    assert "Shrink:factor=0.8" in capsys.readouterr().out
