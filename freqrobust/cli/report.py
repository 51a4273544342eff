"""``freqrobust report``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import typer


def report(
    runs: Annotated[
        list[str], typer.Argument(help="JSON reports, or directories of runs.", metavar="RUN...", show_default=False)
    ],
    wanted: Annotated[
        list[str] | None,
        typer.Option(
            "--as",
            help="The format and the file: out.html, junit=out.xml or markdown=-, where - is standard output. The "
            "format can be omitted if the name of the file ends in it. Repeat the option for several files.",
            metavar="[REPORT=]FILE",
        ),
    ] = None,
    debug: Annotated[bool, typer.Option("--debug", metavar="", help="Print the traceback of errors.")] = False,
) -> int:
    """Render reports; the exit code."""
    return execute(runs, wanted or [])


def execute(paths: Sequence[str], wanted: Sequence[str], flag: str = "--as") -> int:
    """One ``freqrobust report``; the exit code.

    Raises:
        FreqRobustError: bad input.
    """
    from freqrobust.core.text import one_line
    from freqrobust.results.rendering import (
        STDOUT,
        _files,
        check_outputs,
        parse_outputs,
        read_reports,
        write_outputs,
    )

    outputs = parse_outputs(wanted or [f"table={STDOUT}"], flag)
    found = read_reports(paths)
    inputs = _files(paths)
    check_outputs(outputs, flag, inputs, several=len(found) > 1)
    for path in write_outputs(outputs, found, all_or_none=True):
        print(one_line(f"written: {path}"), file=sys.stderr)
    return 0
