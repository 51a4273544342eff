"""The processes that ``torchrun`` started for one evaluation: they take tasks from a queue until none is left."""

from __future__ import annotations

import json
import socket
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar, Protocol

from freqrobust.core.errors import PeerError, SharingError
from freqrobust.core.files import in_use, write_atomically
from freqrobust.core.launch import Launch
from freqrobust.core.progress import Progress, Silent, finish, plan, together
from freqrobust.harness.journal import Journal
from freqrobust.harness.shard_records import check_fits, only_workers
from freqrobust.harness.shared_plan import SharedPlan
from freqrobust.harness.tasks import Task, performed

#: Seconds between two looks at what the other processes have done, and between two signs of life.
LOOK, BEAT = 0.2, 1.0
#: Seconds without a sign of life after which the task of a process is taken over by another one.
LOST = 60.0
#: Seconds until files of one machine are seen on the others.
VISIBLE = 60.0
#: How long a process waits for the first one, which may still load the data; torchrun ends all processes when one has
#: ended.
PATIENCE = timedelta(hours=24)


#: How the file begins by which processes see that they have a directory in common; 32 digits follow.
TOKEN = ".freqrobust-"
#: The key of the exit code that further attempts would not change.
VERDICT = "verdict"


class Store(Protocol):
    """Values that all processes see: a ``torch.distributed.TCPStore``."""

    def add(self, key: str, amount: int, /) -> int:
        """Add to a number, which is 0 at first; the sum."""

    def set(self, key: str, value: str, /) -> None:
        """Set a value."""

    def get(self, key: str, /) -> bytes:
        """A value; waits for it."""

    def check(self, keys: list[str], /) -> bool:
        """Whether all of these have values."""

    def append(self, key: str, value: str, /) -> None:
        """Add to the end of a value, which is empty at first."""

    def compare_set(self, key: str, expected: str, value: str, /) -> bytes:
        """Set a value if it is the expected one, or the expected one is empty and there is none; the value afterwards."""


def connect(launch: Launch) -> Store:
    """The key-value store of the processes that ``torchrun`` started: that of its agent, or of the first process.

    Raises:
        PeerError: it cannot be reached.
    """
    hosts = launch.rank == 0 and not launch.has_store
    try:
        store = _distributed().TCPStore(
            launch.address, launch.port, is_master=hosts, wait_for_workers=False, timeout=PATIENCE, multi_tenant=True
        )
    except RuntimeError as error:
        raise PeerError(f"there is no key-value store at {launch.address}:{launch.port}") from error
    prefixed: Store = _distributed().PrefixStore(f"freqrobust/{launch.run}", store)
    return prefixed


def _distributed() -> Any:
    """Types of ``torch.distributed``, whose stubs lack some of their methods."""
    import torch.distributed

    return torch.distributed


def of_attempt(store: Store, attempt: int) -> Store:
    """The values of one attempt: the claims of a former one are void, and its finished tasks are in the journal."""
    prefixed: Store = _distributed().PrefixStore(f"attempt {attempt}", store)
    return prefixed


def verdict(store: Store) -> int | None:
    """The exit code that a former attempt ended with, where further ones would not change it."""
    return int(store.get(VERDICT)) if store.check([VERDICT]) else None


def set_verdict(store: Store, code: int) -> None:
    """Let further attempts end at once, with this exit code."""
    store.set(VERDICT, str(code))


