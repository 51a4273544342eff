"""Area Under the Margin by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from freqrobust import ImageData
from freqrobust.core.errors import SpecError
from freqrobust.training.margins import (
    area_under_margin,
    flipped,
    indicator_sets,
    judge,
    margin_recorder,
    margins,
    with_indicators,
)

#: Logits of two samples after three epochs; the first has label 0, the second label 2.
HISTORY = torch.tensor(
    [
        [[1.0, 0.0, 0.5], [0.0, 0.0, 0.0]],
        [[3.0, 1.0, 0.0], [2.0, 0.0, 1.0]],
        [[2.0, 4.0, 0.0], [5.0, 6.0, 1.0]],
    ]
)
LABELS = torch.tensor([0, 2])


def test_aum_of_a_hand_made_history() -> None:
    """Margins 0.5, 2, -2 and 0, -1, -5: their means are 1/6 and -2."""
    history = [margins(logits, LABELS).tolist() for logits in HISTORY]
    assert history == [[0.5, 0.0], [2.0, -1.0], [-2.0, -5.0]]
    np.testing.assert_allclose(area_under_margin(history), [0.5 / 3, -2.0])


def test_margins_of_probabilities() -> None:
    """Two classes with logits a and 0: the difference of the probabilities is tanh(a / 2)."""
    logits = torch.tensor([[1.2, 0.0], [1.2, 0.0]], dtype=torch.float64)
    found = margins(logits, torch.tensor([0, 1]), "softmax")
    torch.testing.assert_close(found, torch.tensor([1.0, -1.0], dtype=torch.float64) * np.tanh(0.6))


def test_the_recorder_measures_all_samples_of_the_data() -> None:
    images = torch.rand(1203, 1, 2, 2, generator=torch.Generator().manual_seed(1))
    data = ImageData(images, torch.arange(1203) % 4, 4)
    network = torch.nn.Flatten()  # the logits are the four pixels
    recorded = margin_recorder(data, torch.device("cpu"))(network)
    pixels = images.flatten(1).double().numpy()
    expected = [row[k] - max(np.delete(row, k)) for row, k in zip(pixels, data.labels.tolist(), strict=True)]
    np.testing.assert_allclose(recorded["logits"], expected)
    odds = np.exp(pixels)
    shares = odds / odds.sum(axis=1, keepdims=True)
    expected = [row[k] - max(np.delete(row, k)) for row, k in zip(shares, data.labels.tolist(), strict=True)]
    np.testing.assert_allclose(recorded["softmax"], expected, atol=1e-12)


def test_indicators_are_disjoint_and_of_the_size_of_a_class() -> None:
    first, second = indicator_sets(110, 10)
    assert len(first) == len(second) == 10
    assert not set(first) & set(second)
    assert [list(s) for s in indicator_sets(110, 10)] == [list(first), list(second)]
    assert list(indicator_sets(110, 10, seed=1)[0]) != list(first)
    data = ImageData(torch.zeros(110, 1, 2, 2), torch.arange(110) % 10, 10)
    relabelled = with_indicators(data, first)
    assert relabelled.classes == 11
    assert relabelled.labels[first].tolist() == [10] * 10
    others = np.setdiff1d(np.arange(110), first)
    assert bool((relabelled.labels[others] == data.labels[others]).all())
    assert int(data.labels.max()) == 9


@pytest.mark.parametrize(("n", "runs", "message"), [(10, 2, "too few"), (110, 1, "2 to 11 runs"), (110, 12, "2 to 11")])
def test_impossible_indicators(n: int, runs: int, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        indicator_sets(n, 10, runs)


def test_every_sample_is_judged_where_it_has_its_own_label() -> None:
    """Samples 0 and 1 are indicators of the first run, 2 and 3 of the second; the percentile 100 is their maximum."""
    first = np.array([-9.0, -1.0, -5.0, 3.0, -2.0, 0.5])
    second = np.array([-4.0, 7.0, -8.0, -3.0, -1.0, -5.5])
    judged = judge([first, second], [np.array([0, 1]), np.array([2, 3])], percentile=100)
    assert judged.thresholds == (-1.0, -3.0)
    # 0 and 1: second run alone; 2 and 3: first run alone; 4: (-2 + 1 - 1 + 3) / 2; 5: (0.5 + 1 - 5.5 + 3) / 2
    np.testing.assert_allclose(judged.distance, [-1.0, 10.0, -4.0, 4.0, 0.5, -0.5])
    np.testing.assert_allclose(judged.aum, [-4.0, 7.0, -5.0, 3.0, -1.5, -2.5])
    assert judged.flagged.tolist() == [True, False, True, False, False, True]


def test_the_threshold_is_the_percentile_of_the_indicators() -> None:
    aum = np.arange(102.0)
    judged = judge([aum, aum], [np.arange(101), np.array([101])])
    assert judged.thresholds[0] == pytest.approx(99.0)


def test_flipped_labels_are_other_classes_in_the_exact_number() -> None:
    labels = torch.arange(1000) % 5
    changed = flipped(labels, 5, 0.4, seed=3)
    wrong = changed != labels
    assert int(wrong.sum()) == 400
    assert int(changed.min()) >= 0
    assert int(changed.max()) <= 4
    counts = torch.bincount((changed - labels)[wrong] % 5, minlength=5)
    assert counts[0] == 0
    assert int(counts[1:].min()) > 70  # 100 expected of each offset, with a standard deviation of 9
    assert bool((flipped(labels, 5, 0.4, seed=3) == changed).all())
