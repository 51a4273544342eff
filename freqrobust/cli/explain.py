"""``freqrobust explain``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from freqrobust.cli import completion


def explain(
    code: Annotated[
        list[str] | None,
        typer.Argument(
            help="A code as reports and messages print it, such as zero-gradients, overestimated, 'plain PGD' or "
            "'exit code 3'; a term such as LFC; or a JSON report, whose codes are explained. Default: a list of all "
            "codes and terms.",
            metavar="[CODE|TERM|REPORT.json]",
            autocompletion=completion.codes,
        ),
    ] = None,
    debug: Annotated[bool, typer.Option("--debug", metavar="", help="Print the traceback of errors.")] = False,
) -> int:
    """Explain a code or a term, the codes of a report, or list all."""
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
    from freqrobust.results.glossary import defined

    groups: dict[str, list[tuple[str, str]]] = {}
    for code, explanation in EXPLANATIONS.items():
        groups.setdefault(explanation.group, []).append((code, explanation.title))
    groups["Terms"] = [(term.name, term.text.partition(". ")[0].rstrip(".") + ".") for term in defined()]
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
    console.print("freqrobust explain CODE says what to do, and freqrobust explain TERM where to read more.")


def _print_code(console: Any, given: str) -> None:
    """One code, any other that differs from it in hyphens only, and the terms of this name.

    Raises:
        SpecError: it is unknown.
    """
    from freqrobust.core.errors import SpecError
    from freqrobust.core.text import excerpt
    from freqrobust.results.explanations import EXPLANATIONS, explained, nearest
    from freqrobust.results.glossary import defined, named

    codes, terms = explained(given), named(given)
    if not codes and not terms:
        known = [*EXPLANATIONS, *(name for term in defined() for name in term.names())]
        raise SpecError(
            f"unknown code or term {excerpt(given)!r}{nearest(given, known)} ('freqrobust explain' lists all of them, and "
            "'freqrobust list' explains plugins)"
        )
    for code in codes:
        _show(console, code)
    for term in terms:
        _print_entry(console, term.name, "terms", term.text, [("more in", term.page)])


def _show(console: Any, code: str, said: list[str] | None = None) -> None:
    """The explanation of a code, with the messages of a report."""
    from freqrobust.results.explanation import CHECKS
    from freqrobust.results.explanations import EXPLANATIONS

    explanation = EXPLANATIONS[code]
    rows = [("if it fails" if explanation.group == CHECKS else "what to do", explanation.action)]
    if explanation.paper:
        rows.append(("paper", explanation.paper))
    text = f"{explanation.title} {explanation.meaning}"
    _print_entry(console, code, explanation.group.lower(), text, rows, said or [])


def _print_entry(
    console: Any, name: str, group: str, text: str, rows: Sequence[tuple[str, str]], said: Sequence[str] = ()
) -> None:
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    console.print(Text.assemble((name, "bold"), f"  ({group})"))
    console.print()
    for message in said:
        console.print(Padding(Text(f"- {message}"), (0, 0, 0, 2)))
    if said:
        console.print()
    console.print(Padding(Text(text), (0, 0, 1, 2)))
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("name", no_wrap=True, style="bold")
    table.add_column("text", overflow="fold")
    for heading, content in rows:
        table.add_row(Text(heading), Text(content))
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
