"""The examples run as they are."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_a_training_with_probes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    example = runpy.run_path(str(EXAMPLES / "train_with_probes.py"))
    example["main"](str(tmp_path / "out"))
    lines = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"epoch 1: clean \d+%, lfc \d+%, hfc \d+%", lines[1])
    assert re.fullmatch(r"epoch 6: clean \d+%, lfc \d+%, hfc \d+%, pgd \d+%", lines[6])
    assert re.fullmatch(r"best epoch by pgd:eps=0\.05,steps=5: [36]; its network: .*best\.pt", lines[7])
    assert (tmp_path / "out" / "best.pt").exists()
