"""What a gate decided in Python and in notebooks: one line, a few lines, and its tables."""

from __future__ import annotations

from freqrobust.core.text import one_line
from freqrobust.results.fragments import box, escaped, marked, table
from freqrobust.results.gate_record import GateRecord
from freqrobust.results.gate_view import failed_rows, gate_tables, gate_verdict


def line(gate: GateRecord) -> str:
    """``<GateRecord: gate failed: 1 of 4 checks failed>``."""
    return f"<GateRecord: {gate_verdict(gate)}>"


def text(gate: GateRecord) -> str:
    """The verdict, and what failed."""
    return "\n".join([gate_verdict(gate), *(one_line(f"{row.name}: {row.text}") for row in failed_rows(gate))])


def fragment(gate: GateRecord) -> str:
    """What failed, and every row."""
    content = [marked("bad", f"{row.name}: {row.text}") for row in failed_rows(gate)]
    for one in gate_tables(gate):
        head = ["cell", "result", *map(escaped, one.columns.values())]
        rows = [
            [f"<code>{escaped(row.record.name)}</code>", escaped(row.result)]
            + [escaped(row.values[key].text) for key in one.columns]
            for row in one.rows
        ]
        content += [f"<div>{escaped(one.title)}</div>", table(head, rows, left=2)]
    return box(gate_verdict(gate), *content)
