"""Pictures of findings: curves, a panel for each title; curves as rows of a map; measured values beside published ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from freqrobust.results.figures import COLOURS, COLUMN, LINES, MARKERS, figure, wrapped

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

    from freqrobust.results.findings import Curve, Measured


def draw_curves(curves: Sequence[Curve], columns: int = 2, part: SubFigure | None = None) -> Figure | SubFigure | None:
    """All curves, in a panel for each title, with their intervals as bands; None without curves.

    Args:
        curves: what to draw.
        columns: panels side by side, at most.
        part: a part of a figure to draw into; by default a new figure.
    """
    panels = list(dict.fromkeys(curve.panel for curve in curves))
    if not panels:
        return None
    wide = min(columns, len(panels))
    rows = -(-len(panels) // wide)
    drawn = part if part is not None else figure(1.9 * rows, COLUMN * wide)
    for number, panel in enumerate(panels):
        axes = drawn.add_subplot(rows, wide, number + 1)
        _panel(axes, panel, [curve for curve in curves if curve.panel == panel])
    return drawn


def _panel(axes: Axes, title: str, curves: Sequence[Curve]) -> None:
    axes.set_title(wrapped(title, 50))
    for number, curve in enumerate(curves):
        colour = COLOURS[number % len(COLOURS)]
        marker = MARKERS[number % len(MARKERS)] if len(curve.x) <= 15 else None
        line = LINES[number // len(COLOURS) % len(LINES)]
        axes.plot(curve.x, curve.y, line, color=colour, marker=marker, label=curve.label)
        if curve.low and curve.high:
            axes.fill_between(curve.x, curve.low, curve.high, color=colour, alpha=0.15, linewidth=0)
    axes.set_xlabel(curves[0].x_label)
    axes.set_ylabel(curves[0].y_label)
    if any(curve.label for curve in curves):
        axes.legend(ncols=2 if len(curves) > 5 else 1)


def heat_map(
    axes: Axes,
    curves: Sequence[Curve],
    across: str,
    label: str,
    *,
    low: float = 0.0,
    high: float = 1.0,
    colours: str = "viridis",
) -> None:
    """Curves with common ``x`` as columns of a map: their labels to the right, ``x`` upwards, values as colours.

    Args:
        axes: where.
        curves: of one panel.
        across: what the labels of the curves are.
        label: what the colours mean.
        low: the value of the first colour; smaller ones have it too.
        high: the value of the last colour; larger ones have it too.
        colours: a colour map.
    """
    import numpy as np

    values = np.array([curve.y for curve in curves]).T
    image = axes.imshow(values, cmap=colours, vmin=low, vmax=high, origin="lower", aspect="auto")
    axes.set_title(wrapped(curves[0].panel, 30))
    every = -(-len(curves) // 8)
    axes.set_xticks(range(0, len(curves), every), [curve.label for curve in curves[::every]])
    ticks = sorted({round(position) for position in np.linspace(0, len(curves[0].x) - 1, 5)})
    axes.set_yticks(ticks, [f"{curves[0].x[tick]:g}" for tick in ticks])
    axes.set_xlabel(across)
    axes.set_ylabel(curves[0].x_label)
    axes.spines[:].set_visible(True)
    bar = axes.figure.colorbar(image, ax=axes)
    bar.set_label(label)


def draw_measured(measured: Sequence[Measured]) -> Figure | None:
    """Measured values with their intervals, and published ones as crosses; None without values."""
    if not measured:
        return None
    from matplotlib.ticker import PercentFormatter

    drawn = figure(0.5 + 0.16 * len(measured))
    axes = drawn.add_subplot()
    for number, one in enumerate(measured):
        if one.ci95 is not None:
            axes.plot(one.ci95, [number, number], color=COLOURS[0], linewidth=1)
    rows = range(len(measured))
    axes.plot([one.value for one in measured], rows, "o", color=COLOURS[0], label="here")
    beside = [(one.published, number) for number, one in enumerate(measured) if one.published is not None]
    if beside:
        axes.plot(*zip(*beside, strict=True), "x", color=COLOURS[1], label="published")
        axes.legend()
    axes.set_yticks(rows, [wrapped(one.name, 30) for one in measured])
    axes.invert_yaxis()
    if all(one.unit == "%" for one in measured):
        axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    return drawn
