"""docs/attacks.md names every built-in attack."""

from __future__ import annotations

from pathlib import Path

import pytest

from freqrobust.plugins.registry import attacks

DOC = Path(__file__).parents[2] / "docs" / "attacks.md"


@pytest.mark.parametrize("name", [n for n in attacks.names() if attacks.origin(n).startswith("freqrobust ")])
def test_every_built_in_attack_is_in_the_table(name) -> None:
    rows = [line for line in DOC.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    assert any(f"`{name}`" in row.split("|")[1] for row in rows)


def test_every_family_is_in_the_table() -> None:
    assert all(f"`{family}:NAME`" in DOC.read_text(encoding="utf-8") for family in attacks.families())
