"""What is shown of a training in a terminal."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pytest
import torch

from freqrobust import load_data
from freqrobust.core.progress import Screen, Silent, as_progress, describe, describes, fitted
from freqrobust.experiments.epoch_lines import WIDTH, epoch_line, live_parts
from freqrobust.models.architectures import SmallCNN
from freqrobust.results.training_record import EpochRecord, ProbeResult, Share
from freqrobust.training import loop
from freqrobust.training.plan import sgd_plan

CODES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def probe(label: str, kind: str, train: int, held_out: int | None) -> ProbeResult:
    shares = {"train": Share.of(train, 100), "held_out": Share.of(held_out, 100) if held_out is not None else None}
    return ProbeResult(name=f"{label}:x=1", label=label, kind=kind, chance=0.1, **shares)


def record(*probes: ProbeResult, **changes: object) -> EpochRecord:
    values = {"epoch": 3, "loss": 1.2345, "accuracy": 0.45, "learning_rate": 0.1, "seconds": 2.0, "probe_seconds": 1.25}
    return EpochRecord(**{**values, "probes": list(probes), **changes})


CLEAN, PGD = probe("clean", "clean", 71, 64), probe("pgd", "adversarial", 40, 31)
LFC, HFC = probe("lfc", "shift", 55, 50), probe("hfc", "shift", 12, 11)


def test_an_epoch_is_one_line() -> None:
    line = epoch_line(record(CLEAN, LFC, HFC, PGD, best=True), 30)
    assert line == "epoch 3/30*: loss 1.234, clean 71/64, lfc 55/50, hfc 12/11, pgd 40/31, 3.2 s"
    assert epoch_line(record(seconds=200.0), 3) == "epoch 3/3: loss 1.234, accuracy on training batches 45.0%, 3:21 min"
    assert epoch_line(record(probe("clean", "clean", 71, None)), 3) == "epoch 3/3: loss 1.234, clean 71, 3.2 s"


def test_what_does_not_fit_is_left_out() -> None:
    perfect = [
        probe(name, kind, 100, 100) for name, kind in (("clean", "clean"), ("pgd", "adversarial"), ("lfc", "shift"))
    ]
    three = epoch_line(record(*perfect, epoch=100, seconds=999.0, best=True), 100)
    assert three == "epoch 100/100*: loss 1.234, clean 100/100, pgd 100/100, lfc 100/100, 16:40 min"
    assert len(three) <= WIDTH
    many = [probe(f"lfc:{radius}", "shift", 30, 20) for radius in range(20)]
    line = epoch_line(record(CLEAN, *many, HFC, PGD), 30)
    assert len(line) <= WIDTH
    assert line == "epoch 3/30: loss 1.234, clean 71/64, lfc:0 30/20, hfc 12/11, pgd 40/31, 3.2 s"
    assert "\n" not in epoch_line(record(probe("a\nb", "shift", 1, 1)), 3)


def test_the_live_display_has_the_latest_value_of_every_probe() -> None:
    assert live_parts([record(CLEAN, PGD), record(probe("clean", "clean", 80, 70), LFC)]) == [
        "pgd 31",
        "lfc 50",
        "clean 70",
    ]
    assert live_parts([record(probe("lfc", "shift", 55, None))]) == ["lfc 55"]
    assert live_parts([]) == []


@pytest.mark.parametrize(
    ("room", "expected"),
    [(100, "epoch 1/2, loss 1.2, lfc 41"), (19, "epoch 1/2, loss 1.2"), (18, "epoch 1/2"), (5, "epoch"), (-3, "")],
)
def test_parts_are_fitted_from_the_first(room: int, expected: str) -> None:
    assert fitted(["epoch 1/2", "loss 1.2", "lfc 41"], room) == expected
    assert fitted([], room) == ""


def display(capsys: pytest.CaptureFixture[str], width: int, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What a terminal of that width shows of an epoch."""
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("FORCE_COLOR", "1")  # stands for a terminal
    monkeypatch.setenv("TERM", "xterm")
    with Screen(quiet=False) as screen:
        screen.begin("training: epoch 12/100", 50_000)
        screen.advance(12_800)
        screen.describe(["training 12/100", "loss 1.234", "acc 46%", "pgd 31", "lfc 41", "hfc 10", "clean 64"])
        screen.bar.refresh()
        screen.end("done")
    text = CODES.sub("", capsys.readouterr().err)
    return [line.rstrip() for line in re.split(r"[\r\n]+", text) if line.strip()]


def test_the_live_line_fits_a_terminal_of_80_columns(capsys, monkeypatch) -> None:
    lines = display(capsys, 80, monkeypatch)
    assert any(line.startswith("training 12/100, loss 1.234, acc 46%, pgd 31, lfc 41, hfc 10 ━") for line in lines), (
        lines
    )
    assert all(len(line) <= 80 for line in lines)
    assert "done" in lines


def test_a_wide_terminal_has_room_for_counts_and_times(capsys, monkeypatch) -> None:
    lines = display(capsys, 120, monkeypatch)
    assert any("hfc 10, clean 64 ━" in line and "12800/50000" in line for line in lines), lines
    assert all(len(line) <= 120 for line in lines)


def test_without_a_terminal_there_is_one_line_for_an_epoch(capsys: pytest.CaptureFixture[str]) -> None:
    with Screen(quiet=False) as screen:
        screen.describe(["before anything runs"])
        screen.begin("training: epoch 1/1", 100)
        screen.describe(["training 1/1", "loss 1.2"])
        screen.end("epoch 1/1: loss 1.2")
    assert capsys.readouterr().err == "epoch 1/1: loss 1.2\n"


class Watch(Silent):
    """Keeps what the loop says about the running epoch."""

    def __init__(self) -> None:
        self.said: list[list[str]] = []

    def describe(self, parts: Sequence[str]) -> None:
        self.said.append(list(parts))


def test_the_loop_describes_the_running_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "_LIVE", 0.0)
    monkeypatch.setattr(loop, "_FIRST", 0.0)
    data = load_data("digits", split="train", limit=48)
    watch = Watch()
    training = loop.Training(SmallCNN(), data, sgd_plan(2, 0.01, batch_size=16), device=torch.device("cpu"))
    training.remarks = ["lfc 41"]
    numbers = training.run_epoch(watch)
    assert watch.said[0] == ["training 1/2", "lfc 41"]
    assert len(watch.said) == 1 + 3
    assert watch.said[-1] == ["training 1/2", f"loss {numbers.loss:.3f}", f"acc {numbers.accuracy:.0%}", "lfc 41"]


def test_progress_objects_need_no_descriptions() -> None:
    with as_progress(Silent()) as silent:
        assert not describes(silent)
        describe(silent, ["nothing"])
    assert describes(Watch())


def test_a_new_piece_of_work_has_all_columns_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("FORCE_COLOR", "1")
    with Screen(quiet=False) as screen:
        screen.begin("first", 10)
        screen.describe(["training 1/2"])
        assert len(screen.bar.columns) < len(screen.columns)
        screen.begin("second", 10)
        assert screen.bar.columns == screen.columns
        assert screen.bar.tasks[-1].description == "second"
