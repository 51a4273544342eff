"""The protocol by which a run reports its progress."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from freqrobust.core.errors import SpecError
from freqrobust.core.notebook_progress import NotebookProgress, in_notebook
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
    """Progress on standard error: a bar on a terminal, a line a cell elsewhere."""

    #: width of a terminal from which on a description has the count, both times and a long bar beside it
    WIDE = 110

    def __init__(self, quiet: bool) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        self.quiet = quiet
        self.console = Console(stderr=True, highlight=False, markup=False, emoji=False, soft_wrap=True)
        label, remaining = TextColumn("{task.description}", markup=False), TimeRemainingColumn()
        self.columns = label, BarColumn(bar_width=20), MofNCompleteColumn(), TimeElapsedColumn(), remaining
        self.short = label, BarColumn(bar_width=8), remaining
        self.bar = Progress(
            *self.columns,
            console=self.console,
            transient=True,
            disable=quiet or not self.console.is_terminal,
        )
        self.task: TaskID | None = None

    def __enter__(self) -> Screen:
        self.bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.stop()

    def begin(self, label: str, total: int) -> None:
        if self.task is not None:
            self.bar.remove_task(self.task)
        self.bar.columns = self.columns
        self.task = self.bar.add_task(one_line(label), total=total)

    def describe(self, parts: Sequence[str]) -> None:
        if self.task is None or self.bar.disable:
            return
        wide = self.console.width >= self.WIDE
        self.bar.columns = self.columns if wide else self.short
        room = self.console.width - (40 + 2 * len(str(self.bar.tasks[-1].total)) if wide else 18)
        self.bar.update(self.task, description=fitted(parts, room))

    def advance(self, amount: int) -> None:
        if self.task is not None:
            self.bar.advance(self.task, amount)

    def end(self, summary: str) -> None:
        if self.task is not None:
            self.bar.remove_task(self.task)
            self.task = None
        self.say(summary)

    def say(self, message: str) -> None:
        if not self.quiet:
            self.console.print(one_line(message))


class Progress(Protocol):
    """Receives the progress of a run. All calls come from the thread that evaluates.

    An object may also have a method ``describe(parts)``, which is called while a piece is running, at most about twice a
    second, with what there is to say about it, the most important first.
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
