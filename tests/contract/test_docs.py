"""The code of docs/writing-a-defense.md is run, and the links and files of all pages exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from freqrobust.cli.main import main

ROOT = Path(__file__).parents[2]
DOC = ROOT / "docs" / "writing-a-defense.md"


def blocks(language: str, page: Path = DOC) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)


def run(arguments: list[str]) -> int:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert isinstance(stop.value.code, int)
    return stop.value.code


@pytest.mark.slow
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
    example = (ROOT / "examples" / "quantize.py").read_text(encoding="utf-8")
    assert example == blocks("python")[0]


@pytest.mark.parametrize("page", [*ROOT.glob("*.md"), *DOC.parent.rglob("*.md")], ids=lambda page: page.name)
def test_links_and_named_files_exist(page):
    text = page.read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (page.parent / link).exists(), link
    for name in re.findall(r"`((?:attacks|defenses|reports|benchmarks|tests)/[\w/.]+)`", text):
        assert (ROOT / name).exists(), name


def test_the_architecture_names_code_that_exists():
    text = (DOC.parent / "architecture.md").read_text(encoding="utf-8")
    calls = text[text.index("## From the command") : text.index("## Extending it")]
    named = re.findall(r"`([a-z_/]+\.py)(?:: ([\w.]+))?`", calls)
    assert len(named) > 10
    for path, attribute in named:
        if "/" in path:
            source = (ROOT / "freqrobust" / path).read_text(encoding="utf-8")
            for part in filter(None, attribute.split(".")):
                assert re.search(rf"(def|class) {part}\b", source), f"{path}: {attribute}"
    layers = re.search(r"^layers = \[(.*)\]", (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
    assert layers is not None
    assert re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE) == re.findall(r'"(\w+)"', layers[1])


def test_the_weight_defense_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("shrink.py").write_text(blocks("python")[1], encoding="utf-8")
    assert (
        run(["eval", "--defense", "shrink.py:Shrink", "--factor", "0.8", "--attack", "fgsm:eps=0.1", "--first", "50"])
        == 0
    )
    assert "Shrink:factor=0.8" in capsys.readouterr().out
