"""The benchmark of the experiments writes its figures into the right row of docs/reproductions.md."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from freqrobust.core.user_code import load_file

UPDATED: Callable[..., Any] = load_file(str(Path(__file__).parents[2] / "benchmarks" / "reproductions.py")).updated
PAGE = "text\n| [`a-b`](x.md) | s | p | digits | 1 / 0 / 0 | 3 |\n| [`a`](y.md) | s | p | digits |  |  |\nend\n"


def test_a_row_gets_other_values() -> None:
    assert UPDATED(PAGE, "a", "2 / 1 / 0", 4.4) == PAGE.replace("digits |  |  |", "digits | 2 / 1 / 0 | 4 |")
    assert UPDATED(PAGE, "a-b", "0 / 0 / 1", 9.6) == PAGE.replace("1 / 0 / 0 | 3 |", "0 / 0 / 1 | 10 |")


def test_a_missing_row_is_an_error() -> None:
    with pytest.raises(ValueError, match="no row for c"):
        UPDATED(PAGE, "c", "", 1)
