"""Why a command ends with another exit code than 0, in lines: what ``--quiet`` leaves on standard error."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from freqrobust.core.text import print_error

if TYPE_CHECKING:
    from freqrobust.results.gate_record import GateRecord
    from freqrobust.results.report import Report

GATE_FAILED, CELLS_FAILED = 1, 3


def exit_code(report: Report, unsaved: Sequence[str] = ()) -> int:
    """0, 1 where the gate failed, else 3 where cells failed or examples could not be saved."""
    if report.gate is not None and not report.gate.passed:
        return GATE_FAILED
    return CELLS_FAILED if report.status == "partial" or unsaved else 0


def print_failures(report: Report, unsaved: Sequence[str] = ()) -> None:
    """A line for each threshold that was not reached, regression, failed cell or certificate and unsaved set; then the exit code.

    Prints nothing where nothing failed.
    """
    from freqrobust.results.summary import Entry, entry_labels

    labels = entry_labels(report)
    cells = [
        f"{labels[Entry(cell.model, cell.defense_spec)]} / {cell.attack_spec}"
        f"{', made on the undefended model,' if cell.knowledge == 'oblivious' else ''} failed: {cell.error}"
        for cell in report.cells
        if cell.status == "failed"
    ]
    unproved = [
        f"{labels[Entry(record.model, record.defense_spec)]} / {record.certificate_spec} failed: {record.error}"
        for record in report.certificates
        if record.status == "failed"
    ]
    gate = gate_lines(report.gate) if report.gate is not None else []
    last = exit_line(report, unsaved)
    lines = [*gate[:-1], *cells, *unproved, *(f"not saved: {line}" for line in unsaved), *([last] if last else [])]
    print_lines(lines)


def print_exit_code(report: Report, unsaved: Sequence[str] = ()) -> None:
    """What the exit code means, in a line; nothing where it is 0."""
    line = exit_line(report, unsaved)
    if line is not None:
        print_error(line)


def exit_line(report: Report, unsaved: Sequence[str] = ()) -> str | None:
    """What the exit code means; None where it is 0."""
    code = exit_code(report, unsaved)
    if code == GATE_FAILED:
        assert report.gate is not None
        return gate_lines(report.gate)[-1]
    if code != CELLS_FAILED:
        return None
    cells = sum(cell.status == "failed" for cell in report.cells)
    unproved = sum(record.status == "failed" for record in report.certificates)
    parts = [f"{cells} of {len(report.cells)} cells failed"] if cells else []
    parts += [f"{unproved} of {len(report.certificates)} certificates failed"] if unproved else []
    sets = "set" if len(unsaved) == 1 else "sets"
    parts += [f"{len(unsaved)} {sets} of examples could not be saved"] if unsaved else []
    return f"exit code {CELLS_FAILED}: {' and '.join(parts)}"


def gate_lines(gate: GateRecord) -> list[str]:
    """A line for each row of a gate that failed, then one that explains the exit code; none where it passed."""
    from freqrobust.results.gate_view import failed_rows, gate_verdict

    if gate.passed:
        return []
    lines = [f"{row.kind} failed: {row.name}: {row.text}" for row in failed_rows(gate)]
    return [*lines, f"exit code {GATE_FAILED}: {gate_verdict(gate)}"]


def print_lines(lines: Iterable[str]) -> None:
    """Each on a line of its own on standard error."""
    for line in lines:
        print_error(line)
