"""The protocol by which a run reports its progress."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from freqrobust.core.errors import SpecError
from freqrobust.core.notebook_progress import NotebookProgress, in_notebook
from freqrobust.core.schedule import Piece, Schedule
from freqrobust.core.text import one_line

if TYPE_CHECKING:
    from rich.progress import TaskID

_METHODS = ("begin", "advance", "end", "say")


@contextmanager
def as_progress(progress: Progress | bool | None) -> Iterator[Progress]:
    """The object that receives the progress of a run, from what the caller gave.

    Args:
        progress: ``True`` for a bar, in a notebook or on standard error, ``False`` or None for nothing, or an object with
            the methods of :class:`freqrobust.core.progress.Progress`.

    Raises:
        SpecError: it is something else.
    """
    if progress is None or progress is False:
        yield Silent()
    elif progress is True:
        with NotebookProgress() if in_notebook() else Screen(quiet=False) as shown:
            yield shown
    elif isinstance(progress, type) or not all(callable(getattr(progress, name, None)) for name in _METHODS):
        raise SpecError(
            f"progress should be True, False, or an object with the methods {', '.join(_METHODS)}, "
            f"but got {'the class ' + progress.__name__ if isinstance(progress, type) else type(progress).__name__}"
        )
    else:
        yield progress


def describes(progress: Progress) -> bool:
    """Whether the object takes descriptions of the running piece of work."""
    return callable(getattr(progress, "describe", None))


def describe(progress: Progress, parts: Sequence[str]) -> None:
    """Replace the label of the running piece of work, where ``progress`` takes descriptions.

    Args:
        progress: receives it, if it has a method ``describe``.
        parts: what there is to say, the most important first; what does not fit is left out.
    """
    if describes(progress):
        progress.describe(parts)  # type: ignore[attr-defined]


def plan(progress: Progress, pieces: Sequence[Piece]) -> None:
    """Tell ``progress`` of what a run consists, where it takes plans."""
    if callable(getattr(progress, "plan", None)):
        progress.plan(pieces)  # type: ignore[attr-defined]


def finish(progress: Progress, label: str) -> None:
    """Tell ``progress`` that a piece of the plan is done, where it takes plans."""
    if callable(getattr(progress, "finish", None)):
        progress.finish(label)  # type: ignore[attr-defined]


def together(progress: Progress, processes: int) -> None:
    """Tell ``progress`` that so many processes do the pieces of the plan, where it takes that."""
    if callable(getattr(progress, "together", None)):
        progress.together(processes)  # type: ignore[attr-defined]


def within(progress: Progress, amount: float) -> None:
    """Tell ``progress`` how much of the running batch is about done, in units of ``advance``, where it takes that."""
    if callable(getattr(progress, "within", None)):
        progress.within(amount)  # type: ignore[attr-defined]


def skip(progress: Progress, amount: int) -> None:
    """Tell ``progress`` that so many units of what is running need not be done, or count them as done."""
    if amount:
        getattr(progress, "skip", progress.advance)(amount)


def fail(progress: Progress, message: str) -> None:
    """Tell ``progress`` that a piece of work failed, and why."""
    getattr(progress, "fail", progress.end)(message)


def fitted(parts: Sequence[str], room: int) -> str:
    """The first of these parts that fit into ``room`` characters, on one line; the first one is cut where it alone does not.

    Example:
        >>> fitted(["epoch 3/30", "loss 1.234", "accuracy 45 %"], 25)
        'epoch 3/30, loss 1.234'
    """
    line = one_line(parts[0])[: max(room, 0)] if parts else ""
    for part in parts[1:]:
        longer = f"{line}, {one_line(part)}"
        if len(longer) > room:
            break
        line = longer
    return line


class Screen:
    """Progress on standard error: a bar on a terminal, now and then a line elsewhere.

    Args:
        quiet: show nothing.
        verbose: a line for each finished piece of work.
        bar: show a bar, or lines of progress where there is no terminal.
    """

    #: width of a terminal from which on a description has the count, both times and a long bar beside it
    WIDE = 110
    #: seconds between two lines of progress where there is no terminal
    HEARTBEAT = 30.0

    def __init__(self, quiet: bool, verbose: bool = True, bar: bool = True) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        self.quiet, self.verbose = quiet, verbose
        self.console = Console(stderr=True, highlight=False, markup=False, emoji=False)
        self.terminal = self.console.is_terminal
        label, remaining = TextColumn("{task.description}", markup=False), TimeRemainingColumn()
        self.columns = label, BarColumn(bar_width=20), MofNCompleteColumn(), TimeElapsedColumn(), remaining
        self.short = label, BarColumn(bar_width=8), remaining
        self.width = 20 if self.console.width >= self.WIDE else 10
        self.overall = label, BarColumn(bar_width=self.width), TextColumn("{task.fields[status]}", markup=False)
        self.bar = Progress(
            *self.columns,
            console=self.console,
            transient=True,
            disable=quiet or not bar or not self.terminal,
        )
        self.task: TaskID | None = None
        self.label, self.total, self.done = "", 0, 0
        self.schedule: Schedule | None = None
        self.heartbeat = bar and not quiet and not self.terminal
        self.last_line = time.monotonic()

    def __enter__(self) -> Screen:
        self.bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.stop()
        self._remove()
        self.schedule = None

    def begin(self, label: str, total: int) -> None:
        if self.schedule is not None:
            self.schedule.begin(label, total)
            self._show()
            return
        self._remove()
        self.label, self.total, self.done = label, total, 0
        self.bar.columns = self.columns
        self.task = self.bar.add_task(one_line(label), total=total, status="")

    def describe(self, parts: Sequence[str]) -> None:
        if self.task is None or self.bar.disable or self.schedule is not None:
            return
        wide = self.console.width >= self.WIDE
        self.bar.columns = self.columns if wide else self.short
        room = self.console.width - (40 + 2 * len(str(self.bar.tasks[-1].total)) if wide else 18)
        self.bar.update(self.task, description=fitted(parts, room))

    def advance(self, amount: int) -> None:
        if self.schedule is not None:
            self.schedule.advance(amount)
            self._show()
        elif self.task is not None:
            self.done += amount
            self.bar.update(self.task, completed=self.done)
            if self._is_due():
                self.say(f"{self.label}: {self.done} of {self.total}")

    def skip(self, amount: int) -> None:
        if self.schedule is None:
            self.advance(amount)
        else:
            self.schedule.skip(amount)

    def within(self, amount: float) -> None:
        if self.schedule is not None:
            self.schedule.within(amount)
            self._show()
        elif self.task is not None:
            self.bar.update(self.task, completed=int(self.done + amount))

    def end(self, summary: str) -> None:
        if self.schedule is None:
            self._remove()
        if self.verbose:
            self.say(summary)

    def fail(self, message: str) -> None:
        if self.schedule is None:
            self._remove()
        self.say(message)

    def plan(self, pieces: Sequence[Piece]) -> None:
        self._remove()
        self.schedule, self.last_line = Schedule(pieces), time.monotonic()
        self.bar.columns = self.overall
        self.task = self.bar.add_task("starting", total=1.0, status=self.schedule.status())

    def together(self, processes: int) -> None:
        if self.schedule is not None:
            self.schedule.processes = processes

    def finish(self, label: str) -> None:
        if self.schedule is not None:
            self.schedule.finish(label)
            self._show()

    def say(self, message: str) -> None:
        """A line; on a terminal it is broken between words where it does not fit."""
        if not self.quiet:
            self.console.print(one_line(message), soft_wrap=not self.terminal)

    def show(self, lines: Sequence[str]) -> None:
        """Lines whose spaces are kept, such as those of a table."""
        for line in lines if not self.quiet else ():
            self.console.print(line, soft_wrap=True)

    def _remove(self) -> None:
        if self.task is not None:
            self.bar.remove_task(self.task)
            self.task = None

    def _is_due(self) -> bool:
        """Whether there is no terminal, and the last line of progress is long ago; then the next one counts as shown."""
        now = time.monotonic()
        if not self.heartbeat or now - self.last_line < self.HEARTBEAT:
            return False
        self.last_line = now
        return True

    def _show(self) -> None:
        """The state of the whole run: on the bar, or as a line where there is none and the last one is long ago."""
        schedule = self.schedule
        if schedule is None:
            return
        if self._is_due():
            self.say(f"{schedule.status()}: {schedule.label}")
        if self.task is not None and not self.bar.disable:
            status = schedule.status(self.console.width >= self.WIDE)
            room = self.console.width - len(status) - self.width - 3
            self.bar.update(
                self.task,
                completed=schedule.share(),
                description=fitted([schedule.label or "starting"], room),
                status=status,
            )


class Progress(Protocol):
    """Receives the progress of a run. All calls come from the thread that evaluates.

    An object may also have these methods:

    - ``describe(parts)`` is called while a piece is running, at most about twice a second, with what there is to say about
      it, the most important first.
    - ``plan(pieces)`` is called before the first of several pieces that make up a run, with a
      :class:`freqrobust.core.schedule.Piece` for each of them; a later call replaces the plan.
    - ``together(processes)`` is called after ``plan`` where so many processes do its pieces.
    - ``finish(label)`` is called when a piece of the plan is done, also when nothing had to be done for it.
    - ``within(amount)`` is called while a batch is being attacked, a few times a second, with how much of it is about done,
      in the units of ``advance``, which counts the whole batch at its end. It is less than the batch.
    - ``skip(amount)`` is called instead of ``advance`` for units that need not be done.
    - ``fail(message)`` is called instead of ``end`` for a piece that failed.
    """

    def begin(self, label: str, total: int) -> None:
        """A piece of work of ``total`` units starts."""

    def advance(self, amount: int) -> None:
        """``amount`` units are done."""

    def end(self, summary: str) -> None:
        """The piece is done; ``summary`` is worth a line."""

    def say(self, message: str) -> None:
        """Something worth reading happened."""


class Silent:
    """Ignores all progress."""

    def begin(self, label: str, total: int) -> None: ...

    def advance(self, amount: int) -> None: ...

    def end(self, summary: str) -> None: ...

    def say(self, message: str) -> None: ...
