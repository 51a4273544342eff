"""Pieces of HTML for notebooks: escaped, with styles of their own, readable on light and on dark pages."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from freqrobust.core.text import one_line

#: The colour of a mark: of medium lightness, so that it is seen on white and on black.
COLOURS = {"good": "#2e9e5b", "neutral": "#8a94a0", "inconclusive": "#c28a1a", "bad": "#d9534a"}
_CELL = "padding:0.3em 0.8em;border:0;border-bottom:1px solid rgba(128,128,128,0.35);background:none;color:inherit"


def escaped(text: object) -> str:
    """Text of others, on one line and without markup."""
    return escape(one_line(text))


def box(heading: str, *content: str) -> str:
    """A heading in bold, and what is below it; the colours are those of the page."""
    return f'<div style="color:inherit;background:none"><div><b>{escaped(heading)}</b></div>{"".join(content)}</div>'


def table(head: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> str:
    """A table of cells that are HTML already; it scrolls where it is too wide.

    Args:
        head: the headings.
        rows: the cells.
        left: the number of columns of text, which are aligned to the left; the others are numbers.
    """

    def cells(name: str, values: Sequence[str]) -> str:
        sides = ["left" if place < left else "right" for place in range(len(values))]
        styled = zip(sides, values, strict=True)
        return "".join(f'<{name} style="{_CELL};text-align:{side}">{value}</{name}>' for side, value in styled)

    lines = [f"<tr>{cells('th', head)}</tr>", *(f"<tr>{cells('td', row)}</tr>" for row in rows)]
    inside = f'<table style="border-collapse:collapse;background:none;margin:0">{"".join(lines)}</table>'
    return f'<div style="overflow-x:auto;margin:0.4em 0">{inside}</div>'


def quiet(text: str) -> str:
    """Something less important, such as an interval."""
    return f'<span style="opacity:0.75;font-size:0.9em;white-space:nowrap">{escaped(text)}</span>'


def marked(level: str, text: str) -> str:
    """A line with a mark in the colour of its level."""
    style = f"border-left:3px solid {COLOURS[level]};padding:0.1em 0.6em;margin:0.25em 0"
    return f'<div style="{style}">{escaped(text)}</div>'


def picture(kind: str, base64: str, alt: str, width: int) -> str:
    """An embedded picture on white; ``base64`` may be anything, and stays inside of its attribute."""
    style = f"max-width:100%;width:{width}px;background:#fff"
    source = f"data:{escape(kind)};base64,{escape(base64)}"
    return f'<img style="{style}" alt="{escaped(alt)}" src="{source}">'
