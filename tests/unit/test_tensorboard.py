"""Events of a training for TensorBoard."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import pytest

from freqrobust.core.errors import JournalError, SpecError
from freqrobust.experiments.tensorboard import Events, can_write, scalars
from freqrobust.results.training_record import EpochRecord, ProbeResult, Share


def record(epoch: int, held_out: bool = True) -> EpochRecord:
    shares = {"train": Share.of(3, 4), "held_out": Share.of(1, 4) if held_out else None}
    probe = ProbeResult(name="pgd:eps=2/255", label="pgd 2/255,x=[1]", kind="adversarial", chance=0.1, **shares)
    numbers = {"loss": float(epoch), "accuracy": 0.5, "learning_rate": 0.1, "seconds": 2.0, "probe_seconds": 1.0}
    return EpochRecord(epoch=epoch, probes=[probe], **numbers)


class Writer:
    """Keeps what it is given."""

    def __init__(self, **given: Any) -> None:
        self.given, self.values, self.flushed, self.closed = given, [], 0, False

    def add_scalar(self, *value: Any) -> None:
        self.values.append(value)

    def flush(self) -> None:
        self.flushed += 1

    def close(self) -> None:
        self.closed = True


def test_scalars_of_an_epoch() -> None:
    assert scalars(record(2)) == {
        "training/loss": 2.0,
        "training/accuracy": 0.5,
        "training/learning rate": 0.1,
        "seconds/epoch": 2.0,
        "seconds/probes": 1.0,
        "train/pgd 2/255_x__1_": 0.75,
        "held-out/pgd 2/255_x__1_": 0.25,
    }
    assert not any(tag.startswith("held-out") for tag in scalars(record(2, held_out=False)))


def test_events_go_to_the_writer_with_the_epoch_as_step(tmp_path: Path) -> None:
    made: list[Writer] = []
    events = Events(tmp_path, 4, make=lambda **given: made.append(Writer(**given)) or made[-1])
    events.add(record(5))
    events.close()
    writer = made[0]
    assert writer.given == {"log_dir": str(tmp_path), "purge_step": 5}
    assert ("training/loss", 5.0, 5) in writer.values
    assert {step for _, _, step in writer.values} == {5}
    assert (writer.flushed, writer.closed) == (1, True)


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    def fails(**given: Any) -> Writer:
        raise NotADirectoryError(20, "Not a directory")

    with pytest.raises(JournalError, match=r"cannot write .*: Not a directory"):
        Events(tmp_path, make=fails)
    events = Events(tmp_path, make=Writer)
    events._writer.add_scalar = lambda *value: fails()
    with pytest.raises(JournalError, match=r"cannot write .*: Not a directory"):
        events.add(record(1))


def test_an_installation_that_cannot_be_imported_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(
        SpecError, match=r"tensorboard is installed, but cannot be imported \(ModuleNotFoundError: .*\); install"
    ):
        Events(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_resumed_training_has_every_epoch_once(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="the extra 'tensorboard' is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert can_write()
    for finished, epochs in ((0, (1, 2, 3)), (1, (2, 3)), (3, (4,))):  # killed after its third epoch, then resumed
        events = Events(tmp_path, finished)
        for epoch in epochs:
            events.add(record(epoch))
        events.close()
        time.sleep(1.1)  # files are read in the order of their names, which begin with the second
    found = EventAccumulator(str(tmp_path))
    found.Reload()
    assert [(event.step, event.value) for event in found.Scalars("training/loss")] == [
        (n, float(n)) for n in range(1, 5)
    ]
    assert "held-out/pgd 2/255_x__1_" in found.Tags()["scalars"]
