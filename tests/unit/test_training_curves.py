"""The picture of a training."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("matplotlib", reason="the extra 'plots' is not installed")

from freqrobust.experiments.training_curves import draw
from freqrobust.results.figures import decode, encode, styled
from freqrobust.results.training_record import EpochRecord, ProbeResult, Share


def probe(name: str, kind: str, correct: int, held_out: bool) -> ProbeResult:
    shares = {"train": Share.of(correct + 20, 200), "held_out": Share.of(correct, 200) if held_out else None}
    return ProbeResult(name=name, label=name, kind=kind, chance=0.1, **shares)


def training(epochs: int, *, held_out: bool = True, every: int = 2, others: bool = True) -> list[EpochRecord]:
    records = []
    for epoch in range(1, epochs + 1):
        probes = [probe("clean", "clean", 10 * epoch, held_out)]
        if others:
            probes.append(probe("lfc:radius=2", "shift", 8 * epoch, held_out))
            if epoch % every == 0:
                probes.append(probe("pgd:eps=8/255", "adversarial", 3 * epoch, held_out))
        numbers = {"loss": 2 / epoch, "accuracy": epoch / 20, "learning_rate": 0.1, "seconds": 1.0}
        records.append(EpochRecord(epoch=epoch, probes=probes, best=epoch in (1, 3), **numbers))
    return records


def drawn(records: list[EpochRecord]):
    with styled():
        figure = draw(records)
        assert len(decode(encode(figure, "png", "curves"))) > 5000
    return figure


def test_panels_have_the_values_of_the_records() -> None:
    records = training(6)
    figure = drawn(records)
    loss, clean, held_out, train = figure.axes
    np.testing.assert_allclose(loss.lines[0].get_ydata(), [record.loss for record in records])
    assert [text.get_text() for text in clean.get_legend().get_texts()] == [
        "training batches",
        "training samples",
        "held-out samples",
    ]
    np.testing.assert_allclose(clean.lines[2].get_ydata(), [0.05 * epoch for epoch in range(1, 7)])
    lfc, pgd = held_out.lines[:2]
    np.testing.assert_allclose(lfc.get_ydata(), [0.04 * epoch for epoch in range(1, 7)])
    assert list(pgd.get_xdata()) == [2, 4, 6]
    np.testing.assert_allclose(train.lines[0].get_ydata(), [0.04 * epoch + 0.1 for epoch in range(1, 7)])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["lfc:radius=2", "pgd:eps=8/255"]


def test_bands_are_the_intervals_and_a_thin_line_is_the_chance_level() -> None:
    records = training(4)
    held_out = drawn(records).axes[2]
    band = held_out.collections[0].get_paths()[0].vertices
    shares = [record.probes[1].held_out for record in records]
    for record, share in zip(records, shares, strict=True):
        assert share is not None
        at_epoch = band[band[:, 0] == record.epoch, 1]
        np.testing.assert_allclose([at_epoch.min(), at_epoch.max()], share.ci95)
    level = [line for line in held_out.lines if list(line.get_ydata()) == [0.1, 0.1]]
    assert len(level) == 1
    assert level[0].get_linewidth() < 1
    best = [line for line in held_out.lines if list(line.get_xdata()) == [3, 3]]
    assert len(best) == 1


@pytest.mark.parametrize(
    ("records", "panels"),
    [
        (training(1), 4),
        (training(3, held_out=False), 3),
        (training(3, others=False), 2),
        ([record.model_copy(update={"probes": []}) for record in training(2)], 2),
    ],
)
def test_what_was_not_measured_has_no_panel(records: list[EpochRecord], panels: int) -> None:
    assert len(drawn(records).axes) == panels


def test_without_epochs_there_is_nothing_to_draw() -> None:
    with pytest.raises(ValueError, match="no epoch"):
        draw([])
