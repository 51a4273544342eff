"""``freqrobust report``."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from freqrobust.core.text import one_line
from freqrobust.results.rendering import STDOUT, _files, check_outputs, parse_outputs, read_reports, write_outputs


def execute(paths: Sequence[str], wanted: Sequence[str], flag: str = "--as") -> int:
    """One ``freqrobust report``; the exit code.

    Raises:
        FreqRobustError: bad input.
    """
    outputs = parse_outputs(wanted or [f"table={STDOUT}"], flag)
    found = read_reports(paths)
    inputs = _files(paths)
    check_outputs(outputs, flag, inputs, several=len(found) > 1)
    for path in write_outputs(outputs, found, all_or_none=True):
        print(one_line(f"written: {path}"), file=sys.stderr)
    return 0
