"""``freqrobust eval`` in several processes, which torchrun starts."""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist

from freqrobust.core.errors import PeerError, SharingError, SpecError
from freqrobust.core.launch import Launch, launch
from freqrobust.harness import task_queue
from freqrobust.harness.journal import Journal
from freqrobust.harness.shared_plan import SharedPlan
from freqrobust.harness.task_queue import Queue, connect, of_attempt
from freqrobust.harness.tasks import Task
from support.command import Result
from support.shared_runs import OPTIONS, flags, small_blocks, together, without_times, write_code
from support.waiting import PATIENCE

Command = Callable[..., Result]
MODELS = ["--model", "nets.py:first", "--model", "nets.py:second", "--data", "digits"]
PLAN = SharedPlan({"seed": 0})


@pytest.fixture(autouse=True)
def _small_blocks() -> Iterator[None]:
    with small_blocks():  # as the models that these tests write
        yield


def finished(arguments: list[str], code: int = 0, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    done = subprocess.run(
        arguments, capture_output=True, text=True, timeout=PATIENCE, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    return done


@pytest.fixture
def store() -> Any:
    return dist.TCPStore("localhost", 0, is_master=True, wait_for_workers=False, timeout=timedelta(seconds=PATIENCE))


def tasks(journal: Journal, count: int, before: Callable[[int], object] = lambda index: None) -> list[Task]:
    """Tasks that put one piece each into a journal, and what each of them calls before."""

    def run(index: int) -> dict[str, str]:
        before(index)
        journal.store(f"{index:032}", {})
        return {}

    return [Task(f"task {i}", 1.0, (f"{i:032}",), lambda i=i: run(i)) for i in range(count)]  # type: ignore[misc]


def test_each_task_is_done_once(tmp_path: Path, store: Any) -> None:
    """By three processes, which all measure at the same time at first: each waits in its first task for the others."""
    journal, failures = Journal(tmp_path), Journal(tmp_path, "failures")
    done: list[tuple[int, int]] = []
    met = threading.Barrier(3)

    def work(rank: int) -> None:
        def measured(index: int) -> None:
            done.append((index, rank))
            if index < 3:
                met.wait(PATIENCE)

        assert Queue(store, rank, 3).measure("cells", tasks(journal, 20, measured), journal, failures)

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert sorted(index for index, _ in done) == list(range(20))
    assert sorted(rank for index, rank in done if index < 3) == [0, 1, 2]
    assert all(journal.has(f"{i:032}") for i in range(20))


def test_the_task_of_a_process_that_gives_no_signs_is_taken_over(
    tmp_path: Path, store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(task_queue, "LOST", 0.3)
    monkeypatch.setattr(task_queue, "LOOK", 0.05)
    journal, failures = Journal(tmp_path), Journal(tmp_path, "failures")
    store.add("cells next", 2)  # two processes have taken a task each; one ended before it could say so
    store.set("cells claim 1", "another")
    start = time.monotonic()
    assert Queue(store, 0, 3).measure("cells", tasks(journal, 4), journal, failures)
    assert time.monotonic() - start > 0.3
    assert all(journal.has(f"{i:032}") for i in range(4))


def test_claims_of_a_former_attempt_are_void(tmp_path: Path, store: Any) -> None:
    journal, failures = Journal(tmp_path), Journal(tmp_path, "failures")
    of_attempt(store, 0).add("cells next", 99)
    assert Queue(of_attempt(store, 1), 0, 2).measure("cells", tasks(journal, 3), journal, failures)
    assert all(journal.has(f"{i:032}") for i in range(3))


@pytest.mark.slow
def test_a_process_that_does_not_see_the_files_of_the_first(
    tmp_path: Path, store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(task_queue, "VISIBLE", 0.5)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / f".freqrobust-{'0' * 32}").touch()  # of a process that was killed
    (tmp_path / "b").mkdir()
    with Queue(store, 0, 2).opened(tmp_path / "a", PLAN):
        for queue, folder, plan, message in (
            (Queue(store, 1, 2), "b", PLAN, "does not see the files that process 0 writes to"),
            (Queue(store, 1, 2), "a", SharedPlan({"seed": 1}), "does not fit process 0: seed 1 instead of 0"),
            (Queue(store, 0, 2), "a", PLAN, "another run of torchrun"),
        ):
            with pytest.raises(SharingError, match=message), queue.opened(tmp_path / folder, plan):
                pass
        with Queue(store, 1, 2).opened(tmp_path / "a", PLAN):
            pass
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["shards"]


@pytest.mark.slow
def test_a_store_that_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task_queue, "PATIENCE", timedelta(seconds=1))
    with pytest.raises(PeerError, match="there is no key-value store at localhost:1"):
        connect(Launch(1, 2, 1, port=1, has_store=True))


def test_the_environment_of_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    assert launch() is None
    for name, value in {"WORLD_SIZE": "4", "RANK": "3", "LOCAL_RANK": "1", "TORCHELASTIC_RESTART_COUNT": "2"}.items():
        monkeypatch.setenv(name, value)
    together = launch()
    assert together is not None
    assert (together.rank, together.size, together.local_rank, together.attempt) == (3, 4, 1, 2)
    monkeypatch.setenv("RANK", "three")
    with pytest.raises(SpecError, match="RANK, which torchrun sets, should be a number, but is 'three'"):
        launch()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["eval", "--shard", "1/2", "--run-dir", "r"], "--shard is for processes that are started independently"),
        *(
            (
                arguments,
                f"freqrobust {arguments[0]} is done by one process, but torchrun started several; start it without",
            )
            for arguments in (
                ["merge", "r"],
                ["analyze", "spectrum", "--out", "spectrum.png"],
                ["verify", "saved", "--model", "net.pt"],
                ["reproduce", "linear-regions"],
                ["report", "runs/a", "--as", "a.html"],
                ["runs", "prune"],
            )
        ),
    ],
)
def test_what_several_processes_cannot_do(
    rejected: Callable[..., str], monkeypatch: pytest.MonkeyPatch, arguments: list[str], expected: str
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert expected in rejected(*arguments)


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2, 3])
def test_the_report_is_that_of_one_process(workspace: Path, command: Command, processes: int) -> None:
    write_code(workspace)
    options = ["eval", *MODELS, *flags(OPTIONS), "--diagnose"]
    done = finished(together(*options, "--run-dir", "shared", processes=processes))
    assert command(*options, "--run-dir", "alone").code == 0
    assert without_times(Path("shared/report.json")) == without_times(Path("alone/report.json"))
    assert done.stdout.count("Verdicts on the robust accuracies") == 1
    assert done.stderr.count("report: shared/report.json") == 1
    assert done.stderr.count("evaluating 2 models") == 1
    listed = json.loads(command("runs", "--dir", ".", "--json", "-").out)
    assert {Path(row["path"]).name: (row["status"], row["other_files"]) for row in listed}["shared"] == ("finished", [])


