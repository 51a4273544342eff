"""Thresholds, and the tables that show a verdict."""

from __future__ import annotations

import csv
import html
import io
import re
from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from freqrobust import Report
from freqrobust.core.errors import SpecError
from freqrobust.gate.regression import Rules, compare
from freqrobust.gate.thresholds import Threshold, least_right, parse_max_drops, parse_threshold, threshold_rows
from freqrobust.numerics.statistics import wilson
from freqrobust.results.gate_record import GateRecord
from freqrobust.results.gate_view import gate_tables, gate_verdict
from freqrobust.results.rendering import parse_outputs, rendered
from freqrobust.results.reporter import reports


@pytest.mark.parametrize(
    ("text", "cell", "required"),
    [
        ("pgd>=0.45", "pgd", 0.45),
        (" smooth/worst >= 0.3 ", "smooth/worst", 0.3),
        ("pgd:eps=8/255,steps=20>=1/3", "pgd:eps=8/255,steps=20", 1 / 3),
        ("clean>=0", "clean", 0.0),
        ("clean>=1", "clean", 1.0),
    ],
)
def test_thresholds_as_text(text: str, cell: str, required: float) -> None:
    assert parse_threshold(text) == Threshold(cell, required)


def test_limits_as_text() -> None:
    assert parse_max_drops([]) == (0.01, {})
    assert parse_max_drops(["0.02", "pgd:eps=8/255=0.03", "clean=0"]) == (
        0.02,
        {"pgd:eps=8/255": 0.03, "clean": 0.0},
    )
    with pytest.raises(SpecError, match="expected SHARE or CELL=SHARE"):
        parse_max_drops(["a lot"])


@pytest.mark.parametrize("n", [1, 7, 60, 500])
@pytest.mark.parametrize("required", [0.0, 0.1, 0.5, 0.9, 0.99, 1.0])
def test_the_fewest_right_samples_by_trying_all(n: int, required: float) -> None:
    plain = [k for k in range(n + 1) if k / n >= required - 1e-12]
    sure = [k for k in range(n + 1) if wilson(k, n)[0] >= required - 1e-12]
    assert least_right(required, n, confident=False) == plain[0]
    assert least_right(required, n, confident=True) == (sure[0] if sure else n + 1)


def test_thresholds_on_the_edge(make_report) -> None:
    report = make_report({"clean": 45})
    assert threshold_rows(report, [Threshold("clean", 0.45)], False)[0].passed
    assert not threshold_rows(report, [Threshold("clean", 0.4501)], False)[0].passed


def test_of_two_thresholds_on_a_cell_the_higher_counts(make_report) -> None:
    report = make_report({"clean": 80, "pgd:eps=2/255": 50, "pgd:eps=8/255": 30})
    rows = threshold_rows(
        report, [Threshold("pgd", 0.2), Threshold("pgd:eps=2/255", 0.6), Threshold("pgd", 0.1)], False
    )
    assert {r.name.rpartition(" ")[2]: (r.required, r.passed) for r in rows} == {
        "pgd:eps=2/255": (0.6, False),
        "pgd:eps=8/255": (0.2, True),
    }


def test_thresholds_on_several_models(make_report) -> None:
    rows = threshold_rows(make_report({"clean": 80}, models=2), [Threshold("clean", 0.5)], False)
    assert [r.name for r in rows] == ["net0: undefended / clean", "net1: undefended / clean"]


def judged(make_report) -> Report:
    """A report with every kind of row: thresholds, a regression, a sweep, and what is not judged."""
    cells = {"clean": 90, "lfc:radius=12": 80, "smooth:rho=0.1|clean": 85}
    cells |= {f"pgd:eps={k}/255,steps=20,restarts=3": 50 - int(5 * k) for k in (0.5, 1, 2)}
    worse = {key: value - 20 for key, value in cells.items()} | {"lfc:radius=12": 79, "smooth:rho=0.1|clean": 85}
    old, new = make_report(cells), make_report(worse)
    thresholds = threshold_rows(new, [Threshold("worst", 0.2), Threshold("clean", 0.5)], True)
    comparison = compare(old, new, Rules(max_drops=(("worst-linf-0.5/255", 0.3),)), name="[red]b.json")
    new.gate = GateRecord(passed=False, comparison=comparison, thresholds=thresholds)
    return new


def shown(form: str, report: Report) -> str:
    (output,) = parse_outputs([f"{form}=-"], "--report")
    return rendered(output, {"r": report})


