"""Progress in notebooks: one bar that is updated in place, and the lines that are worth keeping."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Sequence
from html import escape
from importlib import import_module
from typing import Any, Protocol

from freqrobust.core.text import one_line


class _Piece(Protocol):
    """A piece of work that a run consists of."""

    label: str
    work: float


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
        self.works: dict[str, float] = {}
        self.done_work = self.all_work = 0.0
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

    def plan(self, pieces: Iterable[_Piece]) -> None:
        """The pieces of the whole run, with their expected work."""
        self.works = {}
        for piece in pieces:
            self.works[piece.label] = self.works.get(piece.label, 0.0) + piece.work
        self.all_work, self.done_work = sum(self.works.values()), 0.0

    def begin(self, label: str, total: int) -> None:
        self.label, self.detail, self.total, self.done = label, "", total, 0
        self.piece_started = time.monotonic()
        self._show(force=True)

    def describe(self, parts: Sequence[str]) -> None:
        self.detail = ", ".join(map(one_line, parts[:3]))
        self._show()

    def advance(self, amount: int) -> None:
        self.done = min(self.done + amount, self.total)
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
        self.done_work += self.works.pop(label, 0.0)
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
        """The share that is done, of the whole run where it was planned."""
        current = self.done / self.total if self.total else 0.0
        if not self.all_work:
            return current
        return min(1.0, (self.done_work + current * self.works.get(self.label, 0.0)) / self.all_work)

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
        spent = now - (self.started if self.all_work else self.piece_started)
        rest = f", about {clock_text(spent * (1 - share) / share)} left" if share > 0.01 else ""
        text = escape(one_line(self.label or self.detail or "starting"))
        detail = f" <small>{escape(self.detail)}</small>" if self.detail and self.label else ""
        bar = f'<progress max="1" value="{share:.4f}" style="width:16em;vertical-align:middle"></progress>'
        state = f"{100 * share:.0f} %, {clock_text(now - self.started)}{rest}"
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


def clock_text(seconds: float) -> str:
    """Minutes and seconds, hours where there are some.

    Example:
        >>> clock_text(75), clock_text(3700)
        ('1:15', '1:01:40')
    """
    whole = round(max(seconds, 0.0))
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"
