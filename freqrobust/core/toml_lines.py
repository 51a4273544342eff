"""Where a key is written in a TOML file, for messages."""

from __future__ import annotations

import re

_HEADER = re.compile(r"^\s*\[\s*(?P<table>[^\[\]]+?)\s*\]\s*(#.*)?$")
_KEY = re.compile(r"""^\s*(?P<key>(?:"[^"]*"|'[^']*'|[\w-]+)(?:\s*\.\s*(?:"[^"]*"|'[^']*'|[\w-]+))*)\s*=""")
_PART = re.compile(r""""[^"]*"|'[^']*'|[\w-]+""")


def line_of(text: str, path: tuple[str, ...]) -> int | None:
    """The line, from 1, on which a key or the table that it is in is written; None where it is not found."""
    table: tuple[str, ...] = ()
    best: tuple[int, int] | None = None  # how much of the path, and where
    for number, line in enumerate(text.splitlines(), start=1):
        header, key = _HEADER.match(line), _KEY.match(line)
        if header is not None:
            table = _parts(header["table"])
            here = table
        elif key is not None:
            here = (*table, *_parts(key["key"]))
        else:
            continue
        if here and here == path[: len(here)] and (best is None or len(here) > best[0]):
            best = (len(here), number)
    return best[1] if best is not None else None


def _parts(key: str) -> tuple[str, ...]:
    return tuple(part.strip("\"'") for part in _PART.findall(key))