def test_what_a_row_says(make_report) -> None:
    thresholds, changes = gate_tables(judged(make_report).gate)
    assert {row.record.name: row.result for row in thresholds.rows} == {
        "undefended / worst-linf-1/255": "failed",
        "undefended / worst-linf-2/255": "failed",
        "undefended / worst-linf-0.5/255": "passed",
        "undefended / clean": "passed",
    }
    assert {row.record.name: row.result for row in changes.rows if row.result != "not judged"} == {
        "undefended / clean": "regression",
        "undefended / worst-linf-1/255": "regression",
        "undefended / worst-linf-2/255": "regression",
        "undefended / worst-linf-0.5/255": "allowed drop",
        "undefended / lfc:radius=12": "no significant change",
        "smooth:rho=0.1 / clean": "no drop",
    }
    clean = next(row for row in changes.rows if row.record.name == "undefended / clean")
    assert clean.record.text.startswith(
        "regression: the accuracy changed from 90.0% to 70.0% (-20.0 points; allowed drop: 1), with 20 samples newly "
        "misclassified and 0 newly correct (p = "
    )
    assert changes.columns["minimum_detectable_drop"] == "minimum detectable drop (80 % power)"
    assert "".join(clean.values[key].text for key in ("baseline", "new", "change")) == "90.070.0-20.0"


FORMS = ["table:width=160", "table:show=gate,width=160", "html", "markdown", "latex", "csv", "junit"]


@pytest.mark.parametrize("form", FORMS)
def test_every_reporter_shows_the_whole_gate(make_report, form: str) -> None:
    """Names and results of all rows, and in tables the headings of all columns."""
    report = judged(make_report)
    assert report.gate is not None
    text = shown(form, report)
    plain = re.sub(r"<wbr>|[\{}]|\s", "", text)
    for table in gate_tables(report.gate):
        for row in table.rows:
            assert "".join(row.record.name.split()) in plain, row.record.name
            assert form == "junit" or "".join(row.result.split()) in plain
        for key, heading in table.columns.items():
            if form in ("html", "markdown"):
                assert f">{heading}<" in text or f"| {heading} |" in text
            elif form == "csv":
                assert f"gate_{key}" in text or key in ("accuracy", "interval", "samples")
        for row in report.gate.rows if form == "junit" else []:
            assert row.text in text.replace("&gt;", ">")
    if form != "csv":
        assert form == "junit" or gate_verdict(report.gate) in text


#: In the order of the headings, of two rows whose numbers are all different.
ASYMMETRIC = {
    ("accuracy", "95 % interval", "required"): ["70.0", "[60.4, 78.1]", "low end 50"],
    ("baseline", "new", "change", "allowed drop", "newly misclassified", "newly correct"): [
        "90.0",
        "70.0",
        "-20.0",
        "2",
        "25",
        "5",
    ],
}


@pytest.mark.parametrize("form", ["table:show=gate,width=200", "html", "markdown", "csv"])
def test_headings_are_those_of_their_values(make_report, form: str) -> None:
    """Measured is not shown as required, nor the baseline as the new report; all numbers differ."""
    before, after = np.arange(100) < 90, (np.arange(100) >= 25) & (np.arange(100) < 95)
    old, new = make_report({"clean": before}), make_report({"clean": after})
    rows = threshold_rows(new, [Threshold("clean", 0.5)], True)
    comparison = compare(old, new, Rules(max_drop=0.02), name="old.json")
    new.gate = GateRecord(passed=False, comparison=comparison, thresholds=rows)
    text = shown(form, new)
    if form == "csv":
        lines = [line for line in csv.DictReader(io.StringIO(text)) if line["gate_cell"]]
        threshold, change = lines
        assert (threshold["accuracy"], threshold["gate_required"]) == ("0.7", "0.5")
        keys = ("baseline", "new", "change", "allowed_drop", "newly_misclassified", "newly_correct")
        assert [float(change[f"gate_{key}"]) for key in keys] == pytest.approx([0.9, 0.7, -0.2, 0.02, 25, 5])
        return
    for headings, values in ASYMMETRIC.items():
        assert dict(table_row(text, form, headings)) == dict(zip(headings, values, strict=True))


