"""A reader of standard output that has gone is no error of the code that freqrobust called."""

from __future__ import annotations

import sys

import pytest

from freqrobust.core.user_code import is_closed_output


def stopped_by(error: OSError) -> None:
    """As click and typer stop."""
    try:
        raise error
    except OSError:
        sys.exit(1)


@pytest.mark.parametrize(("error", "closed"), [(BrokenPipeError(), True), (FileNotFoundError(), False)])
def test_click_stops_because_of_a_broken_pipe(error: OSError, closed: bool) -> None:
    with pytest.raises(SystemExit) as stop:
        stopped_by(error)
    assert is_closed_output(stop.value) is closed
    assert not is_closed_output(error)
