"""Networks trained and tested on filtered digits."""

from __future__ import annotations

import pytest

from freqrobust.experiments.reproduce import reproduce
from freqrobust.results.findings import Findings


@pytest.fixture(scope="module")
def found() -> Findings:
    return reproduce("yin-filtered-training")


def test_high_frequencies_alone_are_above_chance(found: Findings) -> None:
    above = [trend for trend in found.trends if "above chance" in trend.statement]
    assert [trend.verdict for trend in above] == ["reproduced"] * 4


def test_low_pass_accuracy_grows_with_the_bandwidth(found: Findings) -> None:
    (trend,) = (trend for trend in found.trends if "on LFC" in trend.statement)
    assert trend.verdict == "reproduced"  # with r = 4, the images of 8 pixels are constant


def test_the_share_of_frequencies_is_that_of_the_masks(found: Findings) -> None:
    """At 8 pixels, the radii are 1 to 4: only DC is below 1, and 9 frequencies are below 2."""
    rows = {(kind, r): float(kept) for kind, r, kept, _ in found.tables[0].rows}
    assert rows["LFC", "4"] == pytest.approx(100 / 64, abs=0.05)
    assert rows["LFC", "8"] == pytest.approx(100 * 9 / 64, abs=0.05)
    for radius in ("4", "8", "12", "16"):
        assert rows["LFC", radius] + rows["HFC", radius] == pytest.approx(100, abs=0.11)
