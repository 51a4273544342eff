"""The last lines of a command: where the result lies, and what to run next."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from freqrobust.cli.entries import ENTRIES

if TYPE_CHECKING:
    from freqrobust.results.report import Report

#: Verdicts that call for an explanation, and the warning that stands for one where there is such a warning.
_DOUBTFUL = ("not meaningful", "overestimated", "inconclusive")


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


def written_lines(paths: Sequence[object]) -> list[str]:
    """A line for each file that was written."""
    return [f"written: {path}" for path in paths]
