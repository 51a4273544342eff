"""Curves of accuracy, as geometry that a template draws: lines, bands, axes, and what hovering says."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from freqrobust.core.percent import interval, percent
from freqrobust.core.text import one_line
from freqrobust.results.accuracy_curves import Curve, Named, Point, accuracy_curves

#: Size of the drawing, in the units of its view box, and the margins of what is inside the axes.
WIDTH, HEIGHT = 400, 256
LEFT, RIGHT, TOP, BOTTOM = 34, 22, 12, 40
#: Colours that a style sheet has for lines, and lines that one drawing can hold.
COLOURS, MOST = 8, 16
_CLOSEST_TICKS = 26


class Mark(NamedTuple):
    """A tick or a marker, in the units of the view box."""

    at: float
    label: str


class Line(NamedTuple):
    """A drawn curve."""

    label: str
    colour: int
    dashed: bool
    path: str
    band: str
    markers: list[str]
    open_markers: Sequence[str] = ()


@dataclass
class Chart:
    """A drawing of several curves over one axis.

    Attributes:
        stops: for every x, where it is, what it is called, and for every line its text or an empty one.
        left_out: how many curves there is no room for.
        note: what the bands and markers are, where they are not points with intervals.
    """

    title: str
    axis: str
    lines: list[Line]
    x_ticks: list[Mark]
    y_ticks: list[Mark]
    stops: list[tuple[float, str, list[str]]]
    left_out: int = 0
    note: str = ""
    width: int = WIDTH
    height: int = HEIGHT
    bottom: float = HEIGHT - BOTTOM
    left: float = LEFT
    right: float = WIDTH - RIGHT


def charts(entries: Sequence[Named]) -> list[Chart]:
    """Accuracy against eps for every norm, and against the radius of each frequency filter."""
    found = [_draw(title, axis, curves) for title, axis, curves in accuracy_curves(entries)]
    return [chart for chart in found if chart is not None]


def _draw(title: str, axis: str, curves: Sequence[Curve]) -> Chart | None:
    """The drawing; None where no curve has two points."""
    every = [c for c in curves if len({p.x for p in c.points}) > 1]
    shown = every[:MOST]
    if not shown:
        return None
    names: Mapping[float, str] = {p.x: p.name for curve in shown for p in curve.points}
    xs = sorted(names)
    lowest, highest = xs[0], xs[-1]

    def across(x: float) -> float:
        return round(LEFT + (x - lowest) / (highest - lowest) * (WIDTH - LEFT - RIGHT), 2)

    lines = [_line(curve, across) for curve in shown]
    known = [{p.x: p for p in curve.points} for curve in shown]
    stops = [(across(x), names[x], [_said(points.get(x)) for points in known]) for x in xs]
    return Chart(
        title,
        axis,
        lines,
        x_ticks=_x_ticks(xs, across),
        y_ticks=[Mark(down(share / 4), f"{share * 25}") for share in range(5)],
        stops=stops,
        left_out=len(every) - len(shown),
    )


def _said(point: Point | None) -> str:
    return f"{percent(point.y)} {interval((point.low, point.high), 0)}" if point is not None else ""


def down(share: float) -> float:
    """The height of a share, in the units of the view box."""
    return round(TOP + (1 - share) * (HEIGHT - TOP - BOTTOM), 2)


def _line(curve: Curve, across: Callable[[float], float]) -> Line:
    places = [(across(p.x), down(p.y), down(p.low), down(p.high)) for p in curve.points]
    path = "M" + "L".join(f"{x:g},{y:g}" for x, y, _, _ in places)
    upper = "L".join(f"{x:g},{high:g}" for x, _, _, high in places)
    lower = "L".join(f"{x:g},{low:g}" for x, _, low, _ in reversed(places))
    markers = [marker(curve.number, x, y) for x, y, _, _ in places]
    return Line(
        one_line(curve.label), curve.number % COLOURS, curve.number >= COLOURS, path, f"M{upper}L{lower}Z", markers
    )


def marker(number: int, x: float, y: float) -> str:
    """A dot, a square, a diamond or a triangle, so that lines are told apart without their colours."""
    r = 3
    shapes = [
        f"M{x - r:g},{y:g}a{r},{r} 0 1,0 {2 * r},0a{r},{r} 0 1,0 {-2 * r},0Z",
        f"M{x - r:g},{y - r:g}h{2 * r}v{2 * r}h{-2 * r}Z",
        f"M{x:g},{y - r - 1:g}l{r + 1},{r + 1}l{-r - 1},{r + 1}l{-r - 1},{-r - 1}Z",
        f"M{x:g},{y - r - 1:g}l{r + 1},{2 * r + 1}h{-2 * r - 2}Z",
    ]
    return shapes[number % len(shapes)]


def _x_ticks(xs: Sequence[float], across: Callable[[float], float]) -> list[Mark]:
    """A tick at every measured x, without those that would run into each other; the last is always there."""
    ticks: list[Mark] = []
    for x in xs:
        while x == xs[-1] and ticks and across(x) - ticks[-1].at < _CLOSEST_TICKS:
            ticks.pop()
        if not ticks or across(x) - ticks[-1].at >= _CLOSEST_TICKS:
            ticks.append(Mark(across(x), f"{x:.4g}"))
    return ticks
