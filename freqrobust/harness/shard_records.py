"""The files in which shards say how far they are: one for each, in the run directory that they share."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from freqrobust.core.errors import JournalError, SharingError
from freqrobust.core.files import alone, exclusive, in_use, write_atomically
from freqrobust.harness.provenance import now
from freqrobust.harness.shared_plan import PLAN, SHARDS, SharedPlan

#: The file that processes of ``torchrun`` lock.
WORKERS = "workers.lock"
State = Literal["running", "finished", "interrupted"]


@dataclass
class ShardRecord:
    """What one shard did.

    Attributes:
        shard: its number, from 1.
        shards: how many there are.
        plan: what it measured, as it saw it: a shard on another machine may have measured something else.
        state: of its last run; ``running`` also where that was killed.
        tasks: how many tasks of cells are its share, whoever measured them.
        measured: how many tasks its last run measured, with those of other shards and checks.
        taken_over: how many of these are a part of another shard's share.
        failures: the tasks that failed: each with its label and the reason.
        host: the name of the machine.
        started: when.
        seconds: how long it took.
    """

    shard: int
    shards: int
    plan: dict[str, Any]
    state: State = "running"
    tasks: int = 0
    measured: int = 0
    taken_over: int = 0
    failures: list[dict[str, str]] = field(default_factory=list)
    host: str = field(default_factory=socket.gethostname)
    started: str = field(default_factory=now)
    seconds: float = 0.0

    def path(self, run_dir: Path) -> Path:
        """Where it is in a run directory."""
        return _path(run_dir, self.shard, self.shards)

    def write(self, run_dir: Path) -> None:
        """Write it to the run directory, atomically.

        Raises:
            JournalError: it cannot be written.
        """
        write_atomically(self.path(run_dir), json.dumps(asdict(self), indent=1, default=str) + "\n")

    @classmethod
    def read(cls, run_dir: Path, shard: int, shards: int) -> ShardRecord | None:
        """The record of a shard; None where it has none that can be read."""
        try:
            content = json.loads(_path(run_dir, shard, shards).read_text(encoding="utf-8"))
            return cls(**content)
        except (OSError, ValueError, TypeError, RecursionError):
            return None

    @contextmanager
    def kept(self, run_dir: Path) -> Iterator[None]:
        """Inside the block the record says that the shard is running, and afterwards how it ended."""
        start = time.monotonic()
        self.write(run_dir)
        self.state = "interrupted"
        try:
            yield
            self.state = "finished"
        finally:
            self.seconds = round(time.monotonic() - start, 1)
            self.write(run_dir)


def _path(run_dir: Path, shard: int, shards: int) -> Path:
    return run_dir / SHARDS / f"{shard}-of-{shards}.json"


def _lock(run_dir: Path, shard: int, shards: int) -> Path:
    return _path(run_dir, shard, shards).with_suffix(".lock")


@contextmanager
def _only_one(run_dir: Path, lock: Path, who: str) -> Iterator[None]:
    """Inside the block no other process may be here for the same lock.

    Raises:
        SharingError: another process is.
        JournalError: the directory cannot be used.
    """
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        lock.touch()
    except OSError as error:
        raise JournalError(f"cannot use the run directory {run_dir}: {error.strerror}") from error
    with exclusive(lock, patient=True) as free:
        if not free:
            raise SharingError(f"{who} {run_dir}; it has to end first")
        yield


def only_one(run_dir: Path, shard: int, shards: int) -> AbstractContextManager[None]:
    """Inside the block no other process may be the same shard.

    Raises:
        SharingError: another process is that shard.
        JournalError: the directory cannot be used.
    """
    return _only_one(run_dir, _lock(run_dir, shard, shards), f"another process is shard {shard}/{shards} in")


def only_workers(run_dir: Path, first: bool) -> AbstractContextManager[None]:
    """Inside the block no other run of ``torchrun`` may use the directory.

    Args:
        run_dir: the directory.
        first: this is the first process of this run, which locks it for all.

    Raises:
        SharingError: another run uses it.
        JournalError: the directory cannot be used.
    """
    return (
        _only_one(run_dir, run_dir / SHARDS / WORKERS, "another run of torchrun measures into")
        if first
        else nullcontext()
    )


def has_workers(run_dir: Path) -> bool:
    """Whether processes of ``torchrun`` use the directory, where the file system has locks."""
    return _is_locked(run_dir / SHARDS / WORKERS)


def is_running(run_dir: Path, shard: int, shards: int) -> bool:
    """Whether a process is that shard, where the file system has locks."""
    return _is_locked(_lock(run_dir, shard, shards))


def started(run_dir: Path, shards: int) -> set[int]:
    """The shards that were started in the directory, also those that have ended."""
    try:
        names = {path.name for path in (run_dir / SHARDS).iterdir()}
    except OSError:
        return set()
    return {number for number in range(1, shards + 1) if _path(run_dir, number, shards).name in names}


def _is_locked(lock: Path) -> bool:
    if not lock.exists():
        return False
    with in_use(lock) as free:  # processes that look at the same time do not see each other
        return not free


def check_fits(run_dir: Path, plan: SharedPlan, what: str) -> None:
    """Refuse to measure into a directory of shards that measure something else, or at the moment.

    Raises:
        SharingError: what differs, or which shard is running.
    """
    known = SharedPlan.read(run_dir)
    if known is None:
        return
    plan.check(known, what, run_dir / PLAN)
    running = next((n for n in range(1, (known.shards or 0) + 1) if is_running(run_dir, n, known.shards or 0)), None)
    if running is not None:
        raise SharingError(f"shard {running} of {known.shards} is running in {run_dir}; it has to end first")


def claim(run_dir: Path, plan: SharedPlan, what: str) -> None:
    """Write the plan to the run directory, or compare with the one that is there.

    Raises:
        SharingError: something else is measured there.
        JournalError: the directory cannot be used.
    """
    with alone(run_dir / SHARDS):
        known = SharedPlan.read(run_dir)
        if known is None:
            plan.write(run_dir)
        else:
            plan.check(known, what, run_dir / PLAN)