@pytest.mark.slow
def test_the_store_of_the_first_process(workspace: Path, command: Command) -> None:
    """Where the agent of torchrun does not lend its own."""
    write_code(workspace)
    options = ["eval", *MODELS, "--attack", "fgsm:eps=0.1"]
    done = finished(together(*options, "--run-dir", "shared"), TORCH_DISABLE_SHARE_RDZV_TCP_STORE="1")
    assert command(*options, "--run-dir", "alone").code == 0
    assert without_times(Path("shared/report.json")) == without_times(Path("alone/report.json"))
    assert "ended" not in done.stderr


@pytest.mark.slow
def test_a_killed_process_is_started_again(workspace: Path, command: Command, trained: Path, digits: Path) -> None:
    write_code(workspace)
    options = ["eval", "--model", trained, "--data", digits, "--batch-size", "4", "--attack", "plugins.py:Dies"]
    finished(together(*options, "--run-dir", "shared", restarts=2))
    batches = [line.split() for line in Path("batches").read_text().splitlines()]
    killed = Path("killed").read_text()
    assert [attempt for attempt, _ in batches] == sorted(attempt for attempt, _ in batches)
    assert killed in {process for attempt, process in batches if attempt == "0"}
    assert killed not in {process for attempt, process in batches if attempt == "1"}
    assert batches[-1][0] == "1"
    assert command(*options, "--run-dir", "alone").code == 0
    assert without_times(Path("shared/report.json")) == without_times(Path("alone/report.json"))


@pytest.mark.slow
def test_a_gate_that_failed_fails_torchrun_and_is_not_tried_again(
    workspace: Path, command: Command, trained: Path, digits: Path
) -> None:
    options = ["eval", "--model", trained, "--data", digits, "--attack", "fgsm:eps=0.3", "--run-dir", "shared"]
    done = finished(together(*options, "--fail-under", "clean>=0.5"))
    assert "passed" in done.stdout
    done = finished(together(*options, "--fail-under", "fgsm:eps=0.3>=0.999", restarts=2), code=1)
    assert done.stderr.count("exit code 1") == 1
    assert "Traceback" not in done.stdout
    record = json.loads(Path("shared/report.json").read_text())["gate"]
    assert record["passed"] is False


@pytest.mark.slow
def test_wrong_input_is_one_message(workspace: Path) -> None:
    done = finished(together("eval", "--model", "missing.pt", "--data", "digits", "--run-dir", "shared"), code=1)
    assert done.stderr.count("freqrobust: ") == 1
    assert not Path("shared").exists()


@pytest.mark.slow
def test_defenses_are_trained_once(workspace: Path, command: Command) -> None:
    write_code(workspace)
    options = ["eval", "--model", "nets.py:first", "--data", "digits", "--train-data", "digits", "--limit", "48"]
    options += ["--defense", "madry:epochs=1,steps=1", "--attack", "fgsm:eps=0.1", "--verbose"]
    done = finished(together(*options, "--run-dir", "shared"))
    assert len(list(Path("shared/models").glob("*.pt"))) == 1
    assert command(*options, "--run-dir", "alone", "--cache-dir", "alone").code == 0
    assert without_times(Path("shared/report.json")) == without_times(Path("alone/report.json")), done.stderr


@pytest.mark.slow
def test_check_in_several_processes(workspace: Path, trained: Path, digits: Path) -> None:
    (workspace / "freqrobust.toml").write_text(
        f'[eval]\nmodel = ["{trained}"]\ndata = "{digits}"\nattacks = ["fgsm:eps=0.1"]\n[thresholds]\nclean = 0.5\n'
    )
    done = finished(together("check", "--run-dir", "shared"))
    assert done.stderr.count("checking what freqrobust.toml describes") == 1
    assert json.loads(Path("shared/report.json").read_text())["gate"]["passed"] is True
    refused = finished(together("check", "--sequential"), code=1)
    assert "--sequential looks at the samples one after the other" in refused.stderr


def test_sequential_checks_are_not_shared(
    command: Command, workspace: Path, monkeypatch: pytest.MonkeyPatch, trained: Path, digits: Path
) -> None:
    (workspace / "freqrobust.toml").write_text(
        f'[eval]\nmodel = ["{trained}"]\ndata = "{digits}"\nattacks = ["fgsm:eps=0.1"]\n[thresholds]\nclean = 0.5\n'
    )
    monkeypatch.setenv("WORLD_SIZE", "2")
    result = command("check", "--sequential")
    assert result.code == 2
    assert "--sequential looks at the samples one after the other" in result.error
