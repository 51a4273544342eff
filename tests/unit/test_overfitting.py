"""When a training is said to show catastrophic overfitting: histories made by hand."""

from __future__ import annotations

from typing import Any

import pytest

from freqrobust import load_data, train
from freqrobust.core.progress import Silent
from freqrobust.experiments.overfitting import catastrophic_overfitting, overfitting_notes
from freqrobust.plugins.registry import methods
from freqrobust.results.training_record import EpochRecord, ProbeResult, Share

PGD = "pgd:eps=8/255,steps=10"
#: Robust until the third epoch, then not at all, while the accuracy under the training attack rises.
COLLAPSED = ([0.2, 0.3, 0.4, 0.01], [0.2, 0.3, 0.35, 0.01])
TRAINED = [0.3, 0.35, 0.4, 0.7]


def history(
    train: list[float],
    held_out: list[float] | None,
    trained: list[float],
    *,
    name: str = PGD,
    n: int = 500,
    classes: int = 10,
) -> list[EpochRecord]:
    """The records of a training whose only adversarial probe has these accuracies."""
    records = []
    for epoch in range(1, len(train) + 1):
        results = []
        for probe, kind, first, second in (
            ("clean", "clean", [0.5] * epoch, [0.5] * epoch),
            (name, "adversarial", train, held_out),
        ):
            parts: dict[str, Any] = {"train": Share.of(round(first[epoch - 1] * n), n)}
            if held_out is not None:
                parts["held_out"] = Share.of(round(second[epoch - 1] * n), n)
            results.append(ProbeResult(name=probe, label=probe, kind=kind, chance=1 / classes, **parts))
        accuracy = trained[epoch - 1]
        records.append(
            EpochRecord(epoch=epoch, loss=1, accuracy=accuracy, learning_rate=0.1, seconds=1, probes=results)
        )
    return records


def said(records: list[EpochRecord], method: str = "rs-fgsm") -> str | None:
    return catastrophic_overfitting(records, methods.parse(method)[0].plugin)


def test_a_collapse_is_reported_with_what_fell_and_what_rose() -> None:
    records = history(*COLLAPSED, TRAINED)
    assert [said(records[:k]) for k in range(4)] == [None] * 4
    assert said(records) == (
        f"catastrophic overfitting: the accuracy under {PGD} fell from 35.0 % (epoch 3) to 1.0 %, and under the training "
        f"attack went from 40.0 % to 70.0 %"
    )
    assert "fell from 40.0 % (epoch 3)" in said(history(COLLAPSED[0], None, TRAINED))


@pytest.mark.parametrize(
    ("why", "records"),
    [
        ("training goes on", history([0.2, 0.3, 0.4, 0.5], [0.2, 0.3, 0.35, 0.36], TRAINED)),
        ("robust overfitting: on held-out samples only", history([0.2, 0.3, 0.4, 0.8], [0.2, 0.3, 0.4, 0.1], TRAINED)),
        ("a drop that is significant, but no collapse", history([0.2, 0.3, 0.6, 0.4], [0.2, 0.3, 0.6, 0.4], TRAINED)),
        ("to less than half, within the interval", history(*COLLAPSED, TRAINED, n=8)),
        ("the training diverged", history(*COLLAPSED, [0.3, 0.35, 0.4, 0.1])),
        ("the constant prediction of the first epoch", history([0.1, 0.0], [0.1, 0.0], [0.1, 0.2])),
        ("a larger budget than in training", history(*COLLAPSED, TRAINED, name="pgd:eps=16/255,steps=10")),
        ("another norm", history(*COLLAPSED, TRAINED, name="pgd:eps=8/255,norm=l2,steps=10")),
        ("no attack", history(*COLLAPSED, TRAINED, name="lfc:radius=4")),
        ("no epoch yet", []),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_catastrophic_overfitting(why: str, records: list[EpochRecord]) -> None:
    assert said(records) is None


def test_it_is_about_methods_with_adversarial_examples() -> None:
    """The accuracy under PGD may well decrease while a natural training proceeds."""
    records = history(*COLLAPSED, TRAINED)
    assert said(records, "natural") is None
    assert said(records, "madry") is not None
    assert said(records, "rs-fgsm:eps=4/255") is None
    assert said(records, "rs-fgsm:eps=16/255") is not None


def test_it_is_said_as_long_as_the_network_has_not_recovered() -> None:
    train, held_out = [0.3, 0.4, 0.01, 0.01, 0.4], [0.3, 0.4, 0.01, 0.01, 0.4]
    records = history(train, held_out, [0.3, 0.35, 0.7, 0.72, 0.73])
    assert [said(records[:k]) is not None for k in range(1, 6)] == [False, False, True, True, False]
    (note,) = overfitting_notes(records, methods.parse("rs-fgsm")[0].plugin)
    assert note.startswith(
        f"Epoch 3 shows catastrophic overfitting: the accuracy under {PGD} fell from 40.0 % (epoch 2)"
    )
    assert overfitting_notes(records[:2], methods.parse("rs-fgsm")[0].plugin) == []


def test_an_epoch_without_the_probe_says_nothing() -> None:
    """Probes may be measured after every fifth epoch only."""
    records = history(*COLLAPSED, TRAINED)
    without = records[-1].model_copy(update={"epoch": 5, "probes": records[-1].probes[:1]})
    assert said([*records, without]) is None


class Said(Silent):
    """Keeps what was said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


def test_train_warns_and_keeps_the_best_epoch(tmp_path, monkeypatch) -> None:
    """A training whose probes are those of a collapse in the third of four epochs, from which it recovers."""
    records = history([0.3, 0.5, 0.01, 0.4], [0.3, 0.5, 0.01, 0.4], [0.0] * 4, name="pgd:eps=0.1,steps=2", n=200)
    monkeypatch.setattr("freqrobust.experiments.train.can_draw", lambda: False)
    monkeypatch.setattr(
        "freqrobust.experiments.train.measure_probes",
        lambda model, probes, epoch, *rest, **more: records[epoch - 1].probes,
    )
    said_by_train = Said()
    run = train(
        data=load_data("digits", split="train", limit=200),
        epochs=4,
        batch_size=20,
        method="rs-fgsm:eps=0.1",
        optimizer="sgd:lr=0.05",
        schedule="constant",
        probe=["pgd:eps=0.1,steps=2"],
        device="cpu",
        out=tmp_path / "run",
        progress=said_by_train,
    )
    (warning,) = [line for line in said_by_train.lines if "overfitting" in line]
    assert warning.startswith(
        "warning: catastrophic overfitting: the accuracy under pgd:eps=0.1,steps=2 fell from 50.0 %"
    )
    assert warning.endswith("; best.pt is of epoch 2")
    assert run.record.best_epoch == 2
    assert len([note for note in run.record.notes if note.startswith("Epoch 3 shows catastrophic overfitting")]) == 1
