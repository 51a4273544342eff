"""Reports, analyses and gates in Python and in notebooks."""

from __future__ import annotations

import builtins
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, get_args

import pandas
import pytest

from freqrobust import FreqRobustError, Report
from freqrobust.core.errors import SpecError
from freqrobust.core.source_hash import covered
from freqrobust.harness.run import ENGINE
from freqrobust.results import data_frame, figures, rendering
from freqrobust.results.diagnosis import Verdict
from freqrobust.results.glossary import TERMS, glossary
from freqrobust.results.summary import entries, headline, statements, warning_lines

DOCS = Path(__file__).resolve().parents[2]
PRESENTERS = ("report_text", "analysis_text", "gate_text", "fragments", "data_frame", "report_figure", "rendering")


@pytest.fixture(scope="module")
def report(decorate: Callable[[str], Report]) -> Report:
    return decorate("plain")


class Parsed(HTMLParser):
    """The elements of a fragment, and its text; every element has to be closed."""

    EMPTY = ("img",)

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.text = ""
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def records(report: Report) -> list[Any]:
    return [report, report.analyses[0], report.gate]


def test_a_report_in_a_few_words(report: Report) -> None:
    assert repr(report).startswith(
        "<Report: plain first, plain second on plain, 60 samples, 38 cells, 1 failed, clean "
    )
    lines = str(report).splitlines()
    measures = sum(entry in measure.found for entry in entries(report) for measure in headline(report))
    assert len(lines) == 1 + len(entries(report)) + measures + len(statements(report)) + len(warning_lines(report))
    clean = report.cells[0].accuracy
    assert clean is not None
    assert f"  clean: {100 * clean:.1f} % [" in str(report)
    assert lines[-1 - len(warning_lines(report))].endswith("overestimated: plain")
    assert lines[-1] == warning_lines(report)[-1]  # as in a terminal


def test_short_forms_of_the_parts(report: Report) -> None:
    gate = report.gate
    assert gate is not None
    assert repr(gate) == "<GateRecord: gate failed: 1 of 2 checks failed>"
    assert str(gate).splitlines() == ["gate failed: 1 of 2 checks failed", "plain: plain"]
    analysis = report.analyses[0]
    assert repr(analysis) == "<AnalysisRecord: heatmap:plain of plain first, plain second on plain, 60 samples>"
    assert str(analysis).splitlines()[1:] == ["plain: plain"]
    assert "data:image/png;base64," in analysis._repr_html_()


def test_the_table_of_a_notebook(report: Report) -> None:
    shown = Parsed(report._repr_html_())
    for measure in headline(report):
        assert measure.label in shown.text
        for record in measure.found.values():
            assert record.accuracy is None or f"{100 * record.accuracy:.1f}" in shown.text
    for line in [*(statement.text for statement in statements(report)), *warning_lines(report)]:
        assert line in shown.text


def test_text_of_others_stays_text(decorate: Callable[[str], Report], hostile: str) -> None:
    harmless = decorate("plain")
    for record, plain in zip(records(decorate(hostile)), records(harmless), strict=True):
        html = Parsed(record._repr_html_())
        assert html.tags <= Parsed(plain._repr_html_()).tags
        assert html.attributes <= {"style", "alt", "src"}
        assert "\n" not in repr(record)
        for control in "\x00\x1b\u202e":
            assert control not in str(record) + repr(record) + record._repr_html_()


def test_colours_of_a_notebook_are_those_of_the_page(report: Report) -> None:
    """Text without a colour of its own is read on light and on dark pages."""
    for record in records(report):
        html = record._repr_html_()
        assert "color:#" not in html.replace("border-color:#", "")
        assert "<script" not in html


def test_a_row_for_each_cell(report: Report) -> None:
    frame = report.to_dataframe()
    assert len(frame) == len(report.cells)
    assert frame["attack"].tolist() == [cell.attack_spec for cell in report.cells]
    assert frame["defense"].tolist() == [cell.defense_spec for cell in report.cells]
    ok = frame["status"] == "ok"
    assert frame["accuracy"][ok].tolist() == [cell.accuracy for cell in report.cells if cell.status == "ok"]
    assert frame["accuracy"][~ok].isna().all()
    assert frame["correct"][~ok].isna().all()
    assert frame["backwards"].tolist() == [cell.backwards for cell in report.cells]
    sums = frame[ok].groupby("kind")["correct"].sum()
    assert sums["shift"] == sum(c.correct for c in report.cells if c.kind == "shift" and c.status == "ok")


