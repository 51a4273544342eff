"""``freqrobust eval --shard`` and ``freqrobust merge``."""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from freqrobust.core import files
from freqrobust.core.config import EvalConfig
from freqrobust.core.errors import SharingError
from freqrobust.core.files import exclusive
from freqrobust.core.progress import Silent
from freqrobust.harness.evaluate import Evaluation
from freqrobust.harness.sharing import Shard
from support.command import Result
from support.shared_runs import (
    NETWORKS,
    OPTIONS,
    calls_begun,
    calls_passing,
    flags,
    small_blocks,
    without_times,
    write_code,
)
from support.waiting import PATIENCE, wait_until

Command = Callable[..., Result]
QUICK = ["--attack", "fgsm:eps=[0.05,0.1]", "--attack", "lfc:radius=2"]
#: More calls of an attack than there are.
ALL = 10**6

TRAINED = """
from freqrobust import load_model

def trained():
    return load_model({path!r})
"""


@pytest.fixture(autouse=True)
def _small_blocks() -> Iterator[None]:
    with small_blocks():
        yield


@pytest.fixture
def shards(base: list[str], command: Command) -> Callable[..., Path]:
    """Measure all shards of a small run, in the given order; the run directory."""

    def run(*numbers: int, of: int = 2, folder: str = "shared", options: list[str] = QUICK) -> Path:
        for number in numbers:
            result = command(*base, *options, "--shard", f"{number}/{of}", "--run-dir", folder)
            assert result.code == 0, result.err
        return Path(folder)

    return run


def test_the_merged_report_is_that_of_one_process(
    base: list[str], command: Command, shards: Callable[..., Path]
) -> None:
    assert command(*base, *QUICK, "--defense", "smooth", "--run-dir", "alone").code == 0
    folder = shards(3, 1, 2, of=3, options=[*QUICK, "--defense", "smooth"])
    assert not (folder / "report.json").exists()
    first = command("merge", folder, "--json", "merged.json")
    assert first.code == 0, first.err
    assert without_times(folder / "report.json") == without_times(Path("alone/report.json"))
    assert without_times(Path("merged.json")) == without_times(folder / "report.json")
    before = {path: path.stat().st_mtime_ns for path in (folder / "cells").iterdir()}
    (folder / "claims" / f"{'0' * 32}.lock").touch()  # of a process that was killed
    assert command("merge", folder).code == 0
    assert {path: path.stat().st_mtime_ns for path in (folder / "cells").iterdir()} == before
    again = command(*base, *QUICK, "--defense", "smooth", "--run-dir", folder)
    assert again.code == 0
    assert {path: path.stat().st_mtime_ns for path in (folder / "cells").iterdir()} == before
    listed = json.loads(command("runs", "--dir", ".", "--json", "-").out)
    assert {Path(row["path"]).name: (row["status"], row["other_files"]) for row in listed}["shared"] == ("finished", [])


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("depth", ["quick", "full"])
def test_every_kind_of_task_in_any_order(workspace: Path, command: Command, count: int, depth: str) -> None:
    write_code(workspace)
    models = ["--model", "nets.py:first", "--model", "nets.py:second", "--data", "digits"]
    options = [*models, *flags(OPTIONS), *(["--diagnose"] if depth == "full" else [])]
    assert command("eval", *options, "--run-dir", "alone").code == 0
    order = random.Random(count).sample(range(1, count + 1), count)
    for number in order:
        assert command("eval", *options, "--shard", f"{number}/{count}", "--run-dir", "shared").code == 0
    merged = command("merge", "shared")
    assert merged.code == 0, merged.err
    assert without_times(Path("shared/report.json")) == without_times(Path("alone/report.json"))


def test_missing_shards_are_named(command: Command, shards: Callable[..., Path]) -> None:
    folder = shards(2, of=3)
    result = command("merge", folder)
    assert result.code == 2
    assert "shard 1 of 3 was not started" in result.error
    assert "shard 3 of 3 was not started" in result.error
    assert "freqrobust eval --shard 1/3 --run-dir shared" in result.error
    record = folder / "shards" / "2-of-3.json"
    assert json.loads(record.read_text())["state"] == "finished"
    for path in (folder / "cells").iterdir():
        path.unlink()
    assert "shard 2 of 3 has not finished" in command("merge", folder).error
    assert not (folder / "report.json").exists()


