"""The commands of docs/commands.md run, in their order, and its file is what is saved."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from freqrobust.cli.main import main
from freqrobust.core.toml_lines import line_of

PAGE = (Path(__file__).parents[2] / "docs" / "commands.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, flags=re.DOTALL)


@pytest.mark.slow
def test_the_documented_commands_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torchattacks")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FREQROBUST_CACHE", str(tmp_path / "cache"))
    lines = [line for block in blocks("sh") for line in block.splitlines()]
    assert len(lines) > 10
    for line in lines:
        with pytest.raises(SystemExit) as ended:
            main(shlex.split(line)[1:])
        assert ended.value.code == 0, line
    (saved,) = blocks("toml")
    assert Path("run.toml").read_text(encoding="utf-8") == saved
    assert line_of(saved, ("limit",)) == 2