def table_row(text: str, form: str, headings: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Each heading with the value of the first row that stands below it, as a reader sees it."""
    if form == "html":
        (table,) = [
            found
            for found in re.findall(r"<table.*?</table>", text, re.DOTALL)
            if all(f">{heading}<" in found for heading in headings) and "undefended / clean" in plain_text(found)
        ]
        lines = [
            [plain_text(cell) for cell in re.findall(r"<t[hd]\b.*?</t[hd]>", row, re.DOTALL)]
            for row in re.findall(r"<tr.*?</tr>", table, re.DOTALL)
        ]
    else:
        split = [
            [cell.strip(" *`") for cell in (line.strip("|") if line.startswith("|") else line).split("|")]
            for line in plain(text).splitlines()
        ]
        tables: list[list[list[str]]] = [[]]
        for cells in split:  # headings may be folded over several lines; a rule or an empty line ends them
            if len(cells) == 1 and not set(cells[0]) <= set("-+: "):
                tables.append([])
            elif len(cells) > 1:
                tables[-1].append(cells)
        found = [table for table in tables if len(table) > 1]
        lines = []
        for table in found:
            body = next((number for number, cells in enumerate(table) if any("undefended" in c for c in cells)), 0)
            above = [cells for cells in table[:body] if len(cells) == len(table[body])]
            head = [" ".join(filter(None, column)).strip(" -+:") for column in zip(*above, strict=True)]
            lines = [head, *table[body:]] if set(headings) <= set(head) else lines
    head = lines[0]
    row = next(cells for cells in lines[1:] if any("clean" in cell for cell in cells))
    yield from ((heading, row[head.index(heading)]) for heading in headings)


def plain(text: str) -> str:
    """Without the character references of Markdown."""
    return html.unescape(text)


def plain_text(markup: str) -> str:
    return " ".join(html.unescape(re.sub(r"<wbr>|<[^>]+>", "", markup)).split())


def test_the_terminal_can_show_the_gate_alone(make_report) -> None:
    report = judged(make_report)
    whole, gate = shown("table", report), shown("table:show=gate", report)
    assert gate in whole
    assert "Accuracy in percent, 95 % interval" in whole
    assert "Accuracy in percent, 95 % interval" not in gate
    assert shown("table:show=gate", make_report({"clean": 10})) == ""


@pytest.mark.parametrize("width", [80, 100, 160])
def test_tables_fit_and_show_everything(make_report, width: int) -> None:
    report = judged(make_report)
    assert report.gate is not None
    text = shown(f"table:show=gate,width={width}", report)
    assert max(map(len, text.splitlines())) <= width
    joined = "".join(text.split())
    for row in report.gate.rows:
        assert "".join(row.name.split()) in joined or width < 160  # folded over lines
    assert text.count("regression |") == 3
    for word in ("newly", "misclassified", "correct", "corrected", "detectable"):
        assert re.search(rf"\b{word}\b *\|? ", text), word  # no heading is broken inside a word
    assert text.rstrip().endswith(gate_verdict(report.gate))
    assert gate_verdict(report.gate) == "gate failed: 5 of 10 checks failed"
    assert "Changes from the baseline [red]b.json" in text  # no markup


def test_a_terminal_gets_the_same_words(make_report, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "xterm")
    report, terminal = judged(make_report), Terminal()
    reports.get("table")(show="gate", width=160, full=True).render(report, terminal)

    def words(text: str) -> list[str]:
        return re.findall(r"[\w.:=/%-]*\w[\w.:=/%-]*", re.sub(r"\x1b\[[0-9;]*m", "", text))

    assert "\x1b[" in terminal.getvalue()
    assert words(terminal.getvalue()) == words(shown("table:show=gate,width=160", report))


def test_a_drop_that_cannot_be_detected(make_report) -> None:
    """Where the baseline is smaller than the minimum detectable drop, the column says that there is none."""
    report = make_report({"clean": 100, "lfc:radius=12": 1})
    (table,) = gate_tables(GateRecord(passed=True, comparison=compare(report, report, Rules())))
    drops = {row.record.name: row.values["minimum_detectable_drop"].text for row in table.rows}
    assert drops.pop("undefended / lfc:radius=12") == "none"
    assert float(drops.pop("undefended / clean")) > 0
    assert drops == {}


def test_a_verdict_that_contradicts_its_rows_is_refused(make_report) -> None:
    gate = judged(make_report).gate
    assert gate is not None
    with pytest.raises(ValueError, match="the gate says passed = True"):
        GateRecord(passed=True, thresholds=gate.thresholds)
