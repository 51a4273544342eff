"""Progress in notebooks: one bar that is updated in place, and the lines that are worth keeping."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from html import escape
from importlib import import_module
from typing import Any

from freqrobust.core.schedule import Piece, Schedule, clock_text
from freqrobust.core.text import one_line


def in_notebook() -> bool:
    """Whether the code runs in a kernel, whose front end shows HTML: Jupyter, VS Code, Colab."""
    module = sys.modules.get("IPython")  # a kernel has imported it
    shell = module.get_ipython() if module is not None else None
    return shell is not None and getattr(shell, "kernel", None) is not None


class NotebookProgress:
    """One bar with a label, the share that is done and the time that is left; it is replaced by a line at the end.

    Where the run was planned (:meth:`plan`), the bar is that of the whole run, otherwise that of the current piece.
    """

    #: seconds between two updates: each is a message to the browser
    INTERVAL = 0.2
    #: lines below the bar, at most
    LINES = 20

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.left_out = 0
        self.label, self.detail = "", ""
        self.total = self.done = self.finished = 0
        self.partial = self.shown = 0.0
        self.schedule: Schedule | None = None
        self.started = self.piece_started = time.monotonic()
        self.updated = 0.0
        self.handle: Any = None

    def __enter__(self) -> NotebookProgress:
        self.started = self.piece_started = time.monotonic()
        self._show(force=True)
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        elapsed = clock_text(time.monotonic() - self.started)
        count = f"{self.finished} step{'s' if self.finished != 1 else ''}"
        if kind is None:
            self._display(f"<div>done: {count} in {elapsed}</div>{self._below()}")
        else:
            word = "interrupted" if issubclass(kind, KeyboardInterrupt) else "stopped"
            self._display(f"<div>{word} after {count}, {elapsed}</div>{self._below()}")

    def plan(self, pieces: Sequence[Piece]) -> None:
        """The pieces of the whole run, with their expected work."""
        self.schedule = Schedule(pieces)

    def begin(self, label: str, total: int) -> None:
        self.label, self.detail, self.total, self.done = label, "", total, 0
        self.partial = self.shown = 0.0
        self.piece_started = time.monotonic()
        if self.schedule is not None:
            self.schedule.begin(label, total)
        self._show(force=True)

    def describe(self, parts: Sequence[str]) -> None:
        self.detail = ", ".join(map(one_line, parts[:3]))
        self._show()

    def advance(self, amount: int) -> None:
        self.done, self.partial = min(self.done + amount, self.total), 0.0
        if self.schedule is not None:
            self.schedule.advance(amount)
        self._show()

    def skip(self, amount: int) -> None:
        """Units that need not be done."""
        self.total = max(self.total - amount, 0)
        if self.schedule is not None:
            self.schedule.skip(amount)

    def within(self, amount: float) -> None:
        """Units of the running batch are about done."""
        self.partial = amount
        if self.schedule is not None:
            self.schedule.within(amount)
        self._show()

    def end(self, summary: str) -> None:
        self.finished += 1
        self.done = self.total
        if ": failed: " in summary:
            self._keep(summary)
        self._show()

    def fail(self, message: str) -> None:
        """A piece failed."""
        self.finished += 1
        self._keep(message)
        self._show(force=True)

    def finish(self, label: str) -> None:
        """A piece of the plan is done."""
        if self.schedule is not None:
            self.schedule.finish(label)
        self.done = self.total = 0
        self._show()

    def say(self, message: str) -> None:
        """Warnings stay below the bar; what else is said is shown until something follows."""
        if message.startswith("warning"):
            self._keep(message)
        else:
            self.detail = one_line(message)
        self._show()

    def share(self) -> float:
        """The share that is done, of the whole run where it was planned; it never falls."""
        if self.schedule is not None:
            return self.schedule.share()
        current = (self.done + self.partial) / self.total if self.total else 0.0
        self.shown = max(self.shown, min(current, 1.0))
        return self.shown

    def _keep(self, message: str) -> None:
        line = one_line(message)
        if line in self.lines:
            return
        if len(self.lines) < self.LINES:
            self.lines.append(line)
        else:
            self.left_out += 1

    def _show(self, force: bool = False) -> None:
        now = time.monotonic()
        if not force and now - self.updated < self.INTERVAL:
            return
        self.updated = now
        share = self.share()
        if self.schedule is not None:
            state = self.schedule.status().strip()
        else:
            left = (now - self.piece_started) * (1 - share) / share if share > 0.01 else None
            rest = f", about {clock_text(left)} left" if left is not None else ""
            state = f"{100 * share:.0f} %, {clock_text(now - self.started)}{rest}"
        text = escape(one_line(self.label or self.detail or "starting"))
        detail = f" <small>{escape(self.detail)}</small>" if self.detail and self.label else ""
        bar = f'<progress max="1" value="{share:.4f}" style="width:16em;vertical-align:middle"></progress>'
        self._display(f"<div>{bar} {state}: <code>{text}</code>{detail}</div>{self._below()}")

    def _below(self) -> str:
        more = [f"and {self.left_out} more"] if self.left_out else []
        return "".join(f"<div>{escape(line)}</div>" for line in [*self.lines, *more])

    def _display(self, html: str) -> None:
        """Show the HTML in the place of what was shown before; a front end without HTML shows its text."""
        shown: Any = import_module("IPython.display")
        content = shown.HTML(f'<div style="color:inherit;background:none">{html}</div>')
        if self.handle is None:
            self.handle = shown.display(content, display_id=True)
        else:
            self.handle.update(content)
