"""Robustness curves for the page: steps with a band, and robust accuracies at single budgets as markers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from freqrobust.core.percent import percent
from freqrobust.core.text import one_line
from freqrobust.numerics.threat import Norm, Threat, norm_name
from freqrobust.reports.curves import COLOURS, LEFT, MOST, RIGHT, WIDTH, Chart, Line, Mark, down, marker
from freqrobust.results.accuracy_curves import Named
from freqrobust.results.cells import WorstCase
from freqrobust.results.robustness_curve import Budgeted, MeasuredCurve, budgets, robustness_curves
from freqrobust.results.robustness_tables import Axis, accuracy_text, distance_text, eps_axis, scale, unit

#: Steps of a drawn curve; more cannot be seen.
STEPS = 300
#: Ticks of a linear axis, at most.
TICKS = 7

_Curve = tuple[int, Named, MeasuredCurve]


def robustness_charts(entries: Sequence[Named]) -> Iterator[Chart]:
    """The robustness curves of all entries, a chart for each norm; none without a minimum-norm attack."""
    found: dict[Norm, list[_Curve]] = {}
    known = {id(named.report): robustness_curves(named.report) for named in entries}
    for number, named in enumerate(entries):
        for norm, curves in known[id(named.report)].items():
            found.setdefault(norm, []).extend((number, named, curve) for curve in curves if curve.entry == named.entry)
    for norm, every in found.items():
        if every:
            yield _chart(norm, every[:MOST], len(every[MOST:]))


def _chart(norm: Norm, shown: Sequence[_Curve], left_out: int) -> Chart:
    measured = [one for _, _, one in shown]
    points = [point for one in measured for point in one.points]
    axis = eps_axis([one.curve for one in measured], [point.eps for point in points])
    across = _across(axis)
    ticks = _ticks(axis, scale(norm))
    stops = sorted({*(eps for eps, _ in ticks), *budgets(norm, measured)})
    notes = ["Bands contain the whole curve with a confidence of 95 %."]
    if points:
        notes.append("Filled markers are worst cases at a budget, open ones single attacks.")
    return Chart(
        f"Robustness curve, {norm_name(norm)}",
        f"eps ({unit(norm)}{', logarithmic' if axis.logarithmic else ''})",
        [_line(number, named.name, one, axis, across) for number, named, one in shown],
        x_ticks=[Mark(across(eps), label) for eps, label in ticks],
        y_ticks=[Mark(down(share / 4), f"{share * 25}") for share in range(5)],
        stops=[
            (across(eps), f"eps {_eps_text(norm, eps)}", [_said(one, eps) for one in measured])
            for eps in stops
            if axis.low <= eps <= axis.high
        ],
        left_out=left_out,
        note=" ".join(notes),
    )


def _across(axis: Axis) -> Callable[[float], float]:
    def place(eps: float) -> float:
        eps = min(max(eps, axis.low), axis.high)
        share = math.log(eps / axis.low) / math.log(axis.high / axis.low) if axis.logarithmic else eps / axis.high
        return round(LEFT + share * (WIDTH - LEFT - RIGHT), 2)

    return place


def _ticks(axis: Axis, factor: int) -> list[tuple[float, str]]:
    """Round numbers in the unit of the axis: equal steps, or 1, 2 and 5 times powers of ten, with their labels."""
    low, high = factor * axis.low, factor * axis.high
    if axis.logarithmic:
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        leading = (1, 2, 5) if math.log10(high / low) < 3 else (1,)
        values = [k * 10.0**power for power in powers for k in leading]
    else:
        step = next(s for s in _round_steps(high) if high / s <= TICKS)
        values = [k * step for k in range(math.floor(high / step + 1e-9) + 1)]
    return [(value / factor, f"{value:.4g}") for value in values if low <= value <= high * (1 + 1e-9)]


def _round_steps(high: float) -> Iterator[float]:
    power = 10.0 ** (math.floor(math.log10(high)) - 1)
    return (k * power for k in (1, 2, 5, 10, 20, 50))


def _eps_text(norm: Norm, eps: float) -> str:
    text = Threat(norm, eps).eps_text
    return text if len(text) <= 8 else distance_text(norm, eps) + ("/255" if norm == "linf" else "")


def _said(one: MeasuredCurve, eps: float) -> str:
    """The robust accuracy at an eps and, where attacks were run at this budget, their worst case."""
    worst = [point.record.accuracy for point in one.points if point.eps == eps and _is_worst(point)]
    measured = f"; worst case {percent(worst[0])}" if worst and worst[0] is not None else ""
    return accuracy_text(one.curve, eps) + measured


def _is_worst(point: Budgeted) -> bool:
    return isinstance(point.record, WorstCase)


def _line(number: int, name: str, one: MeasuredCurve, axis: Axis, across: Callable[[float], float]) -> Line:
    eps, shares = one.curve.steps(STEPS)
    first = max(0, int(np.searchsorted(eps, axis.low, side="right")) - 1)  # the steps before have no place on the axis
    steps = zip(eps[first:].tolist(), shares[first:].tolist(), strict=True)
    inside = [(x, y) for x, y in steps if x <= axis.high]
    marks: dict[bool, list[str]] = {True: [], False: []}
    for point in one.points:
        if point.record.accuracy is not None:
            marks[_is_worst(point)].append(marker(number, across(point.eps), down(point.record.accuracy)))
    width = one.curve.half_width
    upper, lower = (_stairs([(x, min(1.0, max(0.0, y + w))) for x, y in inside], axis, across) for w in (width, -width))
    return Line(
        one_line(name),
        number % COLOURS,
        number >= COLOURS,
        _path(_stairs(inside, axis, across)),
        f"{_path([*upper, *reversed(lower)])}Z",
        marks[True],
        marks[False],
    )


def _stairs(
    steps: Sequence[tuple[float, float]], axis: Axis, across: Callable[[float], float]
) -> list[tuple[float, float]]:
    """The vertices of a step function, in the units of the view box, to the end of the axis."""
    vertices: list[tuple[float, float]] = []
    for number, (x, y) in enumerate(steps):
        end = steps[number + 1][0] if number + 1 < len(steps) else axis.high
        for place in ((across(x), down(y)), (across(end), down(y))):
            if not vertices or vertices[-1] != place:
                vertices.append(place)
    return vertices


def _path(vertices: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:g},{y:g}" for x, y in vertices)
