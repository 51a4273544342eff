"""How several processes share the tasks of a run, whose journal they have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

from freqrobust.core.errors import SharingError
from freqrobust.core.files import exclusive, in_use
from freqrobust.core.progress import Progress, Silent, plan
from freqrobust.harness.journal import Journal
from freqrobust.harness.open_tasks import OpenTasks
from freqrobust.harness.shard_records import ShardRecord, check_fits, claim, has_workers, is_running, only_one
from freqrobust.harness.shared_plan import PLAN, SharedPlan, joined_environment, plan_of_shards
from freqrobust.harness.tasks import Task, is_done, performed

#: Shards that a message names.
NAMED = 3


class Sharing(Protocol):
    """What one process does of the tasks of a run.

    Attributes:
        reports: whether it makes the report in the end.
        kind: the kind of device that the results were measured on; None for that of this process.
        environment: where they were measured, as a report says it; None for that of this process.
        times: whether the processes see what one of them decided by timing, so that they all do the same.
    """

    times: ClassVar[bool]
    reports: bool
    kind: str | None
    environment: dict[str, Any] | None

    def opened(self, run_dir: Path | None, shared: SharedPlan) -> AbstractContextManager[None]:
        """Inside the block this process takes part in the run.

        Args:
            run_dir: the directory that the processes have in common.
            shared: what this process would measure.

        Raises:
            SharingError: the processes do not fit together, or there is no common directory.
        """

    def measure(self, name: str, tasks: Sequence[Task], journal: Journal, failures: Journal) -> bool:
        """Measure the tasks that are this process's; whether all tasks are done then, by whatever process.

        Args:
            name: what tells these tasks from others of the same processes.
            tasks: in the same order in all processes.
            journal: where results are kept.
            failures: where the reasons of failures are kept.
        """


@contextmanager
def sole_process(run_dir: Path | None, shared: Callable[[], SharedPlan]) -> Iterator[None]:
    """Inside the block this process measures everything, and no other one measures into the directory.

    Args:
        run_dir: the run directory, where there is one.
        shared: what this process would measure: of a directory of shards it has to be the same.

    Raises:
        SharingError: other processes measure into the directory, or its shards measure something else.
    """
    if run_dir is None:
        yield
        return
    with suppress(OSError):  # the journal says what is wrong
        run_dir.mkdir(parents=True, exist_ok=True)
    with exclusive(run_dir, patient=True) as free:
        if not free:
            raise SharingError(
                f"another process measures into {run_dir}; wait until it ends, choose another --run-dir, or share the "
                "work: torchrun --nproc-per-node N -m freqrobust eval ..., or freqrobust eval --shard K/N --run-dir DIR ..."
            )
        if (run_dir / PLAN).exists():
            check_fits(run_dir, shared(), "this evaluation")
        yield


@dataclass
class Shard:
    """One of several processes that are started independently, with a fixed share of the tasks for each.

    Shards that were started in one directory also take over what the others have not begun, if the file system has locks.

    Args:
        number: of this one, from 1.
        count: how many there are.
        progress: is told about the tasks.
    """

    times: ClassVar[bool] = False
    number: int
    count: int
    progress: Progress = field(default_factory=Silent)
    reports: bool = field(default=False, init=False)
    kind: str | None = field(default=None, init=False)
    environment: dict[str, Any] | None = field(default=None, init=False)
    record: ShardRecord = field(init=False)
    has_locks: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.count:
            raise SharingError(f"expected a shard K/N with K from 1 to N, but got {self.number}/{self.count}")

    @contextmanager
    def opened(self, run_dir: Path | None, shared: SharedPlan) -> Iterator[None]:
        """See :meth:`Sharing.opened`. The first shard writes the plan, and the others compare theirs with it."""
        if run_dir is None:
            raise SharingError("shards need a run directory that they have in common, but there is none")
        shared = shared.of_shards(self.count)
        with only_one(run_dir, self.number, self.count), in_use(run_dir, patient=True) as shares:
            if not shares:
                raise SharingError(f"another process evaluates everything into {run_dir}; it has to end first")
            if has_workers(run_dir):
                raise SharingError(f"processes of torchrun measure into {run_dir}; they have to end first")
            claim(run_dir, shared, f"shard {self.number}/{self.count}")
            self.has_locks = is_running(run_dir, self.number, self.count)  # it is: without locks this is not seen
            self.record = ShardRecord(self.number, self.count, shared.to_json())
            with self.record.kept(run_dir):
                yield

    def measure(self, name: str, tasks: Sequence[Task], journal: Journal, failures: Journal) -> bool:
        """See :meth:`Sharing.measure`. Checks, which need all cells, are made by the process that ends last."""
        if name.startswith("checks"):
            with journal.alone():
                self._perform(tasks, journal, failures)
            return True
        dealt = shares(tasks, self.count)
        own = [task for task, number in dealt if number == self.number]
        self.record.tasks += len(own)
        if self.has_locks:
            left = OpenTasks(dealt, self.number, self.count, journal, failures, self.progress)
            while self._takes(left, journal, failures):
                pass
        else:
            self._perform(own, journal, failures)
        return all(is_done(task, journal, failures) for task in tasks)

    def _takes(self, left: OpenTasks, journal: Journal, failures: Journal) -> bool:
        """Measure one of the tasks that are left; whether there was one."""
        with left.take() as taken:
            if taken is None:
                return False
            task, number = taken
            self.record.taken_over += number != self.number
            self._measure(task, journal, failures)
            return True

    def _perform(self, tasks: Sequence[Task], journal: Journal, failures: Journal) -> None:
        plan(self.progress, [task.piece() for task in tasks])
        for task in tasks:
            self._measure(task, journal, failures)

    def _measure(self, task: Task, journal: Journal, failures: Journal) -> None:
        self.record.measured += not all(map(journal.has, task.keys))
        reason = performed(task, journal, failures, self.progress)
        if reason is not None:
            self.record.failures.append({"task": task.label, "error": reason})


def shares(tasks: Sequence[Task], count: int) -> list[tuple[Task, int]]:
    """Every task with the number of its shard: in turn from the longest, each to the shard with the least work so far."""
    work = [0.0] * count
    found = []
    for task in tasks:
        least = work.index(min(work))
        work[least] += task.work
        found.append((task, least + 1))
    return found


@dataclass
class Merge:
    """Makes the report of what shards have measured. Only checks, which need all cells, are made where they are missing.

    Args:
        progress: is told about these.
    """

    times: ClassVar[bool] = False
    progress: Progress = field(default_factory=Silent)
    reports: bool = field(default=True, init=False)
    kind: str | None = field(default=None, init=False)
    environment: dict[str, Any] | None = field(default=None, init=False)
    missing: dict[int, int] = field(default_factory=dict, init=False)  # tasks by shard
    run_dir: Path = field(default=Path(), init=False)
    count: int = field(default=1, init=False)
    total: int = field(default=0, init=False)
    other_device: bool = field(default=False, init=False)

    @contextmanager
    def opened(self, run_dir: Path | None, shared: SharedPlan) -> Iterator[None]:
        """See :meth:`Sharing.opened`.

        Raises:
            SharingError: also where tasks are missing, and at the end.
        """
        known = plan_of_shards(run_dir)
        assert run_dir is not None
        assert known.shards is not None
        self.run_dir, self.count = run_dir, known.shards
        self.kind, self.other_device = known.kind, known.kind != shared.kind
        shared.on(known.kind).check(known, "the merge", run_dir / PLAN)
        environments = [known.environment]
        for number in range(1, known.shards + 1):
            record = ShardRecord.read(run_dir, number, known.shards)
            if record is not None:
                measured = SharedPlan.from_json(record.plan, record.path(run_dir))
                measured.check(known, f"shard {number} of {known.shards}", run_dir / PLAN)
                environments.append(measured.environment)
        self.environment = joined_environment(environments)
        yield
        if self.missing:
            raise SharingError(self._message())

    def measure(self, name: str, tasks: Sequence[Task], journal: Journal, failures: Journal) -> bool:
        """See :meth:`Sharing.measure`."""
        if name.startswith("checks"):
            missing = [task for task in tasks if not is_done(task, journal, failures)]
            if missing and self.other_device:
                raise SharingError(
                    f"{len(missing)} checks are missing, and have to be made on the kind of device of the shards, "
                    f"{self.kind}: run the merge, or one of the shards again, on such a machine"
                )
            with journal.alone():
                for task in missing:
                    performed(task, journal, failures, self.progress)
            return True
        self.total += len(tasks)
        complete = True
        for task, number in shares(tasks, self.count):
            if not is_done(task, journal, failures):
                self.missing[number] = self.missing.get(number, 0) + 1
                complete = False
        return complete

    def _message(self) -> str:
        """Which shards have not finished, in one line."""
        running = [n for n in range(1, self.count + 1) if is_running(self.run_dir, n, self.count)]
        parts, stopped = [], []
        for number, missing in sorted(self.missing.items()):
            record = ShardRecord.read(self.run_dir, number, self.count)
            if number in running:
                state = "is still running"
            elif record is not None and running:
                state = f"has ended, and shard {running[0]}, which takes over what is left, is still running"
            else:
                state = "was not started" if record is None else "has not finished"
                stopped.append(number)
            verb = "is" if missing == 1 else "are"
            parts.append(f"shard {number} of {self.count} {state}: {missing} of {self.total} tasks {verb} missing")
        if len(parts) > NAMED:
            parts[NAMED:] = [f"and {len(parts) - NAMED} more shards"]
        if not stopped:
            return f"{'; '.join(parts)}; merge again when no shard is running"
        again = f"freqrobust eval --shard {stopped[0]}/{self.count} --run-dir {self.run_dir} ..."
        return f"{'; '.join(parts)}; run again, with the options of the other shards: {again}"
