"""A report as a figure for notebooks and papers: the headline with its intervals, then curves."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from freqrobust.core.errors import SpecError
from freqrobust.core.files import check_writable, write_atomically
from freqrobust.core.text import one_line
from freqrobust.numerics.threat import Norm, norm_name
from freqrobust.results.accuracy_curves import Curve, Named, accuracy_curves
from freqrobust.results.figures import (
    COLOURS,
    MARKERS,
    Line,
    draw_lines,
    file_of,
    picture_format,
    stacked,
    styled,
    wrapped,
)
from freqrobust.results.report import Report
from freqrobust.results.robustness_curve import MeasuredCurve, robustness_curves
from freqrobust.results.robustness_tables import eps_axis, scale, unit
from freqrobust.results.summary import Entry, entry_labels, headline

if TYPE_CHECKING:
    from matplotlib.figure import Figure, SubFigure

_Part = tuple[float, Callable[["SubFigure | Figure"], None]]
#: Heights in inches: of a row of the headline for each entry, of what is around the rows, and of a panel of curves.
_ROW, _AROUND, _PANEL = 0.13, 0.55, 1.9
#: Entries that one figure can show.
_MOST = 12
#: Steps of a drawn robustness curve; more cannot be seen.
_STEPS = 500


def plot(report: Report, path: str | os.PathLike[str] | None = None) -> Figure:
    """The figure, also written to ``path`` where one is given.

    Raises:
        SpecError: matplotlib is not installed, the format of the file is not supported, or nothing was measured.
        FreqRobustError: the file cannot be written.
    """
    if path is not None:
        picture_format(Path(path))
        check_writable(path)
    labels = {entry: one_line(name) for entry, name in list(entry_labels(report).items())[:_MOST]}
    if not any(measure.found for measure in headline(report)):
        raise SpecError("the report has no cells to plot")
    named = [Named(name, report, entry) for entry, name in labels.items()]
    with styled():
        drawn = stacked(_headline(report, named), *_curves(named), *_robustness(report, named))
        if path is not None:
            write_atomically(path, file_of(drawn, picture_format(Path(path))))
    return drawn


def _headline(report: Report, named: Sequence[Named]) -> _Part:
    measures = [measure for measure in headline(report) if any(one.entry in measure.found for one in named)]
    height = _AROUND + _ROW * len(measures) * (len(named) + 0.6)

    def draw(part: SubFigure | Figure) -> None:
        axes = part.subplots()
        for number, one in enumerate(named):
            shift = 0.7 * ((number + 0.5) / len(named) - 0.5)
            found = [(row + shift, measure.found.get(one.entry)) for row, measure in enumerate(measures)]
            known = [(row, record.accuracy, record.ci95) for row, record in found if record is not None]
            colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
            points = [(row, 100 * share, ends) for row, share, ends in known if share is not None and ends is not None]
            for row, _, (low, high) in points:
                axes.plot([100 * low, 100 * high], [row, row], color=colour, linewidth=1)
            rows, shares = [row for row, _, _ in points], [share for _, share, _ in points]
            axes.plot(shares, rows, marker, color=colour, label=wrapped(one.name, 40))
        axes.set_yticks(range(len(measures)), [wrapped(measure.label, 24) for measure in measures])
        axes.invert_yaxis()
        axes.set_xlim(-2, 102)
        axes.set_xlabel("accuracy in percent, 95 % interval")
        if len(named) > 1:
            part.legend(loc="outside upper center", ncols=1 if max(len(one.name) for one in named) > 24 else 2)

    return height + (0.12 * len(named) if len(named) > 1 else 0), draw


def _curves(named: Sequence[Named]) -> list[_Part]:
    found = [
        (title, axis, [curve for curve in curves if len({point.x for point in curve.points}) > 1])
        for title, axis, curves in accuracy_curves(named)
    ]
    return [(_PANEL, _panel(title, axis, curves)) for title, axis, curves in found if curves]


def _panel(title: str, axis: str, curves: Sequence[Curve]) -> Callable[[SubFigure | Figure], None]:
    lines = [
        Line(
            one_line(curve.label),
            [point.x for point in curve.points],
            [100 * point.y for point in curve.points],
            ([100 * point.low for point in curve.points], [100 * point.high for point in curve.points]),
        )
        for curve in curves
    ]

    def draw(part: SubFigure | Figure) -> None:
        axes = part.subplots()
        draw_lines(axes, lines, markers=True)
        axes.set_title(title)
        axes.set_xlabel(axis)
        axes.set_ylabel("accuracy (%)")
        axes.set_ylim(-2, 102)

    return draw


def _robustness(report: Report, named: Sequence[Named]) -> list[_Part]:
    """A panel for each norm of minimum-norm attacks."""
    labels = {one.entry: one.name for one in named}
    parts: list[_Part] = []
    for norm, curves in robustness_curves(report).items():
        shown = [one for one in curves if one.entry in labels]
        if shown:
            parts.append((_PANEL, _steps(norm, shown, labels)))
    return parts


def _steps(
    norm: Norm, shown: Sequence[MeasuredCurve], labels: Mapping[Entry, str]
) -> Callable[[SubFigure | Figure], None]:
    axis, factor = (
        eps_axis([one.curve for one in shown], [point.eps for one in shown for point in one.points]),
        scale(norm),
    )

    def draw(part: SubFigure | Figure) -> None:
        axes = part.subplots()
        for number, one in enumerate(shown):
            eps, shares = one.curve.steps(_STEPS)
            places, heights = [*(factor * eps), factor * axis.high], [*(100 * shares), 100 * shares[-1]]
            width, colour = 100 * one.curve.half_width, COLOURS[number % len(COLOURS)]
            axes.step(places, heights, where="post", color=colour, label=wrapped(labels[one.entry], 40))
            low, high = ([min(100.0, max(0.0, y + side * width)) for y in heights] for side in (-1, 1))
            axes.fill_between(places, low, high, step="post", color=colour, alpha=0.15, linewidth=0)
        if axis.logarithmic:
            axes.set_xscale("log")
        axes.set_xlim(factor * axis.low, factor * axis.high)
        axes.set_ylim(-2, 102)
        axes.set_title(f"Robustness curve, {norm_name(norm)}")
        axes.set_xlabel(f"eps ({unit(norm)})")
        axes.set_ylabel("robust accuracy, at most (%)")
        axes.legend()

    return draw
