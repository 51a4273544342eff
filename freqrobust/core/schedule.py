"""How much of a run is done, and how long the rest takes: from the pieces that it consists of."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple


class Piece(NamedTuple):
    """One piece of a run.

    Attributes:
        label: what its ``begin`` and its ``finish`` call it. Parts of it begin with this label and a comma.
        work: how much is expected to be done, in forward passes of one sample; a backward pass counts as two.
        kinds: what it has in common with other pieces, the most specific first: pieces of one kind are expected to take
            the same time for the same work.
        most: as ``work``, if attacks stop on no sample early.
        cells: how many cells of the report it is; none for checks.
        backwards: backward passes of one sample that are a part of ``most``.
    """

    label: str
    work: float
    kinds: tuple[str, ...] = ()
    most: float = 0.0
    cells: int = 1
    backwards: float = 0.0


@dataclass
class _Rate:
    """Seconds per unit of work, as measured."""

    seconds: float = 0.0
    work: float = 0.0


@dataclass
class Schedule:
    """The pieces of a run, those that are done and those that are to come.

    The expected time of a piece is its work times the measured rate of its most specific kind. Pieces that are finished
    without having begun, such as those from a journal, take no time and say nothing about the rates.
    """

    pieces: Sequence[Piece]
    clock: Callable[[], float] = time.monotonic
    processes: int = 1  # that do the pieces together
    label: str = ""
    pending: list[Piece] = field(init=False)
    rates: dict[str, _Rate] = field(default_factory=dict)
    shown: float = 0.0

    def __post_init__(self) -> None:
        self.pending = list(self.pieces)
        self.started = self.clock()
        self.running: Piece | None = None
        self.began = self.looked = self.started
        self.total = self.done = 0
        self.partial = 0.0
        self.cells, self.finished = sum(piece.cells for piece in self.pieces), 0

    def begin(self, label: str, total: int) -> None:
        """A piece of ``total`` units begins, or work that is a part of one and not in the plan."""
        self.label, self.partial = label, 0.0
        whole = next((piece for piece in self.pending if piece.label == label), None)
        piece = whole or next((piece for piece in self.pending if label.startswith(f"{piece.label}, ")), None)
        if piece is not None and piece is not self.running:
            self.running, self.began = piece, self.clock()
            self.total, self.done = total if whole is not None else 0, 0

    def advance(self, amount: int) -> None:
        """Units of what began last are done."""
        if self.running is not None and self.label == self.running.label:
            self.done += amount
            self.partial = 0.0

    def skip(self, amount: int) -> None:
        """Units of what began last need not be done, which says nothing about the time that the others take."""
        if self.running is not None and self.label == self.running.label:
            self.total -= amount

    def within(self, amount: float) -> None:
        """Units of what is running are about done, beside those that :meth:`advance` has counted."""
        if self.running is not None and self.label == self.running.label:
            self.partial = amount

    def finish(self, label: str) -> None:
        """A piece is done, or need not be done."""
        piece = next((piece for piece in self.pending if piece.label == label), None)
        if piece is None:
            return
        self.pending.remove(piece)
        self.finished += piece.cells
        if self.running is not None and self.running.label == label:
            seconds = self.clock() - self.began
            for kind in ("", *piece.kinds):
                rate = self.rates.setdefault(kind, _Rate())
                rate.seconds += seconds
                rate.work += piece.work
            self.running = None

    def remaining(self) -> float | None:
        """Seconds that the rest is expected to take; None as long as nothing has been measured."""
        if not self.pending:
            return 0.0
        current = self._current()
        if current is None and not self.rates:
            return None
        others = list(self.pending)
        if self.running in others:
            others.remove(self.running)  # once: the pieces of several models are equal
        rate = self.rates.get("")
        if rate is None:  # the first piece is running: the others are expected to be like it
            assert current is not None
            if self.running is None or not self.running.work:
                return None
            per_work = (self.clock() - self.began + current) / self.running.work
            return current + per_work * sum(piece.work for piece in others) / self.processes
        return (current or 0.0) + sum(self._expected(piece) for piece in others) / self.processes

    def _current(self) -> float | None:
        """Seconds that the running piece still takes; None where nothing is known."""
        if self.running is None:
            return 0.0 if self.rates else None
        spent = self.clock() - self.began
        done = self.done + self.partial
        if done > 0 and self.total > 0:
            return spent * max(self.total - done, 0) / done
        return max(self._expected(self.running) - spent, 0.0) if self.rates else None

    def _expected(self, piece: Piece) -> float:
        rate = next((self.rates[kind] for kind in (*piece.kinds, "") if kind in self.rates), _Rate())
        return piece.work * rate.seconds / rate.work if rate.work else rate.seconds

    def share(self) -> float:
        """The share of the run that is done; it never falls, and is below 1 until the last piece is done.

        Where more turns out to be left than was expected, what is left of the bar is divided over the rest of the time.
        """
        left, now = self.remaining(), self.clock()
        if left is None:
            return self.shown
        spent, since = now - self.started, now - self.looked
        self.looked = now
        share = spent / (spent + left) if spent + left > 0 else 0.0
        if share < self.shown and since + left > 0:
            share = self.shown + (1 - self.shown) * since / (since + left)
        self.shown = max(self.shown, min(share, 1.0 if not self.pending else 0.99))
        return self.shown

    def cell(self) -> str:
        """``cell 7 of 31``; empty where there is one cell, or none is left or running."""
        running = self.running.cells > 0 if self.running is not None else self.finished < self.cells
        return f"cell {self.finished + 1} of {self.cells}" if running and self.cells > 1 else ""

    def status(self, wide: bool = True) -> str:
        """``45 %, cell 7 of 31, 0:12, about 0:15 left``: what is done, how long it took (``wide``), and the rest takes."""
        left = self.remaining()
        parts = [f"{int(100 * self.share()):3} %", self.cell(), clock_text(self.clock() - self.started) if wide else ""]
        parts.append("estimating the time" if left is None else f"about {clock_text(left)} left")
        return ", ".join(part for part in parts if part)


def clock_text(seconds: float) -> str:
    """Minutes and seconds, hours where there are some.

    Example:
        >>> clock_text(75), clock_text(3700)
        ('1:15', '1:01:40')
    """
    whole = round(max(seconds, 0.0))
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"
