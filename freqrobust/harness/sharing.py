"""How several processes share the tasks of a run, whose journal they have in common."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from freqrobust.core.errors import SharingError
from freqrobust.core.files import alone
from freqrobust.core.progress import Progress, Silent
from freqrobust.harness.journal import Journal
from freqrobust.harness.tasks import Task, is_done, perform

#: Seconds between two looks at whether the other processes are done.
LOOK = 0.2


class Counters(Protocol):
    """Numbers that all processes see, such as a ``torch.distributed.TCPStore``."""

    def add(self, key: str, amount: int, /) -> int:
        """Add to a number, which is 0 at first; the sum."""


class Sharing(Protocol):
    """What one process does of the tasks of a run.

    Attributes:
        reports: whether it makes the report in the end.
    """

    reports: bool

    def measure(self, name: str, tasks: Sequence[Task], journal: Journal, failures: Journal) -> bool:
        """Measure the tasks that are this process's; whether all tasks are done then, by whatever process.

        Args:
            name: what tells these tasks from others of the same processes.
            tasks: in the same order in all processes.
            journal: where results are kept.
            failures: where the reasons of failures are kept.
        """


@dataclass
class Queue:
    """Processes that take tasks from a queue, until none is left: those that ``torchrun`` started.

    The queue is a counter in a key-value store: no process waits for another one to take a task.

    Args:
        store: common to all processes.
        rank: number of this process; the first one makes the report.
        progress: is told about the tasks.
    """

    store: Counters
    rank: int
    progress: Progress = field(default_factory=Silent)

    def __post_init__(self) -> None:
        self.reports = self.rank == 0

    def measure(self, name: str, tasks: Sequence[Task], journal: Journal, failures: Journal) -> bool:
        """See :meth:`Sharing.measure`; returns once all processes are done."""
        done = f"{name} done"
        while (index := self.store.add(f"{name} next", 1) - 1) < len(tasks):
            perform(tasks[index], journal, failures)
            self.store.add(done, 1)
        while self.store.add(done, 0) < len(tasks):
            time.sleep(LOOK)
        return True


@dataclass
class Shard:
    """One of several processes that know nothing of each other, and do fixed shares of the tasks.

    Args:
        number: of this one, from 1.
        count: how many there are.
    """

    number: int
    count: int
    reports: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.count:
            raise SharingError(f"expected a shard K/N with K from 1 to N, but got {self.number}/{self.count}")

    def share(self, tasks: Sequence[Task]) -> list[Task]:
        """The tasks of this process: in turn from the longest, each to the process with the least work so far."""
        work = [0.0] * self.count
        own = []
        for task in tasks:
            least = work.index(min(work))
            work[least] += task.work
            if least == self.number - 1:
                own.append(task)
        return own

    def measure(self, name: str, tasks: Sequence[Task], journal: Journal, failures: Journal) -> bool:
        """See :meth:`Sharing.measure`. Checks, which need all cells, are made by the process that ends last."""
        if name.startswith("checks"):
            with alone(journal.root):
                for task in tasks:
                    perform(task, journal, failures)
            return True
        for task in self.share(tasks):
            perform(task, journal, failures)
        return all(is_done(task, journal, failures) for task in tasks)


@dataclass
class Merge:
    """Makes the report of what shards have measured.

    It measures nothing but the checks, where no shard could see the cells of all others.
    """

    reports: bool = field(default=True, init=False)

    def measure(self, name: str, tasks: Sequence[Task], journal: Journal, failures: Journal) -> bool:
        """See :meth:`Sharing.measure`.

        Raises:
            SharingError: tasks are missing.
        """
        if name.startswith("checks"):
            for task in tasks:
                perform(task, journal, failures)
            return True
        missing = [task for task in tasks if not is_done(task, journal, failures)]
        if missing:
            raise SharingError(f"{len(missing)} of {len(tasks)} tasks are missing, such as {missing[0].label}")
        return True