@dataclass
class Queue:
    """One of several processes that take tasks from a queue, until none is left.

    The queue is a counter in a key-value store, so that no process waits for another one to take a task. A process whose
    task is not done and that gives no sign of life loses it to another one; measuring a task twice changes nothing.

    Args:
        store: common to all processes.
        rank: number of this process; the first one makes the report.
        size: number of processes.
        progress: is told about the tasks of all of them.
        hosts: the store is in the first process, which has to end last.
    """

    times: ClassVar[bool] = True
    store: Store
    rank: int
    size: int
    progress: Progress = field(default_factory=Silent)
    hosts: bool = False
    kind: str | None = field(default=None, init=False)
    environment: dict[str, Any] | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.reports = self.rank == 0
        self.name = f"{self.rank}-{uuid.uuid4().hex}"
        self.seen: dict[str, tuple[int, float]] = {}  # signs of life of others, and when they changed

    @contextmanager
    def opened(self, run_dir: Path | None, shared: SharedPlan) -> Iterator[None]:
        """See :meth:`Sharing.opened`. All processes have to see the files of the first one, and measure the same."""
        if run_dir is None:
            raise SharingError("several processes need a run directory that they have in common, but there is none")
        stop = threading.Event()
        beats = threading.Thread(target=self._give_signs, args=(stop,), daemon=True)
        with named_errors(), only_workers(run_dir, self.reports), in_use(run_dir, patient=True) as free:
            if not free:
                raise SharingError(f"another process evaluates everything into {run_dir}; it has to end first")
            token = self._announce(run_dir, shared) if self.reports else self._meet(run_dir, shared)
            beats.start()
            try:
                yield
                self._leave()
            finally:
                stop.set()
                if self.reports:
                    token.unlink(missing_ok=True)

    def _announce(self, run_dir: Path, shared: SharedPlan) -> Path:
        """What the first process says to the others, in the store and in a file."""
        check_fits(run_dir, shared, "this evaluation")
        for old in run_dir.glob(f"{TOKEN}{'?' * 32}"):  # of processes that were killed
            old.unlink(missing_ok=True)
        token = run_dir / f"{TOKEN}{uuid.uuid4().hex}"
        write_atomically(token, "")
        self.store.set("plan", json.dumps({**shared.to_json(), "folder": token.name}))
        return token

    def _meet(self, run_dir: Path, shared: SharedPlan) -> Path:
        """What another process does with it.

        Raises:
            SharingError: it does not see the file, or measures something else.
        """
        here = f"process {self.rank} on {socket.gethostname()}"
        first = SharedPlan.from_json(json.loads(self.store.get("plan")), Path("process 0"))
        token = run_dir / first.folder
        shared.check(first, here, Path("process 0"))
        deadline = time.monotonic() + VISIBLE
        while not token.exists():
            if time.monotonic() > deadline:
                raise SharingError(
                    f"{here} does not see the files that process 0 writes to {run_dir.resolve()}: all processes need the "
                    "same --run-dir, in a file system that all machines have in common"
                )
            time.sleep(LOOK)
            with suppress(OSError):  # so that a network file system looks again
                list(run_dir.iterdir())
        self.store.add("met", 1)
        return token

    def _leave(self) -> None:
        """The first process waits for those that still look at its files, or at the store in it."""
        if not self.reports:
            self.store.add("left", 1)
            return
        deadline = time.monotonic() + VISIBLE
        counter = "left" if self.hosts else "met"
        while self.store.add(counter, 0) < self.size - 1 and time.monotonic() < deadline:
            time.sleep(LOOK)

    def _give_signs(self, stop: threading.Event) -> None:
        with suppress(RuntimeError):  # the store has ended
            while not stop.wait(BEAT):
                self.store.add(f"alive {self.name}", 1)

    def measure(self, name: str, tasks: Sequence[Task], journal: Journal, failures: Journal) -> bool:
        """See :meth:`Sharing.measure`; returns once all tasks are done."""
        part = _Tasks(self.store, name, tasks)
        plan(self.progress, [task.piece() for task in tasks])
        together(self.progress, self.size)
        while (index := self.store.add(f"{name} next", 1) - 1) < len(tasks):
            self.store.set(part.claim(index), self.name)
            self._perform(part, index, journal, failures)
        start = time.monotonic()
        while part.open:
            self._take_notice(part)
            for index in sorted(part.open):
                if self._is_lost(part, index, start) and part.take_over(index, self.name):
                    self.progress.say(f"{tasks[index].label}: taken over from a process that has ended")
                    self._perform(part, index, journal, failures)
                    break
            if part.open:
                time.sleep(LOOK)
        return True

    def _perform(self, part: _Tasks, index: int, journal: Journal, failures: Journal) -> None:
        performed(part.tasks[index], journal, failures, self.progress)
        part.finish(index)
        self._take_notice(part)

    def _take_notice(self, part: _Tasks) -> None:
        """Count what all processes have done since the last look."""
        for index in part.news():
            finish(self.progress, part.tasks[index].label)

    def _is_lost(self, part: _Tasks, index: int, start: float) -> bool:
        """Whether the process that has taken a task gives no signs of life."""
        owner = part.owner(index)
        if owner == self.name:
            return False
        signs = self.store.add(f"alive {owner}", 0) if owner else 0
        now = time.monotonic()
        known = self.seen.get(f"{index} {owner}")
        if known is None or known[0] != signs:
            self.seen[f"{index} {owner}"] = signs, now
            return False
        return now - known[1] > LOST and now - start > LOST


class _Tasks:
    """The tasks of a stage of a run, and which of them are not done."""

    def __init__(self, store: Store, name: str, tasks: Sequence[Task]) -> None:
        self.store, self.name, self.tasks = store, name, tasks
        self.open = set(range(len(tasks)))

    def claim(self, index: int) -> str:
        """The key under which the process is that has taken a task."""
        return f"{self.name} claim {index}"

    def owner(self, index: int) -> str:
        """The process that has taken a task; empty where it ended before it could say so."""
        key = self.claim(index)
        return self.store.get(key).decode() if self.store.check([key]) else ""

    def take_over(self, index: int, name: str) -> bool:
        """Take a task from the process that has it, unless another one has taken it over."""
        return self.store.compare_set(self.claim(index), self.owner(index), name).decode() == name

    def finish(self, index: int) -> None:
        """Say that a task is done."""
        self.store.append(f"{self.name} done", f"{index} ")

    def news(self) -> list[int]:
        """The tasks that were finished since the last call, by any process."""
        key = f"{self.name} done"
        done = {int(index) for index in self.store.get(key).split()} if self.store.check([key]) else set()
        found = sorted(self.open & done)
        self.open -= done
        return found


@contextmanager
def named_errors() -> Iterator[None]:
    """Errors of the store become those of another process, which says what is wrong.

    Raises:
        PeerError: the store has ended.
    """
    from torch.distributed import DistError

    try:
        yield
    except DistError as error:
        raise PeerError("the process that has the key-value store has ended") from error