def test_a_directory_without_shards_cannot_be_merged(
    command: Command, base: list[str], rejected: Callable[..., str]
) -> None:
    assert "has no plan.json" in rejected("merge", "nothing")
    assert command(*base, *QUICK, "--run-dir", "alone", "--quiet").code == 0
    assert "has no plan.json" in command("merge", "alone").error


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        (["--seed", "1"], "seed 1 instead of 0"),
        (["--first", "20"], "(20 samples) instead of"),
        (["--attack", "fgsm:eps=0.3"], "attacks fgsm:eps=0.3"),
        (["--defense", "smooth"], "defenses smooth"),
        (["--no-oblivious"], "oblivious False instead of True"),
        (["--precision", "bf16"], "precision bf16 instead of fp32"),
    ],
)
def test_another_evaluation_is_refused(
    base: list[str], command: Command, shards: Callable[..., Path], other: list[str], expected: str
) -> None:
    folder = shards(1)
    for part in (["--shard", "2/2"], []):
        result = command(*base, *QUICK, *other, *part, "--run-dir", folder)
        assert result.code == 2
        assert expected in result.error
        assert "plan.json" in result.error
    assert not (folder / "report.json").exists()


def test_another_number_of_shards_is_refused(base: list[str], command: Command, shards: Callable[..., Path]) -> None:
    folder = shards(1)
    assert "3 shards instead of 2" in command(*base, *QUICK, "--shard", "2/3", "--run-dir", folder).error


