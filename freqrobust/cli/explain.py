"""``freqrobust explain``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from freqrobust.cli import completion


def explain(
    code: Annotated[
        list[str] | None,
        typer.Argument(
            help="A code as reports and messages print it, such as zero-gradients, overestimated, 'plain PGD' or "
            "'exit code 3'; or a JSON report, whose codes are explained. Default: a list of all codes.",
            metavar="[CODE|REPORT.json]",
            autocompletion=completion.codes,
        ),
    ] = None,
    debug: Annotated[bool, typer.Option("--debug", metavar="", help="Print the traceback of errors.")] = False,
) -> int:
    """Explain a code, those of a report, or list them."""
    from rich.console import Console

    console = Console(highlight=False, markup=False, emoji=False)
    words = " ".join(code or [])
    if not words:
        _print_list(console)
    elif words.endswith(".json") or Path(words).is_file():
        _print_codes_of(console, words)
    else:
        _print_code(console, words)
    return 0


def _print_list(console: Any) -> None:
    from freqrobust.results.explanations import EXPLANATIONS

    groups: dict[str, list[tuple[str, str]]] = {}
    for code, explanation in EXPLANATIONS.items():
        groups.setdefault(explanation.group, []).append((code, explanation.title))
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    for group, rows in groups.items():
        console.print(group, style="bold")
        table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
        table.add_column("code", no_wrap=True)
        table.add_column("title", overflow="fold")
        for code, title in rows:
            table.add_row(Text(code, style="bold"), Text(title))
        console.print(Padding(table, (0, 0, 1, 2)))
    console.print("freqrobust explain CODE says what to do.")


def _print_code(console: Any, given: str) -> None:
    """One code, and any other that differs from it in hyphens only.

    Raises:
        SpecError: it is unknown.
    """
    from freqrobust.core.errors import SpecError
    from freqrobust.core.text import excerpt
    from freqrobust.results.explanations import explained, nearest

    found = explained(given)
    if not found:
        raise SpecError(
            f"unknown code {excerpt(given)!r}{nearest(given)} ('freqrobust explain' lists all codes, and 'freqrobust list' "
            "explains plugins)"
        )
    for code in found:
        _show(console, code)


def _show(console: Any, code: str, said: list[str] | None = None) -> None:
    """The explanation of a code, with the messages of a report."""
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    from freqrobust.results.explanation import CHECKS
    from freqrobust.results.explanations import EXPLANATIONS

    explanation = EXPLANATIONS[code]
    console.print(Text.assemble((code, "bold"), f"  ({explanation.group.lower()})"))
    console.print()
    for message in said or []:
        console.print(Padding(Text(f"- {message}"), (0, 0, 0, 2)))
    if said:
        console.print()
    console.print(Padding(Text(f"{explanation.title} {explanation.meaning}"), (0, 0, 1, 2)))
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("name", no_wrap=True, style="bold")
    table.add_column("text", overflow="fold")
    action = "if it fails" if explanation.group == CHECKS else "what to do"
    table.add_row(Text(action), Text(explanation.action))
    if explanation.paper:
        table.add_row(Text("paper"), Text(explanation.paper))
    console.print(Padding(table, (0, 0, 1, 2)))


def _print_codes_of(console: Any, path: str) -> None:
    """The warnings, verdicts and failed checks of a report.

    Raises:
        ReportError: it cannot be read.
    """
    from freqrobust.core.text import one_line
    from freqrobust.results.explanations import EXPLANATIONS
    from freqrobust.results.report import Report

    report = Report.from_json(path)
    said: dict[str, list[str]] = {}
    for warning in report.warnings:
        said.setdefault(warning.code, []).append(one_line(warning.message))
    for diagnosis in report.diagnostics:
        said.setdefault(diagnosis.verdict, []).append(one_line(f"{diagnosis.defense_spec}: {diagnosis.sentence}"))
        for check in diagnosis.checks:
            if check.status == "failed":
                reason = f": {check.reason}" if check.reason else ""
                said.setdefault(check.name, []).append(one_line(f"{diagnosis.defense_spec}{reason}"))
    if not said:
        console.print("The report contains no warnings and no verdicts.")
    for code, messages in said.items():
        if code in EXPLANATIONS:
            _show(console, code, list(dict.fromkeys(messages)))
        else:  # of another version of freqrobust
            console.print(f"{one_line(code)}: {'; '.join(messages)}")
