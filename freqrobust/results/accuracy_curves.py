"""Accuracies as curves: against eps for every norm, and against the radius of each frequency filter."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from freqrobust.numerics.threat import norm_name
from freqrobust.results.cells import Cell, WorstCase
from freqrobust.results.report import Report
from freqrobust.results.summary import Entry, by_norm, eps_text, threats


class Point(NamedTuple):
    """One measured accuracy: where, how its place is called, and the ends of its interval; all as shares."""

    x: float
    name: str
    y: float
    low: float
    high: float


@dataclass
class Curve:
    """One line: what it is of, its points by growing x, and its number, which is its colour in every drawing."""

    label: str
    points: list[Point]
    number: int = 0


class Named(NamedTuple):
    """An entry of one report, with the name that its curves get."""

    name: str
    report: Report
    entry: Entry


def accuracy_curves(entries: Sequence[Named]) -> Iterator[tuple[str, str, list[Curve]]]:
    """The title of each drawing, what its axis is, and a curve for each entry, which may be without points."""
    yield from _over_eps(entries)
    yield from _over_radius(entries)


def _over_eps(entries: Sequence[Named]) -> Iterable[tuple[str, str, list[Curve]]]:
    every = [threat for report in {id(n.report): n.report for n in entries}.values() for threat in threats(report)]
    for norm in dict.fromkeys(threat.norm for threat in by_norm(every)):
        curves = [Curve(n.name, _worst_cases(n, norm), number) for number, n in enumerate(entries)]
        shown = norm_name(norm)
        unit = ", in 255ths" if norm == "linf" else ""
        yield f"Worst case against {shown} eps", f"eps ({shown}{unit})", curves


def _worst_cases(named: Named, norm: str) -> list[Point]:
    """Clean accuracy at eps 0, then the worst case of each threat."""
    rows = [w for w in named.report.worst_case if w.threat.norm == norm and (w.model, w.defense_spec) == named.entry]
    clean = [c for c in _cells(named) if c.attack == "clean"]
    scale = 255 if norm == "linf" else 1
    points = [_point(0.0, "clean", c) for c in clean]
    points += [_point(w.threat.eps * scale, f"eps {eps_text(w.threat)}", w) for w in rows]
    return sorted(p for p in points if p is not None) if rows else []


def _over_radius(entries: Sequence[Named]) -> Iterable[tuple[str, str, list[Curve]]]:
    for attack, title in (("lfc", "Low frequencies only (LFC)"), ("hfc", "High frequencies only (HFC)")):
        curves = []
        for number, named in enumerate(entries):
            cells = [c for c in _cells(named) if c.attack == attack and _plain_filter(c)]
            points = [
                _point(float(c.attack_params["radius"]), f"radius {c.attack_params['radius']:g}", c) for c in cells
            ]
            curves.append(Curve(named.name, sorted(p for p in points if p is not None), number))
        yield title, "radius, in cycles per image", curves


def _plain_filter(cell: Cell) -> bool:
    params = cell.attack_params
    radius = params.get("radius")
    return isinstance(radius, int | float) and params.get("shape") == "circle" and not params.get("clip")


def _cells(named: Named) -> list[Cell]:
    return [
        c
        for c in named.report.cells
        if (c.model, c.defense_spec) == named.entry and c.knowledge == "adaptive" and c.status == "ok"
    ]


def _point(x: float, name: str, one: Cell | WorstCase) -> Point | None:
    if one.accuracy is None or one.ci95 is None:
        return None
    return Point(x, name, one.accuracy, *one.ci95)