def test_shards_of_other_code_are_refused(
    base: list[str], command: Command, shards: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shards(1)
    monkeypatch.setattr("freqrobust.harness.shared_plan.engine_hash", lambda: "0123456789abcdef")
    result = command(*base, *QUICK, "--shard", "2/2", "--run-dir", folder)
    assert result.code == 2
    assert "code of freqrobust 0123456789ab instead of" in result.error
    plan = json.loads((folder / "plan.json").read_text())
    plan["identity"]["attacks"] = [text[:-9] + "00000000)" for text in plan["identity"]["attacks"]]
    (folder / "plan.json").write_text(json.dumps(plan))
    error = command(*base, *QUICK, "--shard", "2/2", "--run-dir", folder).error
    assert "attacks" not in error  # their code differs because that of freqrobust does
    assert "need the same options, data and version" in error


def test_shards_on_separate_disks(base: list[str], command: Command, shards: Callable[..., Path]) -> None:
    """As in a matrix of CI jobs, whose directories are put together afterwards; no shard has seen all cells."""
    for number in (1, 2):
        shards(number, folder=f"part{number}")
        shutil.copytree(f"part{number}", "whole", dirs_exist_ok=True)
    assert command("merge", "whole").code == 0
    assert command(*base, *QUICK, "--run-dir", "alone").code == 0
    assert without_times(Path("whole/report.json")) == without_times(Path("alone/report.json"))
    shards(1, folder="other", options=[*QUICK, "--seed", "1"])
    shutil.copy("other/shards/1-of-2.json", "whole/shards")
    result = command("merge", "whole")
    assert result.code == 2
    assert "shard 1 of 2 does not fit whole/plan.json: seed 1 instead of 0" in result.error


def test_a_directory_is_used_by_one_kind_of_run_at_a_time(
    base: list[str], command: Command, shards: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shards(1)
    monkeypatch.setattr(files, "PATIENCE", 0.0)
    with exclusive(folder):  # another process that evaluates everything
        shard = command(*base, *QUICK, "--shard", "2/2", "--run-dir", folder)
        whole = command(*base, *QUICK, "--run-dir", folder)
    assert "another process evaluates everything into shared" in shard.error
    assert "another process measures into shared" in whole.error
    with exclusive(folder / "shards" / "1-of-2.lock"):
        same = command(*base, *QUICK, "--shard", "1/2", "--run-dir", folder)
        whole = command(*base, *QUICK, "--run-dir", folder)
        merged = command("merge", folder)
    assert "another process is shard 1/2 in shared" in same.error
    assert "shard 1 of 2 is running in shared" in whole.error
    assert "shard 2 of 2 was not started" in merged.error
    assert "--shard 2/2" in merged.error
    (folder / "shards" / "workers.lock").touch()
    with exclusive(folder / "shards" / "workers.lock"):
        assert (
            "processes of torchrun measure into shared"
            in command(*base, *QUICK, "--shard", "2/2", "--run-dir", folder).error
        )


def test_a_plugin_that_fails_in_one_shard(workspace: Path, command: Command, base: list[str]) -> None:
    write_code(workspace)
    options = [*base[1:], "--attack", "plugins.py:Fails", "--attack", "fgsm:eps=0.1"]
    assert command("eval", *options, "--run-dir", "alone").code == 3
    for number in (1, 2):
        result = command("eval", *options, "--shard", f"{number}/2", "--run-dir", "shared")
        assert result.code == 0  # the report says what failed, and keeps the other cells
    merged = command("merge", "shared")
    assert merged.code == 3
    assert without_times(Path("shared/report.json")) == without_times(Path("alone/report.json"))
    failed = [
        cell for cell in json.loads(Path("shared/report.json").read_text())["cells"] if cell["status"] == "failed"
    ]
    assert [cell["attack"] for cell in failed] == ["Fails"]
    assert "it cannot be done" in failed[0]["error"]
    listed = [one for n in (1, 2) for one in json.loads(Path(f"shared/shards/{n}-of-2.json").read_text())["failures"]]
    assert listed
    assert all("it cannot be done" in one["error"] for one in listed)
    (workspace / "works").touch()  # it does now, and the shards are run again
    for number in (1, 2):
        assert command("eval", *options, "--shard", f"{number}/2", "--run-dir", "shared").code == 0
    assert command("merge", "shared").code == 0
    assert not any(Path("shared/failures").iterdir())


def test_the_gate_judges_the_merged_report(command: Command, shards: Callable[..., Path]) -> None:
    folder = shards(1, 2)
    assert command("merge", folder, "--fail-under", "clean>=0.5").code == 0
    failed = command("merge", folder, "--fail-under", "fgsm:eps=0.1>=0.999", "--report", "gate.md", "--quiet")
    assert failed.code == 1
    assert "fgsm" in failed.err
    assert Path("gate.md").exists()
    assert json.loads((folder / "report.json").read_text())["gate"]["passed"] is False
    assert command("merge", folder, "--fail-under", "nothing>=0.5").code == 2


def test_a_merge_in_another_directory(
    command: Command, shards: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, workspace: Path, digits: Path
) -> None:
    """Relative paths in the plan are relative to where the shards were started; other places can be given."""
    shutil.copy(digits, "own.npz")
    folder = shards(1, 2, options=[*QUICK, "--data", "own.npz"])
    (workspace / "below").mkdir()
    monkeypatch.chdir(workspace / "below")
    assert command("merge", Path("..") / folder).code == 0
    shutil.move("../own.npz", "moved.npz")
    assert command("merge", Path("..") / folder).code == 2
    assert command("merge", Path("..") / folder, "--data", "moved.npz").code == 0


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "a/b", "1/0", "-1/2", "1/2/3", "", "1/99999999", "\u00b2/3"])
def test_wrong_shards(base: list[str], rejected: Callable[..., str], text: str) -> None:
    assert "--shard should be K/N with K from 1 to N" in rejected(*base, "--shard", text, "--run-dir", "shared")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], "--shard needs --run-dir"),
        (["--run-dir", "r", "--json", "r.json"], "give --json to 'freqrobust merge'"),
        (["--run-dir", "r", "--report", "r.html"], "give --report to 'freqrobust merge'"),
        (["--run-dir", "r", "--fail-under", "clean>=0.5"], "give --fail-under to 'freqrobust merge'"),
        (["--run-dir", "r", "--full"], "give --full to 'freqrobust merge'"),
        (["--run-dir", "r", "--save-adversarial", "a"], "give either --shard or --save-adversarial"),
        (["--run-dir", "r", "--save-model", "m.pt"], "give either --shard or --save-model"),
    ],
)
def test_what_a_shard_cannot_do(
    base: list[str], rejected: Callable[..., str], options: list[str], expected: str
) -> None:
    assert expected in rejected(*base, "--shard", "1/2", *options)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"identity": 1}', "\x00"])
def test_a_damaged_plan(base: list[str], command: Command, shards: Callable[..., Path], content: str) -> None:
    folder = shards(1)
    (folder / "plan.json").write_text(content)
    for arguments in ([*base, *QUICK, "--shard", "2/2", "--run-dir", folder], ["merge", folder]):
        result = command(*arguments)
        assert result.code == 2
        assert "plan.json" in result.error
        assert "Traceback" not in result.err