def test_columns_have_types_also_where_nothing_is_known(report: Report) -> None:
    frame = report.to_dataframe()
    wanted = {
        "n": "int64",
        "accuracy": "float64",
        "eps": "float64",
        "correct": "Int64",
        "votes": "Int64",
        "eot": "Int64",
    }
    wanted |= {"median": "float64", "seconds": "float64", "attack": "string", "breakdown": "string", "error": "string"}
    assert {name: str(frame.dtypes[name]) for name in wanted} == wanted
    assert frame["votes"].isna().all()
    one = report.model_copy(update={"cells": report.cells[:1]}).to_dataframe()
    shared = [name for name in one.columns if name in frame.columns]
    assert (one.dtypes[shared] == frame.dtypes[shared]).all()
    assert isinstance(one, pandas.DataFrame)


def test_without_pandas(report: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_frame, "find_spec", lambda name: None)
    with pytest.raises(SpecError, match="a data frame needs pandas: pip install pandas"):
        report.to_dataframe()


def test_the_page_is_that_of_the_reporter(report: Report, shown: Callable[..., str], tmp_path: Path) -> None:
    path = tmp_path / "out.html"
    text = report.to_html(path, theme="dark", title="A title")
    assert text == shown("html", report, theme="dark", title="A title")
    assert path.read_text(encoding="utf-8") == text
    assert report.to_html() == shown("html", report)


def test_wrong_pages(report: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SpecError, match="theme"):
        report.to_html(theme="blue")  # type: ignore[arg-type]
    with pytest.raises(FreqRobustError, match="it is a directory"):
        report.to_html(tmp_path)
    monkeypatch.setattr(rendering, "find_spec", lambda name: None)
    with pytest.raises(SpecError, match="needs jinja2"):
        report.to_html(tmp_path / "out.html")
    assert not (tmp_path / "out.html").exists()


def test_the_figure(report: Report, tmp_path: Path) -> None:
    path = tmp_path / "out.svg"
    drawn = report.plot(path)
    axes = drawn.get_axes()
    titles = [one.get_title() for one in axes]
    assert "Worst case against Linf eps" in titles
    assert "Low frequencies only (LFC)" in titles
    assert "Robustness curve, Linf" in titles
    for one in axes:
        assert one.get_xlabel()
    ticks = [label.get_text().replace("\n", "") for label in axes[0].get_yticklabels()]
    assert len(ticks) == len(headline(report))
    points = sorted(
        x for line in axes[0].get_lines() if line.get_marker() not in ("None", None, "") for x in line.get_xdata()
    )
    expected = [100 * r.accuracy for m in headline(report) for r in m.found.values() if r.accuracy is not None]
    assert points == pytest.approx(sorted(expected))
    assert path.read_text(encoding="utf-8").startswith("<?xml")


def test_wrong_figures(report: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SpecError, match=r"should end in .*but got"):
        report.plot(tmp_path / "out.jpeg")
    with pytest.raises(SpecError, match="no cells to plot"):
        report.model_copy(update={"cells": [], "worst_case": [], "certificates": []}).plot()
    monkeypatch.setattr(figures, "can_draw", lambda: False)
    with pytest.raises(SpecError, match=r"pip install 'freqrobust\[plots\]'"):
        report.plot()


def test_what_measures_does_not_depend_on_what_shows() -> None:
    """A change of a table or a picture leaves finished cells in the journal."""
    modules = covered(ENGINE)
    assert "freqrobust.harness.cell" in modules
    shown = [
        f"freqrobust.results.{name}" for name in (*PRESENTERS, "report", "examples", "glossary", "summary", "view")
    ]
    assert not set(modules) & set(shown)
    assert not [module for module in modules if module.startswith("freqrobust.reports")]
    assert "freqrobust.harness.example_images" not in modules


def test_a_repr_measures_and_writes_nothing(report: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builtins, "open", lambda *args, **kwargs: pytest.fail("a file was opened"))
    assert repr(report) == repr(Report.model_validate(report.model_dump()))


def test_every_term_has_a_page() -> None:
    assert len({term.name for term in TERMS}) == len(TERMS)
    for term in TERMS:
        assert (DOCS / term.page).is_file(), term.page
        assert term.text.endswith(".")
    verdicts = {term.name.removeprefix("verdict: ") for term in TERMS if term.name.startswith("verdict: ")}
    assert verdicts == set(get_args(Verdict))


def test_only_terms_that_are_used(report: Report, shown: Callable[..., str]) -> None:
    names = [term.name for term in glossary(report)]
    assert {"worst case", "certified", "minimum-norm attack", "verdict: overestimated", "corruption, mCE"} <= set(names)
    assert "verdict: inconclusive" not in names
    page = shown("html", report)
    assert all((f"<dt>{term.name}</dt>" in page) == (term.name in names) for term in TERMS if "&" not in term.name)
    clean = report.model_copy(
        update={
            "cells": report.cells[:1],
            "worst_case": [],
            "certificates": [],
            "diagnostics": [],
            "corruptions": [],
            "examples": [],
            "gate": None,
        }
    )
    assert [term.name for term in glossary(clean)] == ["accuracy", "95 % interval", "no better than chance (~)"]
