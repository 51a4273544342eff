"""Heat maps and energy slopes of augmented networks, on digits."""

from __future__ import annotations

import numpy as np
import pytest
from torch import nn

from freqrobust.data.loading import load_data
from freqrobust.experiments.bench import Bench
from freqrobust.experiments.reproduce import reproduce
from freqrobust.numerics.frequency import directions
from freqrobust.reproductions._yin import band, map_curves, wave_errors
from freqrobust.reproductions.yin_augmentations import MAP, NETWORKS
from freqrobust.results.findings import Findings


@pytest.fixture(scope="module")
def found() -> Findings:
    return reproduce("yin-augmentations")


def test_a_map_has_each_direction_at_its_frequency_and_at_the_conjugate() -> None:
    shape = (1, 4, 4)
    values = np.array([10.0 * u + v for u, v in directions(4, 4)])
    rows = {int(curve.label): dict(zip(curve.x, curve.y, strict=True)) for curve in map_curves("m", values, shape)}
    assert sorted(rows) == [-2, -1, 0, 1]
    for (u, v), value in zip(directions(4, 4), values, strict=True):
        assert rows[u][v] == value
        if u != -2 and v not in (-2, 0):
            assert rows[-u][-v] == value


def test_bands_are_rings_of_directions() -> None:
    inside = band((1, 8, 8), 0.5, 1.5)
    assert [uv for uv, chosen in zip(directions(8, 8), inside, strict=True) if chosen] == [
        (-1, 0),
        (0, -1),
        (-1, -1),
        (-1, 1),
    ]


def test_errors_of_a_network_that_sees_the_mean_alone() -> None:
    """Waves other than DC do not change the mean of an image, so that they cause no error."""

    class Mean(nn.Module):
        def forward(self, x):  # type: ignore[no-untyped-def]
            mean = x.mean(dim=(1, 2, 3))
            return nn.functional.pad(1e3 * (mean - 0.3)[:, None], (1, 8))

    data = load_data("digits").first(30)
    errors = wave_errors(Bench(), Mean(), data)
    clean = ~Bench().correct(Mean(), data)
    waves = directions(8, 8)
    assert errors.shape == (len(waves), 30)
    for (u, v), wrong in zip(waves, errors, strict=True):
        assert (u, v) == (0, 0) or list(wrong) == list(clean)


def test_maps_slopes_and_verdicts(found: Findings) -> None:
    for name in NETWORKS:
        rows = np.array([curve.y for curve in found.curves if curve.panel == f"{MAP}{name}"])
        assert rows.shape == (8, 8)
        assert rows.min() >= 0
        assert rows.max() <= 1
        np.testing.assert_array_equal(rows[1:, 1:], rows[1:, 1:][::-1, ::-1])
        errors = [float(text) for text in next(row for row in found.tables[0].rows if row[0] == name)[1:4]]
        assert errors[0] < 20
    assert len(found.trends) == 7
    assert all(trend.ci95 is not None for trend in found.trends)
    assert found.picture is not None
