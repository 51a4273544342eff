"""The report as JUnit XML: what continuous integration shows as test results."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Literal
from xml.etree import ElementTree

from freqrobust.core.text import one_line
from freqrobust.reports.text import AGAINST, accuracy, check_number, check_reason, conditions, difference, digits
from freqrobust.results.cells import Cell
from freqrobust.results.gate_view import gate_tables
from freqrobust.results.reporter import Reporter
from freqrobust.results.summary import diagnosed, entry_labels, entry_of, verdict_text, warning_text
from freqrobust.results.view import facts, footnotes, name_of, notes, ranges

if TYPE_CHECKING:
    from freqrobust.results.certificates import CertificateRecord
    from freqrobust.results.report import Report


@dataclass(frozen=True)
class _Case:
    """One test case: what it is about, how it ended, and why."""

    group: str
    name: str
    seconds: float
    outcome: Literal["passed", "failure", "error", "skipped"]
    text: str
    kind: str = ""
    about: Sequence[str] = ()


class JUnit(Reporter):
    """A test case for each cell, certificate, threshold, change from the baseline and check, in the JUnit form that CI systems read.

    A cell passes when it could be measured: only thresholds, regressions and checks can fail. Rows shown
    as information count as skipped.
    """

    def render(self, report: Report, target: IO[str]) -> None:
        self.render_many({"freqrobust": report}, target)

    def render_many(self, reports: Mapping[str, Report], target: IO[str]) -> None:
        suites = [_suite(name, report) for name, report in reports.items()]
        totals = {key: str(sum(int(s.get(key, "0")) for s in suites)) for key in ("tests", "failures", "errors")}
        seconds = sum(float(s.get("time", "0")) for s in suites)
        root = ElementTree.Element("testsuites", {"name": "freqrobust", "time": f"{seconds:.3f}", **totals})
        root.extend(suites)
        ElementTree.indent(root)
        target.write('<?xml version="1.0" encoding="UTF-8"?>\n')
        target.write(ElementTree.tostring(root, encoding="unicode"))
        target.write("\n")


def _suite(name: str, report: Report) -> ElementTree.Element:
    cases = [*_cells(report), *_certificates(report), *_gate(report), *_checks(report)]
    count = {outcome: sum(case.outcome == outcome for case in cases) for outcome in ("failure", "error", "skipped")}
    suite = ElementTree.Element(
        "testsuite",
        {
            "name": one_line(name),
            "tests": str(len(cases)),
            "failures": str(count["failure"]),
            "errors": str(count["error"]),
            "skipped": str(count["skipped"]),
            "time": f"{sum(case.seconds for case in cases):.3f}",
            "timestamp": report.created.removesuffix("Z"),
        },
    )
    properties = ElementTree.SubElement(suite, "properties")
    for key, value in _properties(report):
        ElementTree.SubElement(properties, "property", {"name": key, "value": one_line(value)})
    for case in cases:
        suite.append(_element(case))
    if report.warnings:
        lines = [one_line(f"warning: {warning_text(report, warning)}") for warning in report.warnings]
        ElementTree.SubElement(suite, "system-err").text = "\n".join(lines)
    return suite


def _properties(report: Report) -> Iterator[tuple[str, str]]:
    yield "conditions", conditions(report)
    yield "status", report.status
    for model in report.models:
        yield "model", f"{model.arch} ({model.spec}), sha256 {model.sha256}"
    yield "data sha256", report.data.sha256
    yield "freqrobust", report.freqrobust_version
    yield "torch", report.environment.torch
    yield "git", report.environment.git or "not in a repository"
    for diagnosis in report.diagnostics:
        yield "verdict", verdict_text(report, diagnosis)
    yield "over all cells", "; ".join(ranges(report))
    for note in footnotes(report):
        if note.worst_case:  # those of cells are with their test cases
            yield "note", str(note)
    for table in gate_tables(report.gate):
        for line in table.notes:
            yield "note", line


def _element(case: _Case) -> ElementTree.Element:
    attributes = {"classname": one_line(case.group), "name": one_line(case.name), "time": f"{case.seconds:.3f}"}
    element = ElementTree.Element("testcase", attributes)
    text = one_line(case.text)
    output = [one_line(fact) for fact in case.about]
    if case.outcome == "passed":
        output = [text, *output]
    else:
        kind = {"type": case.kind} if case.kind else {}
        ElementTree.SubElement(element, case.outcome, {"message": text, **kind}).text = text
    if output:
        ElementTree.SubElement(element, "system-out").text = "\n".join(output)
    return element


def _group(part: str, label: str) -> str:
    """A class name; dots inside a label would be taken for packages."""
    return f"freqrobust.{part}.{label.replace('.', '_')}"


def _cells(report: Report) -> Iterator[_Case]:
    labels = entry_labels(report)
    for cell in report.cells:
        group = _group("cells", labels[entry_of(cell)])
        about = [f"{fact.label} {fact.text}" for fact in facts(cell) if fact.place != "note" and fact.text]
        if cell.status == "failed":
            text = cell.error or "failed"
            yield _Case(group, name_of(cell), cell.seconds, "error", text, "cell-failed", about)
        else:
            yield _Case(group, name_of(cell), cell.seconds, "passed", _result(cell, digits(report)), about=about)


def _certificates(report: Report) -> Iterator[_Case]:
    labels = entry_labels(report)
    for record in report.certificates:
        group = _group("certificates", labels[entry_of(record)])
        if record.status == "failed":
            text = record.error or "failed"
            yield _Case(group, name_of(record), record.seconds, "error", text, "certificate-failed")
        else:
            about = [f"{record.guarantee}: {record.statement}"]
            yield _Case(group, name_of(record), record.seconds, "passed", _result(record, digits(report)), about=about)


def _result(cell: Cell | CertificateRecord, decimals: int) -> str:
    what = "accuracy" if isinstance(cell, Cell) else "certified accuracy"
    text = f"{what} {accuracy(cell, decimals)} %, {cell.correct} of {cell.n}"
    change = [f"{AGAINST} {difference(cell.difference, decimals)}"] if cell.difference is not None else []
    return "; ".join([text, *change, *notes(cell)])


_OUTCOMES: dict[bool | None, Literal["passed", "failure", "skipped"]] = {
    True: "passed",
    False: "failure",
    None: "skipped",
}


def _gate(report: Report) -> Iterator[_Case]:
    for row in (row.record for table in gate_tables(report.gate) for row in table.rows):
        yield _Case(_group("gate", row.kind), row.name, 0.0, _OUTCOMES[row.passed], row.text, row.kind)


def _checks(report: Report) -> Iterator[_Case]:
    for one in report.diagnostics:
        group = _group("diagnostics", diagnosed(report, one))
        for check in one.checks:
            numbers = [
                f"{what} {check_number(value, check)}"
                for what, value in (("measured", check.measured), ("at most", check.threshold))
                if value is not None
            ]
            text = "; ".join(filter(None, [", ".join(numbers), check_reason(check), check.source]))
            outcome: Literal["passed", "failure", "skipped"] = (
                "passed" if check.status == "passed" else "failure" if check.status == "failed" else "skipped"
            )
            yield _Case(group, check.name, 0.0, outcome, f"{check.status}: {text}", "check")
