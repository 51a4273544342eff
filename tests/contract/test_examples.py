"""The examples run as they are."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.slow
def test_a_training_with_probes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    example = runpy.run_path(str(EXAMPLES / "train_with_probes.py"))
    example["main"](str(tmp_path / "out"))
    lines = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"epoch 1: clean \d+%, lfc \d+%, hfc \d+%", lines[1])
    assert re.fullmatch(r"epoch 6: clean \d+%, lfc \d+%, hfc \d+%, pgd \d+%", lines[6])
    assert re.fullmatch(r"best epoch by pgd:eps=0\.05,steps=5: [36]; its network: .*best\.pt", lines[7])
    assert (tmp_path / "out" / "best.pt").exists()


@pytest.mark.slow
def test_the_demo_is_a_true_story(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """JPEG looks more robust to the oblivious attack, is less robust to the adaptive one, and adversarial training helps."""
    example = runpy.run_path(str(EXAMPLES / "demo.py"))
    example["main"](tmp_path / "demo")
    shown = capsys.readouterr().out
    undefended, oblivious, adaptive, trained = (
        int(re.search(rf"^   {row} +(\d+)% \[", shown, re.MULTILINE)[1])  # type: ignore[index]
        for row in (
            r"Auto-PGD, Linf 0\.15",
            "the adversarial images of step 1",
            "Auto-PGD on network and JPEG",
            "Auto-PGD, adaptive",
        )
    )
    assert adaptive < undefended < oblivious - 5
    assert trained > undefended + 20
    assert shown.count("no problem found") == 3
    assert "Example images" in (tmp_path / "demo" / "report.html").read_text(encoding="utf-8")
