"""The protocol by which a run reports its progress."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from freqrobust.core.errors import SpecError
from freqrobust.core.text import one_line

if TYPE_CHECKING:
    from rich.progress import TaskID

_METHODS = ("begin", "advance", "end", "say")


@contextmanager
def as_progress(progress: Progress | bool | None) -> Iterator[Progress]:
    """The object that receives the progress of a run, from what the caller gave.

    Args:
        progress: ``True`` for a bar on standard error, ``False`` or None for nothing, or an object with the methods of
            :class:`freqrobust.core.progress.Progress`.

    Raises:
        SpecError: it is something else.
    """
    if progress is None or progress is False:
        yield Silent()
    elif progress is True:
        with Screen(quiet=False) as screen:
            yield screen
    elif isinstance(progress, type) or not all(callable(getattr(progress, name, None)) for name in _METHODS):
        raise SpecError(
            f"progress should be True, False, or an object with the methods {', '.join(_METHODS)}, "
            f"but got {'the class ' + progress.__name__ if isinstance(progress, type) else type(progress).__name__}"
        )
    else:
        yield progress


class Screen:
    """Progress on standard error: a bar on a terminal, a line a cell elsewhere."""

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
        self.bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
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
        self.task = self.bar.add_task(one_line(label), total=total)

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
    """Receives the progress of a run. All calls come from the thread that evaluates."""

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
