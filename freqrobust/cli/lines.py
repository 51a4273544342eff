"""The first line of a command, which is there before torch is imported, and the last ones: where the result is, and what to
run next."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from freqrobust.cli.entries import ENTRIES
from freqrobust.core.launch import is_first
from freqrobust.core.text import brief, print_line

if TYPE_CHECKING:
    from freqrobust.results.report import Report


def first_line(what: str, models: Sequence[object], data: object, quiet: bool) -> None:
    """What a command does, with which models and data; of processes that ``torchrun`` started the first one says it.

    Args:
        what: a participle, such as ``evaluating``.
        models: as given; several are counted.
        data: as given; None where there is none.
        quiet: say nothing.
    """
    if not quiet and is_first():
        subject = [brief(str(model)) for model in models] if len(models) < 2 else [f"{len(models)} models"]
        parts = [what, *subject, *(["on", brief(str(data))] if data is not None else [])]
        print_line(" ".join(parts), sys.stderr)


def command_line(*parts: object) -> str:
    """``freqrobust`` with its arguments, as it can be typed."""
    return shlex.join(["freqrobust", *map(str, parts)])


def next_command(report: Report, path: Path, full: bool = False) -> str | None:
    """The command that is most useful after an evaluation: an explanation of a warning, or all tables.

    Args:
        report: what was measured.
        path: where the report lies.
        full: all tables have been shown.
    """
    codes = list(dict.fromkeys(warning.code for warning in report.warnings))
    if codes and "explain" in ENTRIES:
        return command_line("explain", codes[0])
    if not full:
        return command_line("report", shown_path(path), "--full")
    return None


def shown_path(path: Path) -> Path:
    """The directory of a run, which the commands take as well as the report in it."""
    return path.parent if path.name == "report.json" and path.parent != Path() else path


def closing_lines(report: Report, path: Path, full: bool = False) -> list[str]:
    """Where the report is, how to see all of it, and what to run next."""
    following = next_command(report, path, full)
    every = command_line("report", shown_path(path), "--full")
    lines = [f"report: {path}"]
    if not full and following != every:
        lines.append(f"all tables: {every}")
    return [*lines, *([f"next: {following}"] if following is not None else [])]
