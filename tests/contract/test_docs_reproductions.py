"""The code of docs/reproductions.md is run, and its commands are understood."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from freqrobust.cli.main import main
from freqrobust.core.training_config import ReproduceCommand
from freqrobust.results.findings import Findings

PAGE = Path(__file__).parents[2] / "docs" / "reproductions.md"
TEXT = PAGE.read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, flags=re.DOTALL)


def test_the_experiment_of_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_experiment.py").write_text(blocks("python")[0], encoding="utf-8")
    _, *arguments = shlex.split(blocks("sh")[-1])
    with pytest.raises(SystemExit) as ended:
        main([*arguments, "--out", "here", "--quiet"])
    assert ended.value.code == 0
    found = Findings.from_json(tmp_path / "here" / "NoiseTraining.json")
    assert len(found.trends) == 1
    assert (tmp_path / "here" / "NoiseTraining.png").is_file()


def test_it_is_about_twenty_five_lines() -> None:
    assert len(blocks("python")[0].splitlines()) <= 28


@pytest.mark.parametrize("line", [line for block in blocks("sh") for line in block.splitlines()])
def test_every_command_is_understood(line: str) -> None:
    arguments = shlex.split(line)
    assert arguments[:2] == ["freqrobust", "reproduce"]
    assert {one for one in arguments if one.startswith("--")} <= ReproduceCommand.flags()
