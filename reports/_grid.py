"""Tables of text for a terminal, cut into several where they are too wide for it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from freqrobust.core.text import one_line

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table as RichTable

#: The longest word of a heading that makes its column wider; longer ones are broken.
WORD = 14


@dataclass(frozen=True)
class GridEntry:
    """What a table says about one cell: parts, each with a column of its own. The first one has no head."""

    parts: dict[str, str]
    failed: bool = False


@dataclass(frozen=True)
class Grid:
    """Numbers by row and column; a missing one is shown as a dash."""

    title: str
    rows: list[str]
    columns: list[str]
    entries: dict[tuple[str, str], GridEntry]
    narrow: bool = False  #: columns are as narrow as their entries and the longest words of the headings

    def transposed(self) -> Grid:
        return Grid(self.title, self.columns, self.rows, {(b, a): entry for (a, b), entry in self.entries.items()})

    def widths(self, column: str) -> dict[str, int]:
        """Width of each part that the entries of a column have."""
        found: dict[str, int] = {}
        for (_, c), entry in self.entries.items():
            if c == column:
                for part, text in entry.parts.items():
                    found[part] = max(found.get(part, 0), len(text), len(part or _longest_word(column)))
        return found or {"": 6}

    def label_width(self, width: int) -> int:
        return min(max(len(breakable(row)) for row in self.rows), max(18, width // 3))

    def chunks(self, width: int) -> list[list[str]]:
        """The columns, cut into tables that fit the width."""
        chunks: list[list[str]] = [[]]
        used = start = self.label_width(width) + 2
        for column in self.columns:
            needed = sum(w + 3 for w in self.widths(column).values())
            if chunks[-1] and used + needed > width:
                chunks.append([])
                used = start
            chunks[-1].append(column)
            used += needed
        return chunks


def _longest_word(heading: str) -> str:
    return max(breakable(one_line(heading)).split(), key=len, default="")[:WORD]


def print_grid(console: Console, grid: Grid, plain: bool) -> None:
    """A table, or several below one another, each with as many columns as fit."""
    for number, columns in enumerate(grid.chunks(console.width)):
        console.print(one_line(grid.title) + (" (continued)" if number else ""), style="bold")
        console.print(_table(console, grid, columns, plain))
        console.print()


def _table(console: Console, grid: Grid, columns: list[str], plain: bool) -> RichTable:
    from rich.text import Text

    table = new_table(plain)
    label = grid.label_width(console.width)
    table.add_column("", overflow="fold", min_width=min(label, 16), max_width=label)
    widths = {column: grid.widths(column) for column in columns}
    for column in columns:
        for part, width in widths[column].items():
            table.add_column(
                Text(part or breakable(one_line(column))),
                justify="right",
                min_width=width,
                max_width=width if grid.narrow else None,
                overflow="fold",
            )
    for row in grid.rows:
        texts = [Text(breakable(one_line(row)))]
        for column in columns:
            entry = grid.entries.get((row, column), GridEntry({"": "-"}))
            for part in widths[column]:
                style = "red" if entry.failed else "dim" if part else ""
                texts.append(Text(entry.parts.get(part, ""), style=style))
        table.add_row(*texts)
    return table


def new_table(plain: bool) -> RichTable:
    """An empty table; a plain one is drawn in ASCII."""
    from rich import box
    from rich.table import Table as RichTable

    return RichTable(box=box.ASCII2 if plain else box.SIMPLE_HEAD, pad_edge=False, show_edge=False)


def breakable(spec: str) -> str:
    """A spec that a table may break after its commas and colons, rather than inside a word."""
    return re.sub(r",(?! )", ", ", re.sub(r":(?! )", ": ", spec, count=1)) if len(spec) > 26 else spec


def say(console: Console, text: str, style: str | None = None, indent: str = "") -> None:
    """Text of a report, which may hold what would control the terminal."""
    console.print(indent + one_line(text), style=style)
