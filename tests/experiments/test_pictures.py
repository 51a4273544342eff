"""Pictures show every curve, map and value, at its place."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from freqrobust.experiments.pictures import draw_curves, draw_measured, heat_map
from freqrobust.results.figures import figure
from freqrobust.results.findings import Curve, Measured


def curve(panel: str, label: str, y: list[float], **values: object) -> Curve:
    return Curve.model_validate({"panel": panel, "label": label, "x": list(range(len(y))), "y": y, **values})


def test_a_panel_for_each_title() -> None:
    drawn = draw_curves(
        [curve("a", "1", [1, 2]), curve("b", "1", [3, 4]), curve("a", "2", [5, 6], low=[4, 5], high=[6, 7])]
    )
    assert drawn is not None
    first, second = drawn.axes
    assert [axes.get_title() for axes in (first, second)] == ["a", "b"]
    assert [line.get_ydata().tolist() for line in first.lines] == [[1, 2], [5, 6]]  # type: ignore[union-attr]
    assert len(first.collections) == 1  # the band
    assert [text.get_text() for text in first.get_legend().get_texts()] == ["1", "2"]  # type: ignore[union-attr]
    assert draw_curves([]) is None


def test_one_legend_for_the_same_labels() -> None:
    drawn = draw_curves([curve(panel, label, [1, 2]) for panel in "ab" for label in "wxyz"])
    assert drawn is not None
    assert [axes.get_legend() for axes in drawn.axes] == [None, None]
    assert [text.get_text() for text in drawn.legends[0].get_texts()] == list("wxyz")


def test_more_curves_than_colours_differ_in_their_lines() -> None:
    drawn = draw_curves([curve("a", str(n), [n, n]) for n in range(10)])
    assert drawn is not None
    looks = {(line.get_color(), line.get_linestyle()) for line in drawn.axes[0].lines}
    assert len(looks) == 10


def test_a_map_has_a_column_for_each_curve() -> None:
    axes = figure(2).add_subplot()
    heat_map(axes, [curve("m", "low", [0, 0.5, 1]), curve("m", "high", [1, 2, 3])], "frequency", "error", high=2)
    assert np.array_equal(axes.images[0].get_array(), [[0, 1], [0.5, 2], [1, 3]])  # type: ignore[arg-type]
    assert axes.images[0].get_clim() == (0, 2)
    assert axes.images[0].origin == "lower"
    assert [label.get_text() for label in axes.get_xticklabels()] == ["low", "high"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("frequency", "epoch")


def test_measured_values_beside_published_ones() -> None:
    drawn = draw_measured([Measured(name="a", value=0.5, published=0.4, ci95=(0.3, 0.6), unit="%"),
                           Measured(name="b", value=0.2, unit="%")])  # fmt: skip
    assert drawn is not None
    (axes,) = drawn.axes
    interval, here, published = axes.lines
    assert list(interval.get_xdata()) == [0.3, 0.6]  # type: ignore[arg-type]
    assert list(here.get_xdata()) == [0.5, 0.2]  # type: ignore[arg-type]
    assert list(published.get_xdata()) == [0.4]  # type: ignore[arg-type]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b"]
    assert draw_measured([]) is None
