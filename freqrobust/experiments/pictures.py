"""Pictures of curves, a panel for each title."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from freqrobust.results.figures import COLOURS, COLUMN, MARKERS, figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from freqrobust.results.findings import Curve


def draw_curves(curves: Sequence[Curve], columns: int = 2) -> Figure | None:
    """All curves, in a panel for each title, with their intervals as bands; None without curves."""
    panels = list(dict.fromkeys(curve.panel for curve in curves))
    if not panels:
        return None
    wide = min(columns, len(panels))
    rows = -(-len(panels) // wide)
    drawn = figure(1.9 * rows, COLUMN * wide)
    for number, panel in enumerate(panels):
        axes = drawn.add_subplot(rows, wide, number + 1)
        _panel(axes, panel, [curve for curve in curves if curve.panel == panel])
    return drawn


def _panel(axes: Axes, title: str, curves: Sequence[Curve]) -> None:
    axes.set_title(title)
    for number, curve in enumerate(curves):
        colour = COLOURS[number % len(COLOURS)]
        marker = MARKERS[number % len(MARKERS)] if len(curve.x) <= 15 else None
        axes.plot(curve.x, curve.y, color=colour, marker=marker, label=curve.label)
        if curve.low and curve.high:
            axes.fill_between(curve.x, curve.low, curve.high, color=colour, alpha=0.15, linewidth=0)
    axes.set_xlabel(curves[0].x_label)
    axes.set_ylabel(curves[0].y_label)
    if any(curve.label for curve in curves):
        axes.legend()
