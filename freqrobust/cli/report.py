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
    full: Annotated[
        bool,
        typer.Option(
            "--full", metavar="", help="Show all tables: every cell, oblivious attacks, checks and notes. Without --as."
        ),
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", metavar="", help="Print the traceback of errors.")] = False,
) -> int:
    """Render reports; the exit code."""
    return execute(runs, wanted or [], full=full)


def execute(paths: Sequence[str], wanted: Sequence[str], flag: str = "--as", full: bool = False) -> int:
    """One ``freqrobust report``; the exit code.

    Raises:
        FreqRobustError: bad input.
    """
    from freqrobust.cli.lines import command_line
    from freqrobust.core.errors import SpecError
    from freqrobust.core.text import print_line
    from freqrobust.results.rendering import (
        STDOUT,
        _files,
        check_outputs,
        parse_outputs,
        read_reports,
        write_outputs,
    )

    if full and wanted:
        raise SpecError("give either --full or --as, not both; --as table:full=true=- is the same as --full")
    outputs = parse_outputs(wanted or [f"table:full=true={STDOUT}" if full else f"table={STDOUT}"], flag)
    found = read_reports(paths)
    inputs = _files(paths)
    check_outputs(outputs, flag, inputs, several=len(found) > 1)
    for path in write_outputs(outputs, found, all_or_none=True):
        print_line(f"written: {path}", sys.stderr)
    if not wanted and not full and len(found) == 1:
        sys.stdout.flush()
        print_line(f"next: {command_line('report', *paths, '--full')}", sys.stderr)
    return 0