def test_in_python(demo: Any) -> None:
    options = EvalConfig(attacks=["fgsm:eps=0.1"], limit=40)
    with pytest.raises(SharingError, match="shards need a run directory"):
        Evaluation(demo, "digits", options, Silent()).report(Shard(1, 2))
    with pytest.raises(SharingError, match="K from 1 to N"):
        Shard(3, 2)


@pytest.fixture
def waiting_shards(
    workspace: Path, command: Command, start: Callable[..., Any], trained: Path, digits: Path
) -> Callable[[int], subprocess.Popen[str]]:
    """Start a shard of two in a process of its own, in which no attack ends until a test lets it pass.

    ``alone`` is the run directory of one process that measured everything, and ``calls`` are those of its attack.
    """
    write_code(workspace)  # another process has small blocks as well
    (workspace / "nets.py").write_text(f"{NETWORKS}\n{TRAINED.format(path=str(trained))}")
    options = ["--model", "nets.py:trained", "--data", str(digits), "--attack", "plugins.py:Waits"]
    calls_passing(ALL)
    assert command("eval", *options, "--run-dir", "alone").code == 0
    Path("begun").replace("calls")
    calls_passing(0)
    return lambda number: start("eval", *options, "--shard", f"{number}/2", "--run-dir", "shared")


def begins_its_attack(running: subprocess.Popen[str]) -> None:
    """Wait until a process is inside of its first call of the attack, where it stays."""
    wait_until(lambda: running.pid in calls_begun(), running)


def kill(running: subprocess.Popen[str]) -> None:
    running.send_signal(signal.SIGKILL)
    assert running.wait(PATIENCE) == -signal.SIGKILL


def ends(running: subprocess.Popen[str]) -> None:
    """From now on all calls pass, and the shard ends."""
    calls_passing(ALL)
    assert running.wait(PATIENCE) == 0


def assert_same_report_as_alone(command: Command) -> None:
    """The merged one; only the call of the attack that was killed was made once more."""
    assert command("merge", "shared").code == 0
    assert without_times(Path("shared/report.json")) == without_times(Path("alone/report.json"))
    assert len(calls_begun()) == len(Path("calls").read_text().splitlines()) + 1
    assert list(Path("shared/claims").iterdir()) == []


def of_shard(number: int) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path(f"shared/shards/{number}-of-2.json").read_text())
    return found


@pytest.mark.slow
def test_what_a_killed_shard_has_left_is_measured_by_the_next(
    command: Command, waiting_shards: Callable[[int], subprocess.Popen[str]]
) -> None:
    first = waiting_shards(1)
    begins_its_attack(first)
    assert len(list(Path("shared/cells").glob("*.json"))) > 0
    assert "shard 1 of 2 is still running" in command("merge", "shared").error
    kill(first)
    missing = command("merge", "shared")
    assert missing.code == 2
    assert "shard 1 of 2 has not finished" in missing.error
    assert "shard 2 of 2 was not started" in missing.error
    ends(waiting_shards(2))
    assert of_shard(1)["state"] == "running"  # as it was killed
    assert of_shard(2)["taken_over"] > 0
    assert_same_report_as_alone(command)
    listed = json.loads(command("runs", "--dir", ".", "--json", "-").out)
    assert {Path(row["path"]).name: (row["status"], row["other_files"]) for row in listed}["shared"] == ("finished", [])


@pytest.mark.slow
def test_of_two_shards_that_run_at_the_same_time_one_is_killed(
    command: Command, waiting_shards: Callable[[int], subprocess.Popen[str]]
) -> None:
    first, second = waiting_shards(1), waiting_shards(2)
    for one in (first, second):
        begins_its_attack(one)
    kill(first)
    ends(second)
    assert of_shard(2)["taken_over"] > 0
    assert_same_report_as_alone(command)


@pytest.mark.slow
def test_a_shard_that_was_killed_is_run_again(
    command: Command, waiting_shards: Callable[[int], subprocess.Popen[str]]
) -> None:
    first = waiting_shards(1)
    begins_its_attack(first)
    kill(first)
    for number in (1, 2):
        ends(waiting_shards(number))
    assert [of_shard(number)["taken_over"] for number in (1, 2)] == [0, 0]
    assert_same_report_as_alone(command)
