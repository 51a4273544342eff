"""Processes that share the tasks of a run make the report that one process makes, whatever each of them does and when."""

from __future__ import annotations

import fcntl
import random
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch import nn

from freqrobust.core import files
from freqrobust.core.errors import JournalError, SharingError
from freqrobust.core.files import exclusive, in_use
from freqrobust.data.loading import as_data
from freqrobust.harness.journal import Journal
from freqrobust.harness.shard_records import has_workers
from freqrobust.harness.shared_plan import SharedPlan
from freqrobust.harness.sharing import Merge, Shard, shares
from freqrobust.harness.tasks import Task, is_done, perform
from support.failing_plugins import Breaks, BreaksOnSome, BreaksWhenMade, HalfCertified, TogetherMoved
from support.networks import untrained
from support.sharing import content, in_blocks_of, shared_report
from support.waiting import PATIENCE

N, BLOCK = 22, 8


@dataclass
class Shuffled:
    """One process that performs all tasks, in a random order or (with 0) in theirs."""

    times: ClassVar[bool] = True
    seed: int = 0
    reports: bool = True
    kind: str | None = None
    environment: dict[str, object] | None = None

    def opened(self, run_dir, shared):
        return nullcontext()

    def measure(self, name, tasks, journal, failures) -> bool:
        order = random.Random(self.seed).sample(list(tasks), len(tasks)) if self.seed else tasks
        for task in order:
            perform(task, journal, failures)
        return True


SWEEP = [Breaks(eps=eps) for eps in (0.02, 0.05, 0.1)]
RUNS = {
    "sweeps, a shift, an attack that prepares itself": {
        "attacks": ["pgd:eps=[0.02,0.05,0.1],steps=3", "fgsm:eps=0.1", "lfc:radius=2", "fourier:eps=0.1,directions=4"],
        "defenses": ["lowpass:radius=2"],
        "oblivious": True,
    },
    "an attack on whole batches": {"attacks": [TogetherMoved()], "batch_size": 5},
    "a stochastic defense and its certificate": {
        "attacks": ["pgd:eps=[0.05,0.1],steps=2"],
        "defenses": ["randomized-smoothing:sigma=0.25,copies=2"],
        "certify": ["smoothing:eps=[0.05,0.3],n=40,n0=10,alpha=0.01"],
        "oblivious": True,
    },
    "distances": {"attacks": ["ddn:steps=5", "fmn:steps=5"]},
    "certificates": {"attacks": ["clean"], "certify": ["crown:eps=[0.001,0.01]", "ibp:eps=0.001"]},
    "a measurement that budgets share": {
        "attacks": ["clean"],
        "certify": [HalfCertified(eps=0.2), HalfCertified(eps=0.4)],
    },
    "a certificate that fails": {
        "attacks": ["clean"],
        "certify": [HalfCertified(eps=0.2, fails=True), HalfCertified(eps=0.4, fails=True)],
    },
    "one eps fails": {"attacks": [Breaks(eps=eps, where=(0.05,)) for eps in (0.02, 0.05, 0.1)]},
    "the smallest eps fails in one block": {
        "attacks": [Breaks(eps=eps, where=(0.02,), among=(9,)) for eps in (0.02, 0.05, 0.1)]
    },
    "two eps fail": {"attacks": [Breaks(eps=eps, where=(0.02, 0.05), among=(9,)) for eps in (0.02, 0.05, 0.1)]},
    "a defense fails": {
        "attacks": ["fgsm:eps=0.1", "lfc:radius=2"],
        "defenses": [BreaksWhenMade(), "lowpass:radius=2"],
        "oblivious": True,
    },
    "a defense fails on some samples": {
        "attacks": ["fgsm:eps=0.02"],
        "defenses": [BreaksOnSome(threshold=0.97)],
        "oblivious": True,
    },
    "a defense fails on the examples": {
        "attacks": ["fgsm:eps=0.3"],
        "defenses": [BreaksOnSome(threshold=0.9999), "lowpass:radius=2"],
        "oblivious": True,
    },
    "quick checks": {
        "attacks": ["pgd:eps=[0.005,0.01],steps=2"],
        "diagnose": "quick",
        "defenses": ["lowpass:radius=2"],
    },
    "all checks": {
        "attacks": ["pgd:eps=0.005,steps=2"],
        "diagnose": "full",
        "defenses": ["lowpass:radius=2"],
        "oblivious": True,
    },
    "fewer samples than a block": {"attacks": SWEEP, "first": 5},
    "pictures": {"attacks": SWEEP, "examples": 2},
}


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    in_blocks_of(monkeypatch, BLOCK)


