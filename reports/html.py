"""The report as one page: self-contained, without a network, for wide and narrow screens, light and dark."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import IO, TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

from pydantic import Field

from freqrobust.core.percent import interval, percent, points
from freqrobust.core.text import one_line
from freqrobust.reports.comparing import Comparing
from freqrobust.reports.curves import Named, charts
from freqrobust.reports.text import (
    accuracy,
    check_number,
    check_reason,
    conditions,
    corruption_tables,
    describe_normalization,
    describe_published,
    difference,
    digits,
    readings,
    title,
)
from freqrobust.results.gate_view import gate_tables, gate_verdict
from freqrobust.results.summary import (
    Entry,
    Measure,
    at_chance,
    diagnosed,
    entry_labels,
    false_security,
    footnotes,
    headline,
    level,
    model_labels,
    remarks,
    statements,
    verdict_label,
    where,
)

if TYPE_CHECKING:
    from markupsafe import Markup

    from freqrobust.results.cells import Cell, WorstCase
    from freqrobust.results.leaderboard import Board
    from freqrobust.results.report import Report


class Number(NamedTuple):
    """What a table shows in one place, and what it is sorted by; None sorts last."""

    value: float | None
    text: str
    interval: str = ""
    difference: str = ""
    note: str = ""


class Row(NamedTuple):
    name: str
    numbers: list[Number]
    rank: str = ""
    verdict: str = ""
    level: str = ""


@dataclass
class Grid:
    """A table of entries and their measures."""

    columns: list[str]
    rows: list[Row]


class HTML(Comparing):
    """One page that needs nothing else: verdict, headline, curves, pictures, every cell, provenance."""

    requires: ClassVar[Mapping[str, str]] = {"jinja2": "freqrobust[plots]"}

    theme: Literal["auto", "light", "dark"] = Field("auto", description="colours; auto follows the reader's system")
    title: str | None = Field(None, description="heading of the page; default: what was measured")

    def render(self, report: Report, target: IO[str]) -> None:
        heading = self.title or f"Robustness of {title(report)}"
        named = [Named(name, report, entry) for entry, name in entry_labels(report).items()]
        self._write(target, heading, [conditions(report)], {"": report}, named, None)

    def render_many(self, reports: Mapping[str, Report], target: IO[str]) -> None:
        board = self.board(reports)
        heading = self.title or "Robustness leaderboard"
        named = [Named(s.name, reports[s.report], s.entry) for s in board.standings]
        about = [f"{len(board.standings)} entries of {len(reports)} reports, ranked by {board.by}"]
        self._write(target, heading, about, reports, named, board)

    def _write(
        self,
        target: IO[str],
        heading: str,
        about: Sequence[str],
        reports: Mapping[str, Report],
        named: Sequence[Named],
        board: Board | None,
    ) -> None:
        from jinja2 import Environment, FunctionLoader, StrictUndefined
        from markupsafe import Markup

        environment = Environment(
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            loader=FunctionLoader(_template),
            finalize=lambda value: (
                value if isinstance(value, Markup) or not isinstance(value, str) else one_line(value)
            ),
        )
        environment.filters["breakable"] = _breakable
        environment.globals.update(check_number=check_number, check_reason=check_reason)
        css, script = _template("report.css"), _template("report.js")
        page = environment.get_template("report.html").render(
            theme=self.theme,
            policy=_policy(css, script),
            css=Markup(css),
            script=Markup(script),
            heading=heading,
            about=about,
            board=_board(board, reports) if board is not None else None,
            notes=board.notes if board is not None else [],
            charts=[(chart, json.dumps(chart.stops)) for chart in charts(named)],
            views=[_view(name, report, index) for index, (name, report) in enumerate(reports.items())],
        )
        target.write(page)


def _breakable(text: str) -> Markup:
    """A spec that may be broken after its commas, and nowhere else while there is room."""
    from markupsafe import Markup, escape

    return Markup(str(escape(one_line(text))).replace(",", ",<wbr>"))


def _template(name: str) -> str:
    return files(__package__).joinpath("templates", name).read_text(encoding="utf-8")


def _policy(css: str, script: str) -> str:
    """A content security policy: this style, this script, embedded pictures, and nothing else, from nowhere else."""

    def digest(text: str) -> str:
        return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

    return (
        f"default-src 'none'; style-src {digest(css)}; script-src {digest(script)}; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _board(board: Board, reports: Mapping[str, Report]) -> Grid:
    rows = []
    for standing in board.standings:
        decimals = digits(reports[standing.report])
        numbers = [_number(standing.measures.get(label), decimals) for label in board.labels]
        rows.append(Row(standing.name, numbers, standing.rank_text, standing.verdict or "", standing.level or ""))
    return Grid(board.labels, rows)


def _view(name: str, report: Report, index: int) -> dict[str, Any]:
    """Everything that the page says about one report."""
    return {
        "name": name,
        "id": f"r{index}",
        "conditions": conditions(report),
        "statements": statements(report),
        "headline": _grid(report, headline(report)),
        "chance": any(at_chance(one) for measure in headline(report) for one in measure.found.values()),
        "cells": list(_cells(report)),
        "entry": "model and defense" if len(report.models) > 1 else "defense",
        "unaware": list(_unaware(report)),
        "footnotes": [str(note) for note in footnotes(report) if note.worst_case],
        "diagnostics": [(diagnosed(report, one), one, verdict_label(one), level(one)) for one in report.diagnostics],
        "gate_verdict": gate_verdict(report.gate) if report.gate is not None else "",
        "gate_tables": gate_tables(report.gate),
        "corruptions": list(corruption_tables(report)),
        "analyses": list(_analyses(report)),
        "warnings": [(where(report, warning), warning) for warning in report.warnings],
        "provenance": list(_provenance(report)),
    }


def _number(one: Cell | WorstCase | None, decimals: int) -> Number:
    if one is None:
        return Number(None, "-")
    if one.accuracy is None or one.ci95 is None:
        return Number(None, "failed", note=getattr(one, "error", None) or "")
    return Number(
        one.accuracy,
        percent(one.accuracy),
        interval(one.ci95, decimals),
        difference(one.difference, decimals) if one.difference is not None else "",
        "no better than chance" if at_chance(one) else "",
    )


def _grid(report: Report, measures: Sequence[Measure]) -> Grid:
    decimals = digits(report)
    badges = {Entry(one.model, one.defense_spec): (verdict_label(one), level(one)) for one in report.diagnostics}
    rows = []
    for entry, name in entry_labels(report).items():
        verdict, how = badges.get(entry, ("", ""))
        rows.append(Row(name, [_number(m.found.get(entry), decimals) for m in measures], verdict=verdict, level=how))
    return Grid([m.label for m in measures], rows)


def _cells(report: Report) -> Iterator[dict[str, Any]]:
    labels, decimals = entry_labels(report), digits(report)
    for cell in report.cells:
        number = _number(cell, decimals)
        yield {
            "entry": labels[Entry(cell.model, cell.defense_spec)],
            "attack": cell.attack_spec,
            "knowledge": "unaware" if cell.knowledge == "oblivious" else "",
            "number": number,
            "points": cell.difference.points if cell.difference is not None else None,
            "chance": cell.by_chance,
            "chance_text": percent(cell.by_chance) if cell.by_chance is not None else "",
            "seconds": cell.seconds,
            "error": cell.error if cell.status == "failed" else None,
            "remarks": remarks(cell),
        }


def _unaware(report: Report) -> Iterator[dict[str, Any]]:
    labels, decimals = entry_labels(report), digits(report)
    for pair in false_security(report):
        yield {
            "name": labels[pair.entry],
            "attack": pair.adaptive.attack_spec,
            "adaptive": accuracy(pair.adaptive, decimals),
            "adaptive_value": pair.adaptive.accuracy,
            "oblivious": accuracy(pair.oblivious, decimals),
            "oblivious_value": pair.oblivious.accuracy,
            "gap": points(pair.gap) if pair.gap is not None else "-",
            "gap_value": pair.gap,
        }


def _analyses(report: Report) -> Iterator[dict[str, Any]]:
    for record in report.analyses:
        picture = record.picture
        kinds = {"png": "image/png", "svg": "image/svg+xml"}
        yield {
            "title": record.spec,
            "about": conditions(record),
            "image": f"data:{kinds[picture.format]};base64,{picture.base64}" if picture is not None else None,
            "alt": picture.alt or record.spec if picture is not None else "",
            "readings": list(readings(record)),
            "tables": record.tables,
        }


def _provenance(report: Report) -> Iterator[tuple[str, str]]:
    environment, data = report.environment, report.data
    for label, model in zip(model_labels(report), report.models, strict=True):
        yield "Model", f"{label}: {model.arch} ({model.spec}), {model.parameters:,} parameters"
        yield "Weights", f"sha256 {model.sha256}"
        yield "Normalisation", describe_normalization(model)
        if model.published is not None:
            yield "Published", describe_published(model.published)
    yield "Data", f"{data.spec} [{data.split}], {data.classes} classes, {' x '.join(map(str, data.shape))}"
    yield "Samples", f"{data.n}, {'all there are' if data.ids == 'all' else 'a subset, ids in the JSON report'}"
    yield "Data hash", f"sha256 {data.sha256}"
    yield "Seed", str(report.seed)
    yield "Device", f"{environment.device}, {environment.precision}"
    yield "Versions", f"freqrobust {report.freqrobust_version}, torch {environment.torch}, python {environment.python}"
    yield "Commit", environment.git or "not in a repository"
    yield "Created", report.created
    yield "Status", report.status
