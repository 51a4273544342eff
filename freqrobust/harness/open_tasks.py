"""The tasks that shards with a common run directory have left: each of them takes the longest that nobody measures.

A shard that measures a task has a lock on a file of the task, which the system releases when the process ends, however it
ends. So nothing has to be said about processes that were killed, and no process has to give signs of life. The locks save
work, and no result depends on them: what two processes measure is the same, and is written atomically.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from freqrobust.core.files import exclusive
from freqrobust.core.progress import Progress, finish, plan, together
from freqrobust.harness.journal import Journal
from freqrobust.harness.shard_records import is_running, started
from freqrobust.harness.tasks import Task, is_done

#: The directory of the files that are locked.
CLAIMS = "claims"


class OpenTasks:
    """The tasks of one stage of a run, as one shard sees them.

    It measures those of its own share, and those of the shards that were started in the same directory: what is the share
    of a shard that nobody has started may be measured on a machine with another directory.

    Args:
        dealt: all tasks, the longest first, each with the number of its shard.
        number: of this shard.
        count: of the shards.
        journal: where results are kept.
        failures: where the reasons of failures are kept.
        progress: is told what is left.
    """

    def __init__(
        self,
        dealt: Sequence[tuple[Task, int]],
        number: int,
        count: int,
        journal: Journal,
        failures: Journal,
        progress: Progress,
    ) -> None:
        assert journal.root is not None
        self.dealt, self.number, self.count, self.run_dir = dealt, number, count, journal.root
        self.journal, self.failures, self.progress = journal, failures, progress
        self.open = dict(enumerate(dealt))
        self.taking_part: set[int] = set()
        found, failed = journal.listed(), failures.listed()
        #: positions of own tasks that failed before, or whose files are damaged: they are tried again, once
        self.again = {
            index
            for index, (task, owner) in self.open.items()
            if owner == number and is_done(task, found, failed) and not all(map(journal.has, task.keys))
        }

    @contextmanager
    def take(self) -> Iterator[tuple[Task, int] | None]:
        """A task with the number of its shard, which no other shard begins inside the block; None when none is left.

        A task is given once, whatever becomes of it.
        """
        for index in self._candidates():
            task, owner = self.dealt[index]
            lock = self._lock(task)
            with suppress(OSError):
                lock.parent.mkdir(exist_ok=True)
                lock.touch()
            with exclusive(lock) as free:
                if not free:
                    continue
                del self.open[index]
                is_open = index in self.again or not is_done(task, self.journal, self.failures)
                if is_open:
                    yield task, owner
                else:
                    finish(self.progress, task.label)
                with suppress(OSError):
                    lock.unlink(missing_ok=True)
                if is_open:
                    return
        self._tidy()
        yield None

    def _tidy(self) -> None:
        """Remove the files of finished tasks that shards have left which were killed before they could do so."""
        begun = self._begun()
        for task, _ in self.dealt:
            if task.keys[0] in begun and is_done(task, self.journal, self.failures):
                with suppress(OSError):
                    self._lock(task).unlink(missing_ok=True)

    def _candidates(self) -> list[int]:
        """Positions of the tasks that this shard may begin now: those that no other one seems to measure come first, of
        these the longest, and of equal ones its own."""
        self._take_notice()
        mine = [index for index, (_, owner) in self.open.items() if owner in self.taking_part]
        begun = self._begun()

        def order(index: int) -> tuple[bool, float, bool]:
            task, owner = self.dealt[index]
            return task.keys[0] in begun, -task.work, owner != self.number

        return sorted(mine, key=order)

    def _take_notice(self) -> None:
        """Which shards take part by now, and what they have done."""
        taking_part = {self.number, *started(self.run_dir, self.count)}
        if taking_part != self.taking_part:
            self.taking_part = taking_part
            left = [task for task, owner in self.open.values() if owner in taking_part]
            plan(self.progress, [task.piece() for task in left])
            others = taking_part - {self.number}
            together(self.progress, 1 + sum(is_running(self.run_dir, number, self.count) for number in others))
        found, failed = self.journal.listed(), self.failures.listed()
        for index, (task, _) in list(self.open.items()):
            if index not in self.again and is_done(task, found, failed):
                del self.open[index]
                finish(self.progress, task.label)

    def _lock(self, task: Task) -> Path:
        return self.run_dir / CLAIMS / f"{task.keys[0]}.lock"

    def _begun(self) -> set[str]:
        """The first keys of tasks that are being measured, or were when a process was killed."""
        try:
            return {name.removesuffix(".lock") for name in os.listdir(self.run_dir / CLAIMS)}
        except OSError:
            return set()
