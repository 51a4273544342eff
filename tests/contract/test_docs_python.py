"""The examples of docs/python.md run, one after the other, and print what they say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import freqrobust

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "python.md").read_text(encoding="utf-8")


def test_the_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    blocks = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    for block in blocks:
        exec(block, names)
    printed = capsys.readouterr().out
    said = re.findall(r"print\(result\)  # (.*)", PAGE)
    assert said == printed.splitlines()[:1]
    assert [path.name for path in tmp_path.iterdir()] == ["new.json"]


def test_the_table_names_the_functions_and_what_they_return() -> None:
    snapshot = Path(__file__).with_name("api.txt").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \| [^|]* \| (.*) \|$", PAGE, flags=re.MULTILINE)
    listed = [(name, kind) for left, right in rows for name, kind in zip(*map(names_in, (left, right)), strict=True)]
    functions = dict(re.findall(r"^def (\w+) -> (.*)$", snapshot, flags=re.MULTILINE))
    assert len(listed) == 8
    for name, kind in listed:
        assert functions[name] == kind
        assert name in freqrobust.__all__


def names_in(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)
