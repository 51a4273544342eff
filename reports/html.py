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

from freqrobust.core.percent import interval, percent
from freqrobust.core.text import one_line
from freqrobust.reports._robustness import robustness_charts
from freqrobust.reports.comparing import Comparing
from freqrobust.reports.curves import Chart, charts
from freqrobust.reports.text import (
    AGAINST,
    CERTIFIED,
    check_table,
    conditions,
    corruption_tables,
    difference,
    digits,
    entry_head,
    oblivious_table,
    provenance,
    readings,
    robustness_tables,
    title,
)
from freqrobust.results.accuracy_curves import Named
from freqrobust.results.gate_view import gate_tables, gate_verdict
from freqrobust.results.glossary import glossary
from freqrobust.results.robustness_tables import UPPER_BOUND
from freqrobust.results.summary import (
    Measure,
    at_chance,
    diagnosed,
    entry_labels,
    entry_of,
    headline,
    level,
    model_labels,
    statements,
    verdict_label,
    where,
    with_defense,
)
from freqrobust.results.view import facts, footnotes, notes

if TYPE_CHECKING:
    from markupsafe import Markup

    from freqrobust.results.certificates import Counted
    from freqrobust.results.leaderboard import Board
    from freqrobust.results.report import Report


#: Images with a longer side are stored smaller.
_EXAMPLE_SIDE = 224


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
    template: ClassVar[str] = "report.html"

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
        page = self._page(
            self.template,
            heading=heading,
            about=about,
            board=ranked_grid(board, reports) if board is not None else None,
            notes=board.notes if board is not None else [],
            charts=drawn(named),
            views=[_view(name, report, index) for index, (name, report) in enumerate(reports.items())],
            terms=list(dict.fromkeys(term for report in reports.values() for term in glossary(report))),
        )
        target.write(page)

    def _page(self, template: str, **values: Any) -> str:
        """A page by one of the templates, with the style and the script in it."""
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
        css, script = _template("report.css"), _template("report.js")
        return environment.get_template(template).render(
            theme=self.theme, policy=_policy(css, script), css=Markup(css), script=Markup(script), **values
        )


def drawn(named: Sequence[Named]) -> list[tuple[Chart, str]]:
    """The charts of entries, each with what its script needs."""
    return [(chart, json.dumps(chart.stops)) for chart in (*charts(named), *robustness_charts(named))]


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


def ranked_grid(board: Board, reports: Mapping[str, Report]) -> Grid:
    """The table of a leaderboard."""
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
        "chance": any(at_chance(record) for measure in headline(report) for record in measure.found.values()),
        "certified": CERTIFIED if report.certificates else "",
        "cells": list(_cells(report)),
        "entry": entry_head(report),
        "against": AGAINST,
        "oblivious": oblivious_table(report),
        "footnotes": [str(note) for note in footnotes(report) if note.worst_case],
        "diagnostics": [
            (
                diagnosed(report, diagnosis),
                diagnosis.sentence,
                check_table(diagnosis),
                verdict_label(diagnosis),
                level(diagnosis),
            )
            for diagnosis in report.diagnostics
        ],
        "gate_verdict": gate_verdict(report.gate) if report.gate is not None else "",
        "gate_tables": gate_tables(report.gate),
        "robustness": list(robustness_tables(report)),
        "upper_bound": UPPER_BOUND,
        "corruptions": list(corruption_tables(report)),
        "analyses": list(_analyses(report)),
        "examples": list(_examples(report)),
        "warnings": [(where(report, warning), warning) for warning in report.warnings],
        "provenance": list(provenance(report)),
    }


def _number(one: Counted | None, decimals: int) -> Number:
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
    badges = {entry_of(diagnosis): (verdict_label(diagnosis), level(diagnosis)) for diagnosis in report.diagnostics}
    rows = []
    for entry, name in entry_labels(report).items():
        verdict, how = badges.get(entry, ("", ""))
        rows.append(Row(name, [_number(m.found.get(entry), decimals) for m in measures], verdict=verdict, level=how))
    return Grid([m.label for m in measures], rows)


def _cells(report: Report) -> Iterator[dict[str, Any]]:
    labels, decimals = entry_labels(report), digits(report)
    for cell in report.cells:
        shown = [fact for fact in facts(cell) if fact.place != "note"]
        yield {
            "entry": labels[entry_of(cell)],
            "attack": cell.attack_spec,
            "knowledge": "oblivious" if cell.knowledge == "oblivious" else "",
            "number": _number(cell, decimals),
            "points": cell.difference.points if cell.difference is not None else None,
            "columns": [fact for fact in shown if fact.place == "column"],
            "details": [(fact.label, fact.text) for fact in shown if fact.place == "detail" and fact.text],
            "error": cell.error if cell.status == "failed" else None,
            "notes": notes(cell),
        }


#: What the rows of example images are called.
_KINDS = {"clean": "clean", "adversarial": "adversarial", "perturbation": "perturbation", "lfc": "LFC", "hfc": "HFC"}


def _examples(report: Report) -> Iterator[dict[str, Any]]:
    labels = model_labels(report)
    for one in report.examples:
        model = labels[one.model]
        heads = {**_KINDS, "perturbation": f"perturbation x {one.magnified:g}"}
        heads |= {kind: f"{_KINDS[kind]}, radius {one.radius:g}" for kind in ("lfc", "hfc")}
        yield {
            "entry": with_defense(model, one.defense_spec) if len(labels) > 1 else one.defense_spec,
            "attack": one.attack_spec,
            "shrunk": max(one.width, one.height) > _EXAMPLE_SIDE,
            "size": f"{one.width} x {one.height}",
            "samples": [
                {
                    "id": sample.id,
                    "label": class_text(sample.label, sample.name),
                    "adversarial": sample.adversarial,
                    "pictures": [
                        {
                            "head": heads[picture.kind],
                            "source": f"data:image/png;base64,{picture.base64}",
                            "alt": f"{heads[picture.kind]}: sample {sample.id}",
                            "prediction": ""
                            if picture.prediction is None
                            else class_text(picture.prediction, picture.name),
                            "right": picture.prediction == sample.label,
                        }
                        for picture in sample.pictures
                    ],
                }
                for sample in one.samples
            ],
        }


def class_text(number: int, name: str | None) -> str:
    """The name of a class, or its number; not a number where the model returned NaN."""
    return name if name else "no class (NaN)" if number < 0 else f"class {number}"


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
