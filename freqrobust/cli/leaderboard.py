"""``freqrobust leaderboard``."""

from __future__ import annotations

from typing import Annotated

import typer


def leaderboard(
    runs: Annotated[
        list[str],
        typer.Argument(
            help="Directories with runs, which are searched for report.json, or JSON reports.",
            metavar="DIR...",
            show_default=False,
        ),
    ],
    out: Annotated[
        str,
        typer.Option(
            help="Directory of the site: index.html, and a page per report. It is updated by the same command; a "
            "directory with other files is refused.",
            metavar="DIR",
            show_default=False,
        ),
    ],
    rank_by: Annotated[
        str | None,
        typer.Option(
            help="What to rank by: clean, lfc or a threat such as 'Linf 8/255'. Default: the worst case at the largest "
            "eps that most entries have.",
            metavar="MEASURE",
        ),
    ] = None,
    title: Annotated[str | None, typer.Option(help="Heading of the first page.", metavar="TEXT")] = None,
    debug: Annotated[bool, typer.Option("--debug", metavar="", help="Print the traceback of errors.")] = False,
) -> int:
    """Write the site; the exit code."""
    import sys

    from freqrobust.core.text import one_line
    from freqrobust.plugins.specs import PluginSpec
    from freqrobust.results.collecting import collect_reports
    from freqrobust.results.leaderboard import board
    from freqrobust.results.rendering import Output, check_outputs, write_outputs
    from freqrobust.results.reporter import reports

    given = {key: value for key, value in (("rank_by", rank_by), ("title", title)) if value is not None}
    outputs = [Output(PluginSpec("site", reports.get("site")(**given)), out)]
    check_outputs(outputs, "--out")
    found = collect_reports(runs, out, say=lambda text: print(one_line(text), file=sys.stderr))
    if rank_by is not None:
        board(found, rank_by)  # refuses a measure that no report has
    for where in write_outputs(outputs, found):
        print(one_line(f"written: {where}"), file=sys.stderr)
    return 0
