"""The log of a training, with lines that were cut at any place."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from freqrobust.core.errors import JournalError
from freqrobust.experiments.log import Log
from freqrobust.results.training_record import EpochRecord, ProbeResult, Share

WRITER = """
import sys
from freqrobust.experiments.log import Log
from freqrobust.results.training_record import EpochRecord
log = Log(sys.argv[1])
for epoch in range(1, 1_000_000):
    log.append(EpochRecord(epoch=epoch, loss=1.0, accuracy=0.5, learning_rate=0.1, seconds=1.0))
    print(epoch, flush=True)
"""


def record(epoch: int) -> EpochRecord:
    share = Share.of(epoch, 100)
    probe = ProbeResult(name="lfc:radius=2", label="lfc", kind="shift", train=share, chance=0.1)
    return EpochRecord(epoch=epoch, loss=1 / 3, accuracy=0.5, learning_rate=0.1, seconds=0.25, probes=[probe])


@pytest.fixture
def log(tmp_path: Path) -> Log:
    made = Log(tmp_path / "run" / "log.jsonl")
    for epoch in (1, 2, 3):
        made.append(record(epoch))
    return made


def test_epochs_come_back_as_they_were_written(log: Log, tmp_path: Path) -> None:
    assert log.records() == [record(1), record(2), record(3)]
    assert len(log.path.read_text().splitlines()) == 3
    assert Log(tmp_path / "none.jsonl").records() == []
    assert Log(tmp_path / "none.jsonl").rewind(3) == []
    assert not (tmp_path / "none.jsonl").exists()


def test_a_line_that_was_cut_anywhere_is_ignored_and_removed(log: Log) -> None:
    whole = log.path.read_bytes()
    start = len(b"".join(whole.splitlines(keepends=True)[:2]))
    for cut in [*range(start, len(whole), 7), len(whole) - 1]:
        log.path.write_bytes(whole[:cut])
        assert log.records() == [record(1), record(2)]
        log.append(record(3))
        assert log.path.read_bytes() == whole


def test_rewinding_drops_later_epochs_and_incomplete_lines(log: Log) -> None:
    with log.path.open("ab") as file:
        file.write(b'{"epoch": 4, "lo')
    assert log.rewind(3) == [record(1), record(2), record(3)]
    assert log.path.read_bytes().endswith(b"}\n")
    assert log.rewind(1) == log.records() == [record(1)]
    assert log.rewind(0) == log.records() == []
    assert list(log.path.parent.iterdir()) == [log.path]


def test_a_long_incomplete_line_is_removed(log: Log) -> None:
    whole = log.path.read_bytes()
    with log.path.open("ab") as file:
        file.write(b"x" * 200_000)
    assert log.records() == [record(1), record(2), record(3)]
    log.append(record(4))
    assert log.path.read_bytes() == whole + (record(4).model_dump_json() + "\n").encode()


@pytest.mark.parametrize(
    ("line", "problem"),
    [("{", "Invalid JSON"), ('{"epoch": 1}', "loss: Field required"), ("", "Invalid JSON"), ("\xff", "Invalid JSON")],
)
def test_a_whole_line_that_is_no_epoch_is_an_error(log: Log, line: str, problem: str) -> None:
    lines = log.path.read_bytes().splitlines(keepends=True)
    log.path.write_bytes(lines[0] + line.encode("latin1") + b"\n" + lines[1])
    with pytest.raises(
        JournalError, match=rf"log.jsonl, line 2: expected the record of an epoch as JSON, but {problem}"
    ):
        log.records()


def test_a_full_disk_leaves_the_lines_from_before(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    before, write, calls = log.path.read_bytes(), os.write, []

    def full(handle: int, data: bytes) -> int:
        if calls:
            raise OSError(errno.ENOSPC, "No space left on device")
        calls.append(handle)
        return write(handle, data[:10])

    monkeypatch.setattr("freqrobust.experiments.log.os.write", full)
    with pytest.raises(JournalError, match=r"cannot write .*log\.jsonl: No space left on device"):
        log.append(record(4))
    assert log.path.read_bytes() == before


def test_a_line_that_the_system_takes_in_pieces_is_whole(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr("freqrobust.experiments.log.os.write", lambda handle, data: write(handle, data[:7]))
    log.append(record(4))
    assert log.records() == [record(epoch) for epoch in (1, 2, 3, 4)]


def test_a_folder_in_the_place_of_the_log_is_an_error(tmp_path: Path) -> None:
    for use in (Log(tmp_path).records, lambda: Log(tmp_path).append(record(1))):
        with pytest.raises(JournalError, match="Is a directory"):
            use()


def test_a_kill_loses_no_epoch_that_was_reported(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    with subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        reported = [int(process.stdout.readline()) for _ in range(20)]
        process.send_signal(signal.SIGKILL)
        reported += [int(line) for line in process.stdout.read().splitlines()]
    found = [one.epoch for one in Log(path).records()]
    assert found[: len(reported)] == reported
    assert found == list(range(1, len(found) + 1))