@pytest.fixture
def data():
    images = torch.rand(N, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        labels = untrained(0)(images).argmax(dim=1)
    labels[::7] = (labels[::7] + 1) % 4
    return as_data((images, labels))


@pytest.fixture(params=[pytest.param(name, marks=pytest.mark.slow if name == "all checks" else ()) for name in RUNS])
def case(request, data):
    return untrained(0), data, RUNS[request.param]


def report(case, sharing=None, **more):
    model, data, options = case
    return shared_report(model, data, sharing, **{**options, **more})


@pytest.mark.slow
def test_shards_in_any_order_make_the_same_report(case, tmp_path) -> None:
    expected = content(report(case))
    for number in (3, 1, 2):
        assert report(case, Shard(number, 3), run_dir=tmp_path / "shards") is None
    assert content(report(case, Merge(), run_dir=tmp_path / "shards")) == expected
    assert content(report(case, Shuffled(1), run_dir=tmp_path / "queue")) == expected


SMALL = {
    "attacks": [Breaks(eps=0.05), Breaks(eps=0.1), "lfc:radius=2"],
    "defenses": ["lowpass:radius=2"],
    "certify": [HalfCertified(eps=0.2), HalfCertified(eps=0.4)],
    "oblivious": True,
    "diagnose": "quick",
    "first": BLOCK + 2,
}


@pytest.fixture
def stores(monkeypatch):
    """The identity of every piece that is put on disk; ``stop`` stops the process before one of them."""
    written = Written()
    store = Journal.store

    def counted(self, key, piece):
        if len(written.keys) == written.stop:
            raise KeyboardInterrupt
        written.keys.append(key)
        store(self, key, piece)

    monkeypatch.setattr(Journal, "store", counted)
    return written


@dataclass
class Written:
    keys: list[str] = field(default_factory=list)
    stop: int | None = None


@pytest.mark.slow
@pytest.mark.parametrize("sharing", [None, Shuffled(3)], ids=["one process", "shuffled tasks"])
def test_whenever_a_process_is_killed_the_rest_is_measured_once(data, tmp_path, stores, sharing) -> None:
    case = (untrained(0), data, SMALL)
    expected = content(report(case, sharing, run_dir=tmp_path / "whole"))
    pieces = sorted(stores.keys)
    assert len(pieces) == len(set(pieces)) > 12
    for stop in range(len(pieces)):
        stores.keys, stores.stop = [], stop
        with pytest.raises(KeyboardInterrupt):
            report(case, sharing, run_dir=tmp_path / f"{stop}")
        assert len(stores.keys) == stop
        stores.stop = None
        assert content(report(case, sharing, run_dir=tmp_path / f"{stop}")) == expected
        assert sorted(stores.keys) == pieces


@pytest.mark.parametrize("damage", [lambda text: text[:-5], lambda text: ""], ids=["cut off", "empty"])
def test_a_damaged_piece_is_measured_again_by_the_shard_and_missing_at_the_merge(data, tmp_path, damage) -> None:
    case = (untrained(0), data, SMALL)
    for number in (1, 2):
        report(case, Shard(number, 2), run_dir=tmp_path)
    expected = content(report(case, Merge(), run_dir=tmp_path))
    for path in sorted((tmp_path / "cells").iterdir()):
        path.write_text(damage(path.read_text()))
    with pytest.raises(SharingError, match="tasks are missing"):
        report(case, Merge(), run_dir=tmp_path)
    for number in (1, 2):
        report(case, Shard(number, 2), run_dir=tmp_path)
    assert content(report(case, Merge(), run_dir=tmp_path)) == expected


def test_a_task_that_fails_is_tried_again_by_its_shard_but_not_by_the_others(data, tmp_path, monkeypatch) -> None:
    tries: list[float] = []
    perturb = Breaks.perturb

    def fails(self, model, images, labels, context):
        tries.append(self.eps)
        if len(tries) < 3:
            raise ValueError("not now")
        return perturb(self, model, images, labels, context)

    monkeypatch.setattr(Breaks, "perturb", fails)
    case = (untrained(0), data, {"attacks": [Breaks(eps=0.1)], "first": BLOCK, "batch_size": BLOCK})
    clean, other = Shard(1, 2), Shard(2, 2)  # the clean pass is the first of two tasks of the same length
    report(case, clean, run_dir=tmp_path)
    assert tries == []
    report(case, other, run_dir=tmp_path)
    assert tries == [0.1]
    failed = report(case, Merge(), run_dir=tmp_path)
    assert failed.status == "partial"
    assert "not now" in failed.cells[1].error
    report(case, clean, run_dir=tmp_path)
    assert tries == [0.1]
    report(case, other, run_dir=tmp_path)
    assert report(case, Merge(), run_dir=tmp_path).status == "partial"
    report(case, other, run_dir=tmp_path)
    assert content(report(case, Merge(), run_dir=tmp_path)) == content(report(case))
    assert tries == [0.1] * 4


@pytest.mark.parametrize("where", [(0.02,), (0.05,), (0.02, 0.05)], ids=str)
def test_an_eps_that_fails_in_one_block_lets_nothing_be_measured_twice(data, tmp_path, monkeypatch, where) -> None:
    attacks = [Breaks(eps=eps, where=where, among=(9,)) for eps in (0.02, 0.05, 0.1)]
    case, runs = (untrained(0), data, {"attacks": attacks, "batch_size": BLOCK}), []
    perturb = Breaks.perturb

    def noted(self, model, images, labels, context):
        runs.append((self.eps, context.ids.tolist()))
        return perturb(self, model, images, labels, context)

    monkeypatch.setattr(Breaks, "perturb", noted)
    expected, once = content(report(case, run_dir=tmp_path / "alone")), sorted(runs)
    assert len({str(run) for run in runs}) == len(runs) == 3 * 3
    assert [cell["status"] for cell in expected["cells"]].count("failed") == len(where)
    for count, sharing in ((1, Shuffled()), (1, Shuffled(5)), (2, None), (3, None)):
        runs.clear()
        folder = tmp_path / f"{count} {sharing}"
        if sharing is not None:
            assert content(report(case, sharing, run_dir=folder)) == expected
        else:
            for number in range(1, count + 1):
                report(case, Shard(number, count), run_dir=folder)
            assert content(report(case, Merge(), run_dir=folder)) == expected
        assert sorted(runs) == once
    runs.clear()
    assert content(report(case, run_dir=tmp_path / "alone")) == expected
    assert len(runs) == len(where)  # what failed is tried again, in the block where it did


def test_a_full_disk_takes_nothing_from_the_report(data, tmp_path, monkeypatch) -> None:
    case = (untrained(0), data, {**SMALL, "attacks": [*SMALL["attacks"], Breaks(eps=0.05, where=(0.05,))]})
    expected = content(report(case))

    def full(self, key, piece):
        raise JournalError("cannot write: No space left on device")

    monkeypatch.setattr(Journal, "store", full)
    assert content(report(case, Shuffled(), run_dir=tmp_path)) == expected


class Memory(nn.Module):
    """A classifier for which a device with little memory is enough for some images at a time."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.inner, self.most = untrained(0), most

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if len(x) > self.most:
            raise RuntimeError("CUDA out of memory. Tried to allocate 1 GiB")
        return self.inner(x)


def test_out_of_memory_inside_a_block_halves_the_batches_of_all_blocks_and_changes_no_result(data, monkeypatch) -> None:
    monkeypatch.setattr("freqrobust.harness.opening.auto_batch_size", lambda *about: 6)
    options = {"attacks": ["pgd:eps=0.02,steps=3", "lfc:radius=2"], "batch_size": "auto"}
    small, large = (report((Memory(most), data, options)) for most in (3, 100))
    assert [cell.outcomes for cell in small.cells] == [cell.outcomes for cell in large.cells]
    assert [cell.batch_size for cell in small.cells] == [3, 3, 3]
    assert [cell.batch_size for cell in large.cells] == [6, 6, 6]


def test_checks_that_train_a_defense_do_not_wait_for_themselves(data, tmp_path, monkeypatch) -> None:
    """The trained models and the journal are in the same directory, and both are locked."""
    flock = fcntl.flock

    def at_once(handle, operation):
        try:
            flock(handle, operation | fcntl.LOCK_NB)
        except BlockingIOError:
            assert operation & fcntl.LOCK_NB, "it waits for itself"
            raise

    monkeypatch.setattr(fcntl, "flock", at_once)
    options = {"attacks": ["fgsm:eps=0.01"], "defenses": ["madry:epochs=1,steps=1"], "train_data": data}
    case = (untrained(0), data, {**options, "diagnose": "quick"})
    assert report(case, Shard(1, 1), run_dir=tmp_path) is None
    expected = content(report(case, Merge(), run_dir=tmp_path))
    for again in (Shard(1, 1), Merge()):
        for path in (tmp_path / "checks").glob("*.json"):
            path.unlink()
        report(case, again, run_dir=tmp_path)
    assert content(report(case, Merge(), run_dir=tmp_path)) == expected


def test_a_failure_that_was_repaired_leaves_a_task_open(tmp_path) -> None:
    """The process was killed after it had measured again what failed before, and before it measured the rest."""
    journal, failures = Journal(tmp_path), Journal(tmp_path, "failures")
    task = Task("two eps", 1.0, ("small", "large"), dict)
    failures.store("small", {"error": "not now"})
    assert is_done(task, journal, failures)
    journal.store("small", {})
    assert not is_done(task, journal, failures)
    journal.store("large", {})
    assert is_done(task, journal, failures)


def test_a_look_at_a_lock_keeps_no_process_out(tmp_path, monkeypatch) -> None:
    """A list of runs, and a shard that looks for others, take a lock for a moment."""
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / "workers.lock").touch()
    with in_use(tmp_path / "shards" / "workers.lock"):  # another shard looks
        assert not has_workers(tmp_path)
    monkeypatch.setattr(files, "PATIENCE", PATIENCE)
    for path in (tmp_path, tmp_path / "shards" / "1-of-2.lock"):
        waited = []
        with ExitStack() as looking:
            assert looking.enter_context(exclusive(path))

            def ends_the_look(seconds: float, looking: ExitStack = looking, waited: list[float] = waited) -> None:
                waited.append(seconds)
                looking.close()

            monkeypatch.setattr(files.time, "sleep", ends_the_look)
            with Shard(1, 2).opened(tmp_path, SharedPlan({"seed": 0})):
                assert waited == [files._AGAIN]


@pytest.mark.parametrize(
    ("work", "count", "expected"),
    [
        # 7 goes to the first, 5 to the second; 4 to the second (5 < 7), 3 to the first (7 < 9), 1 to the second (9 < 10)
        ([7, 5, 4, 3, 1], 2, [1, 2, 2, 1, 2]),
        ([6, 3, 3, 2, 2, 2], 3, [1, 2, 3, 2, 3, 2]),
        ([1, 1, 1, 1], 4, [1, 2, 3, 4]),
        ([5, 1], 3, [1, 2]),
    ],
)
def test_shares_go_to_the_shard_with_the_least_work(work, count, expected) -> None:
    tasks = [Task(f"{index}", float(amount), (), dict) for index, amount in enumerate(work)]
    assert [number for _, number in shares(tasks, count)] == expected


def test_the_longest_tasks_come_first_and_draws_and_votes_count(data) -> None:
    found: list[Task] = []

    class Listed(Shuffled):
        def measure(self, name, tasks, journal, failures) -> bool:
            found.extend(tasks)
            return False

    options = {
        "attacks": ["pgd:eps=[0.05,0.1],steps=2", "pgd:eps=0.1,steps=50", "lfc:radius=2"],
        "defenses": ["randomized-smoothing:sigma=0.25,copies=2"],
        "certify": ["smoothing:eps=0.05,n=4000,n0=10"],
        "oblivious": True,
    }
    assert report((untrained(0), data, options), Listed()) is None
    work = {task.label.rpartition(", ")[0]: task.work for task in found if task.label.endswith("samples 0 to 7")}
    assert [task.work for task in found] == sorted((task.work for task in found), reverse=True)
    assert len({key for task in found for key in task.keys}) == sum(len(task.keys) for task in found)
    noisy = "randomized-smoothing:sigma=0.25,copies=2"
    assert work[f"{noisy} / clean"] == 11 * work["undefended / clean"] == 11 * BLOCK
    assert work[f"{noisy} / pgd:eps=0.1,steps=50"] == (11 + 10 * 150) * BLOCK
    assert work[f"{noisy} / smoothing:eps=0.05,n=4000,n0=10"] == 4010 * BLOCK


@pytest.mark.slow
def test_checks_of_different_processes_measure_nothing_twice(data, tmp_path) -> None:
    """What each task of a stage adds is taken away again, as if all began at the same time."""
    added: dict[str, list[set[Path]]] = {}

    class Apart(Shuffled):
        def measure(self, name, tasks, journal, failures) -> bool:
            folder = tmp_path / "checks"
            for task in tasks:
                before = set(folder.iterdir())
                perform(task, journal, failures)
                new = set(folder.iterdir()) - before
                added.setdefault(name, []).append(new)
                for path in new if name == "checks 0 others" else ():
                    path.unlink()
            return True

    options = {"attacks": ["pgd:eps=0.005,steps=2"], "diagnose": "full"}
    found = report((untrained(0), data, options), Apart(), run_dir=tmp_path)
    assert found.diagnostics[0].depth == "full"
    others = added["checks 0 others"]
    assert len(others) > 7
    assert len(set.union(*others)) == sum(map(len, others))
