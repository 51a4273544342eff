"""Filtered noise of growing bandwidth, on digits."""

from __future__ import annotations

import pytest

from freqrobust.experiments.reproduce import reproduce
from freqrobust.numerics.frequency import band_mask
from freqrobust.plugins.registry import attacks
from freqrobust.reproductions.yin_bandwidth import noise_spec
from freqrobust.results.findings import Findings


@pytest.fixture(scope="module")
def found() -> Findings:
    return reproduce("yin-bandwidth")


@pytest.mark.parametrize("side", [8, 32])
@pytest.mark.parametrize("bandwidth", [3, 5, 7])
def test_the_bandwidth_counts_frequencies_of_an_axis(side: int, bandwidth: int) -> None:
    counts = {}
    for kind in ("low-pass", "high-pass"):
        (plugin_spec,) = attacks.parse(noise_spec(kind, bandwidth, side, 4.0))
        params = plugin_spec.params
        mask = band_mask(side, side, params["low"], params["high"] or 2 * side, params["shape"])
        counts[kind] = int(mask.sum())
    assert counts == {"low-pass": bandwidth**2, "high-pass": side**2 - (side - bandwidth) ** 2}


def test_all_networks_lose_accuracy_under_the_noise(found: Findings) -> None:
    clean = {one.name.removesuffix(": clean"): one for one in found.measured}
    assert set(clean) == {"natural", "Gaussian", "adversarial"}
    assert all(one.value > 0.85 for one in clean.values())
    for curve in found.curves:
        assert curve.x == [3, 5, 7]
        if curve.panel == "low-pass noise":
            assert clean[curve.label].ci95 is not None
            assert max(curve.y) < clean[curve.label].ci95[0]  # type: ignore[index]


def test_each_trend_has_an_interval(found: Findings) -> None:
    assert len(found.trends) == 4
    assert all(trend.ci95 is not None for trend in found.trends)
    (best,) = (t for t in found.trends if "high-pass" in t.statement and "adversarial" in t.statement)
    assert best.verdict != "not reproduced"
