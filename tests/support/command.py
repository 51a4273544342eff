"""How a run of the command ended."""

from __future__ import annotations

from typing import NamedTuple


class Result(NamedTuple):
    """The exit code, and what was printed."""

    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The last line of standard error."""
        return self.err.rstrip("\n").rpartition("\n")[2]
