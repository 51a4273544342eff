"""Pictures of findings: curves, a panel for each title; curves as rows of a map; measured values beside published ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from freqrobust.results.figures import COLOURS, COLUMN, LINES, MARKERS, figure, wrapped

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

    from freqrobust.results.findings import Curve, Measured


def draw_curves(curves: Sequence[Curve], columns: int = 2) -> Figure | None:
    """All curves, in a panel for each title, with their intervals as bands; None without curves.

    Where several panels have the same four labels or more, one legend below all of them takes the place of theirs.
    """
    panels = len({curve.panel for curve in curves})
    if not panels:
        return None
    wide = min(columns, panels)
    drawn = figure(1.9 * -(-panels // wide), COLUMN * wide)
    draw_panels(drawn, curves, columns)
    return drawn


def draw_panels(part: Figure | SubFigure, curves: Sequence[Curve], columns: int = 2) -> None:
    """As :func:`draw_curves`, into a figure or a part of one."""
    panels = list(dict.fromkeys(curve.panel for curve in curves))
    groups = [[curve for curve in curves if curve.panel == panel] for panel in panels]
    wide = min(columns, len(panels))
    labels = {tuple(curve.label for curve in group) for group in groups}
    common = len(panels) > 1 and len(labels) == 1 and len(groups[0]) > 3
    axes = []
    for number, (panel, group) in enumerate(zip(panels, groups, strict=True)):
        axes.append(part.add_subplot(-(-len(panels) // wide), wide, number + 1))
        _panel(axes[-1], panel, group, legend=not common)
    if common:
        handles, names = axes[-1].get_legend_handles_labels()
        part.legend(handles, names, loc="outside lower center", ncols=min(len(names), 4))


def _panel(axes: Axes, title: str, curves: Sequence[Curve], legend: bool) -> None:
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
    if curves[0].x_label == "epoch":
        axes.locator_params(axis="x", integer=True)
    if legend and any(curve.label for curve in curves):
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
