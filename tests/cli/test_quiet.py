"""With --quiet: nothing when all is well, else a line for each failure, and one that explains the exit code."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Command = Callable[..., Any]
FGSM = ["--attack", "fgsm:eps=0.1", "--quiet"]

BROKEN = """
from freqrobust import Attack

class Broken(Attack):
    \"\"\"Fails.\"\"\"
    def perturb(self, model, images, labels, context):
        raise RuntimeError("no kernel")
"""


def test_nothing_when_all_is_well(base: list[str], command: Command) -> None:
    result = command(*base, *FGSM, "--fail-under", "fgsm>=0")
    assert (result.code, result.out, result.err) == (0, "", "")


def test_thresholds_that_are_not_reached(base: list[str], command: Command) -> None:
    result = command(*base, *FGSM, "--fail-under", "clean>=0.5", "--fail-under", "fgsm>=0.99")
    assert (result.code, result.out) == (1, "")
    row, last = result.err.splitlines()
    assert row.startswith("freqrobust: threshold failed: undefended / fgsm:eps=0.1: ")
    assert "and at least 99.0% is required" in row
    assert last == "freqrobust: exit code 1: gate failed: 1 of 2 checks failed"


def test_cells_that_failed(base: list[str], command: Command, write: Callable[[str, str], str]) -> None:
    result = command(*base, *FGSM, "--attack", f"{write('broken.py', BROKEN)}:Broken")
    assert (result.code, result.out) == (3, "")
    assert result.err.splitlines() == [
        "freqrobust: undefended / Broken failed: Broken: RuntimeError: no kernel",
        "freqrobust: exit code 3: 1 of 3 cells failed",
    ]


def test_sets_that_could_not_be_saved(base: list[str], command: Command, write: Callable[[str, str], str]) -> None:
    failing = ["--attack", f"{write('broken.py', BROKEN)}:Broken", "--save-adversarial", "sets"]
    result = command(*base, *FGSM, *failing)
    assert result.code == 3
    assert "freqrobust: not saved: undefended / Broken: Broken: RuntimeError: no kernel" in result.err.splitlines()
    assert result.error == "freqrobust: exit code 3: 1 of 3 cells failed and 1 set of examples could not be saved"


@pytest.fixture
def reports(base: list[str], command: Command) -> list[str]:
    for name, result in (("weak", "images"), ("strong", "1 - images")):
        source = BROKEN.replace("Broken", "Same").replace('raise RuntimeError("no kernel")', f"return {result}")
        Path("same.py").write_text(source, encoding="utf-8")
        assert command(*base, "--attack", "same.py:Same", "--quiet", "--json", f"{name}.json").code == 0
    return ["weak.json", "strong.json"]


def test_regressions(reports: list[str], command: Command) -> None:
    same = command("compare", reports[0], reports[0], "--gate", "Same", "--quiet")
    assert (same.code, same.out, same.err) == (0, "", "")
    result = command("compare", *reports, "--gate", "Same", "--quiet")
    assert (result.code, result.out) == (1, "")
    row, last = result.err.splitlines()
    assert row.startswith("freqrobust: regression failed: undefended / Same: ")
    assert row.startswith("freqrobust: regression failed: undefended / Same: regression: the accuracy changed from")
    assert last == "freqrobust: exit code 1: gate failed: 1 of 1 checks failed"
