"""Shards in one directory take over what others have not begun, and nothing is measured twice."""

from __future__ import annotations

import errno
import fcntl
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch

from freqrobust.core.errors import SharingError
from freqrobust.core.files import exclusive
from freqrobust.core.progress import Silent
from freqrobust.core.schedule import Piece
from freqrobust.data.loading import as_data
from freqrobust.harness.journal import Journal
from freqrobust.harness.open_tasks import OpenTasks
from freqrobust.harness.shard_records import ShardRecord, is_running, only_one
from freqrobust.harness.sharing import Merge, Shard, shares
from freqrobust.harness.tasks import Task
from support.failing_plugins import Breaks
from support.networks import untrained
from support.sharing import content, in_blocks_of, shared_report

#: With blocks of half of the samples: 8 tasks of attacks, of equal work for both models; the longer ones also make the
#: clean pass of their block, which is 4 tasks that are done then.
OPTIONS = {
    "attacks": ["pgd:eps=[0.05,0.1],steps=2", "lfc:radius=2"],
    "defenses": ["lowpass:radius=2"],
    "diagnose": "quick",
}


@pytest.fixture
def report(monkeypatch) -> Callable[..., object]:
    """``report(sharing)``: what a process with this part returns."""
    in_blocks_of(monkeypatch, 8)
    images = torch.rand(16, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        data = as_data((images, untrained(0)(images).argmax(dim=1)))
    return lambda part=None, **more: shared_report(untrained(0), data, part, **{**OPTIONS, **more})


@dataclass
class Measurements:
    """Which process began which task; ``before`` is called before each."""

    begun: list[tuple[int, str]] = field(default_factory=list)
    before: Callable[[int], None] = lambda count: None


@pytest.fixture
def measurements(monkeypatch) -> Measurements:
    log, measure = Measurements(), Shard._measure

    def logged(self, task, journal, failures):
        log.begun.append((self.number, task.label))
        log.before(len(log.begun))
        measure(self, task, journal, failures)

    monkeypatch.setattr(Shard, "_measure", logged)
    return log


def record(folder: Path, number: int, of: int = 2) -> ShardRecord:
    found = ShardRecord.read(folder, number, of)
    assert found is not None
    return found


def of_cells(measurements: Measurements) -> list[tuple[int, str]]:
    return [one for one in measurements.begun if not one[1].startswith("checking")]


def test_a_shard_measures_what_a_slower_one_has_not_begun(report, measurements, tmp_path) -> None:
    """The second shard does all of its work while the first one is busy with its second task."""
    expected = content(report())

    def second_shard(count: int) -> None:
        if count == 2:
            assert report(Shard(2, 2), run_dir=tmp_path) is None
            with pytest.raises(
                SharingError, match=r"shard 1 of 2 is still running: 1 of 12 tasks is missing; merge again"
            ):
                report(Merge(), run_dir=tmp_path)

    measurements.before = second_shard
    assert report(Shard(1, 2), run_dir=tmp_path) is None
    first, second = record(tmp_path, 1), record(tmp_path, 2)
    begun = of_cells(measurements)
    assert len({label for _, label in begun}) == 8
    assert [number for number, _ in begun] == [1, 1, *[2] * 6]
    checks = [number for number, label in measurements.begun if label.startswith("checking")]
    assert checks
    assert set(checks) == {1}  # the one that ended last
    assert (first.tasks, first.measured, first.taken_over) == (6, 2 + len(checks), 0)
    assert (second.tasks, second.measured, second.taken_over) == (6, 6, 2)
    assert first.state == second.state == "finished"
    assert list((tmp_path / "claims").iterdir()) == []
    assert content(report(Merge(), run_dir=tmp_path)) == expected


def test_a_merge_says_that_a_running_shard_may_have_the_tasks_of_one_that_has_ended(report, tmp_path) -> None:
    report(Shard(1, 2), run_dir=tmp_path)
    report(Shard(2, 2), run_dir=tmp_path)
    for path in (tmp_path / "cells").iterdir():
        path.unlink()
    ended = "shard 1 of 2 has ended, and shard 2, which takes over what is left, is still running: 6 of 12 tasks are missing"
    running = "shard 2 of 2 is still running: 6 of 12 tasks are missing"
    with only_one(tmp_path, 2, 2), pytest.raises(SharingError, match=f"^{ended}; {running}; merge again when"):
        report(Merge(), run_dir=tmp_path)


def test_the_share_of_a_shard_that_was_not_started_is_left_to_it(report, measurements, tmp_path) -> None:
    """It may run in another directory, on another machine."""
    report(Shard(1, 3), run_dir=tmp_path)
    assert len(measurements.begun) == record(tmp_path, 1, 3).measured == 2
    assert (record(tmp_path, 1, 3).tasks, record(tmp_path, 1, 3).taken_over) == (4, 0)
    with pytest.raises(SharingError, match=r"shard 2 of 3 was not started.*shard 3 of 3 was not started"):
        report(Merge(), run_dir=tmp_path)


@pytest.mark.parametrize("stop", [1, 3, 4])
def test_what_an_interrupted_shard_has_left_is_measured_by_another(report, measurements, tmp_path, stop) -> None:
    """Its record, the file of the task that it had begun, and no lock are there."""

    def interrupt(count: int) -> None:
        if count == stop:
            raise KeyboardInterrupt

    measurements.before = interrupt
    with pytest.raises(KeyboardInterrupt):
        report(Shard(1, 2), run_dir=tmp_path)
    (left,) = (tmp_path / "claims").iterdir()
    content_of = json.loads((tmp_path / "shards" / "1-of-2.json").read_text())
    (tmp_path / "shards" / "1-of-2.json").write_text(json.dumps({**content_of, "state": "running"}))  # as after SIGKILL
    measurements.before = lambda count: None
    report(Shard(2, 2), run_dir=tmp_path)
    assert not left.exists()
    assert record(tmp_path, 2).taken_over == 4 - (stop - 1)
    assert content(report(Merge(), run_dir=tmp_path)) == content(report())
    report(Shard(1, 2), run_dir=tmp_path)  # it finds everything done, and looks at the checks as before
    assert len(of_cells(measurements)) == stop + 8 - (stop - 1)
    assert (record(tmp_path, 1).tasks, record(tmp_path, 1).measured) == (6, 0)


def test_a_task_that_failed_elsewhere_is_tried_again_by_its_own_shard_in_the_next_run(
    report, measurements, tmp_path
) -> None:
    options = {"attacks": [Breaks(eps=0.1, where=(0.1,))], "defenses": [], "diagnose": None, "run_dir": tmp_path}
    tries = lambda: [number for number, label in measurements.begun if "clean" not in label]  # noqa: E731

    def second_shard(count: int) -> None:
        if count == 1:
            report(Shard(2, 2), **options)

    measurements.before = second_shard
    report(Shard(1, 2), **options)
    assert len(tries()) == 2  # blocks
    failed = [one for number in (1, 2) for one in record(tmp_path, number).failures]
    assert len(failed) == 2
    report(Shard(2, 2), **options)
    report(Shard(1, 2), **options)
    assert sorted(tries()[2:]) == [1, 2]
    assert [len(record(tmp_path, number).failures) for number in (1, 2)] == [1, 1]


# -- one task after the other --------------------------------------------------------------------------------------


@dataclass
class Stage:
    """A stage of tasks in a directory where some shards were started; performing one is to store its key."""

    folder: Path
    tasks: list[Task]
    count: int = 2

    def of(self, number: int, progress=None) -> OpenTasks:
        ShardRecord(number, self.count, {}).write(self.folder)
        dealt, found = shares(self.tasks, self.count), (Journal(self.folder), Journal(self.folder, "failures"))
        return OpenTasks(dealt, number, self.count, *found, progress or Silent())

    def done(self, label: str) -> None:
        Journal(self.folder).store(key_of(label), {})


def key_of(label: str) -> str:
    return label * 32


@pytest.fixture
def stage(tmp_path) -> Stage:
    """Tasks a to f; a, d and e are those of the first shard."""
    work = {"a": 6, "b": 5, "c": 4, "d": 3, "e": 2, "f": 1}
    found = Stage(tmp_path, [Task(label, float(much), (key_of(label),), dict) for label, much in work.items()])
    assert [number for _, number in shares(found.tasks, 2)] == [1, 2, 2, 1, 1, 2]
    return found


def taken(left: OpenTasks) -> str | None:
    """The next task, which is done at once."""
    with left.take() as one:
        if one is not None:
            left.journal.store(one[0].keys[0], {})
        return one[0].label if one is not None else None


def test_each_takes_the_longest_that_is_left(stage) -> None:
    first = stage.of(1)
    with first.take() as one:
        assert one is not None
        assert one[0].label == "a"
        second = stage.of(2)
        assert [taken(second), taken(second)] == ["b", "c"]
        assert [taken(second), taken(second), taken(second)] == ["d", "e", "f"]  # a is being measured
        assert taken(second) is None
        stage.done("a")
    assert taken(first) is None


def test_of_two_that_begin_the_same_task_one_gets_it(stage, monkeypatch) -> None:
    """Both have looked at the files, and see nothing of each other."""
    stage.tasks = stage.tasks[:1]
    first, second = stage.of(1), stage.of(2)
    for one in (first, second):
        monkeypatch.setattr(one, "_candidates", lambda: [0])
    with first.take() as mine, second.take() as other:
        assert mine is not None
        assert other is None


def test_a_task_that_was_done_since_the_last_look_is_not_measured_again(stage, monkeypatch) -> None:
    left = stage.of(1)
    look = left._candidates

    def late() -> list[int]:
        found = look()
        stage.done("a")
        return found

    monkeypatch.setattr(left, "_candidates", late)
    assert taken(left) == "d"
    assert list((stage.folder / "claims").iterdir()) == []


def test_a_task_is_given_once_also_if_its_result_is_not_kept(stage) -> None:
    left, given = stage.of(1), []
    for _ in range(3):
        with left.take() as one:
            assert one is not None
            given.append(one[0].label)
    assert given == ["a", "d", "e"]
    with left.take() as one:
        assert one is None


def test_tasks_that_seem_to_be_measured_come_last(stage) -> None:
    """The file of a task may be one of a process that was killed, or on a machine whose locks are not seen."""
    (stage.folder / "claims").mkdir()
    (stage.folder / "claims" / f"{key_of('a')}.lock").touch()
    left = stage.of(1)
    assert [taken(left) for _ in range(4)] == ["d", "e", "a", None]


def test_the_file_of_a_finished_task_whose_shard_was_killed_is_removed(stage) -> None:
    """It was killed when the result was written, and its lock not yet removed."""
    files = stage.folder / "claims"
    files.mkdir()
    for label in "ab":  # shard 2, which has b, was not started here: it is not done
        (files / f"{key_of(label)}.lock").touch()
    stage.done("a")
    left = stage.of(1)
    assert [taken(left) for _ in range(3)] == ["d", "e", None]
    assert [one.name for one in files.iterdir()] == [f"{key_of('b')}.lock"]


def test_a_damaged_result_of_the_own_share_is_measured_again(stage) -> None:
    for one in stage.tasks:
        stage.done(one.label)
    for label in "ab":
        (stage.folder / "cells" / f"{key_of(label)}.json").write_text("")
    stage.of(2)
    left = stage.of(1)
    assert [taken(left), taken(left)] == ["a", None]


def test_the_progress_is_that_of_all_shards_that_take_part(stage) -> None:
    class Planned(Silent):
        def plan(self, pieces: list[Piece]) -> None:
            self.pieces = [piece.label for piece in pieces]

        def together(self, processes: int) -> None:
            self.processes = processes

        def finish(self, label: str) -> None:
            self.pieces.remove(label)

    progress = Planned()
    left = stage.of(1, progress)
    assert taken(left) == "a"
    assert (progress.pieces, progress.processes) == (["a", "d", "e"], 1)
    with only_one(stage.folder, 2, 2):
        stage.of(2)
        stage.done("b")
        assert taken(left) == "c"
        assert (progress.pieces, progress.processes) == (["c", "d", "e", "f"], 2)


# -- file systems --------------------------------------------------------------------------------------------------


def test_without_locks_each_shard_does_its_share(report, measurements, tmp_path, monkeypatch) -> None:
    def none(handle: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", none)
    expected = content(report())

    def second_shard(count: int) -> None:
        if count == 2:
            report(Shard(2, 2), run_dir=tmp_path)

    measurements.before = second_shard
    report(Shard(1, 2), run_dir=tmp_path)
    assert len({label for _, label in of_cells(measurements)}) == len(of_cells(measurements)) == 12
    assert [record(tmp_path, number).taken_over for number in (1, 2)] == [0, 0]
    assert not (tmp_path / "claims").exists()
    assert content(report(Merge(), run_dir=tmp_path)) == expected
    report(Shard(1, 2), run_dir=tmp_path)
    assert record(tmp_path, 1).measured == 0


def test_where_only_files_open_for_writing_are_locked_as_on_nfs(stage, monkeypatch) -> None:
    flock = fcntl.flock

    def nfs(handle: int, operation: int) -> None:
        writable = fcntl.fcntl(handle, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDWR
        if operation & fcntl.LOCK_EX and not writable:
            raise OSError(errno.EBADF, "Bad file descriptor")
        flock(handle, operation)

    monkeypatch.setattr(fcntl, "flock", nfs)
    with only_one(stage.folder, 1, 2):
        assert is_running(stage.folder, 1, 2)
        left = stage.of(1)
        with left.take() as one, exclusive(left._lock(one[0])) as free:
            assert not free


def test_a_claim_that_cannot_be_written_stops_nobody(stage) -> None:
    (stage.folder / "claims").write_text("a file")
    left = stage.of(1)
    assert [taken(left) for _ in range(4)] == ["a", "d", "e", None]
