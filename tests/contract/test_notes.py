"""What a reader has to know beside the numbers is in every report: verdicts, notes of cells, parts, warnings."""

from __future__ import annotations

import csv
import html
import io
import re
from typing import ClassVar
from xml.etree import ElementTree

import pytest
import torch
from torch import nn

from freqrobust import Attack, Report, evaluate
from freqrobust.results.diagnosis import Diagnosis
from freqrobust.results.records import Warned
from freqrobust.results.summary import Entry, entry_labels, verdict_label
from freqrobust.results.view import footnotes

REPORTS = ["table", "html", "markdown", "csv", "latex", "junit"]

NOTE = "not standard: 3 classes, without apgd-t"
PARTS = "samples misclassified by each part: apgd-ce 4, square 1"
WORST = "samples misclassified only by the diagnostic checks: 8"
WARNING = "library: UserWarning: steps were reduced"
SENTENCE = "no problem found by 4 quick checks (39 of 60 samples robust at Linf 1/255); not tested with strong attacks"


@pytest.fixture(scope="module")
def noted(measured: Report) -> Report:
    """A report with everything that is to be said beside a number."""
    report = measured.model_copy(deep=True)
    cell = next(c for c in report.cells if c.attack == "pgd" and c.defense == "undefended")
    cell.notes, cell.breakdown = [NOTE], {"apgd-ce": 4, "square": 1}
    for number, row in enumerate(report.worst_case):
        row.by_checks = 0 if number else 8
    report.warnings = [Warned(code="attack-warning", message=WARNING, defense="undefended", attack=cell.attack_spec)]
    about = {"defense": "undefended", "defense_spec": "undefended", "defense_params": {}, "checks": []}
    report.diagnostics = [
        Diagnosis(**about, verdict="no problem found", sentence=SENTENCE),
        Diagnosis(**about, model=1, depth="full", verdict="nothing to check", sentence="nothing to check: 0 of 60"),
    ]
    return Report.model_validate(report.model_dump())


def plain(name: str, text: str) -> str:
    """The text that a reader sees, on one line."""
    if name in ("html", "markdown", "junit"):
        text = html.unescape(re.sub(r"<[^>]*>", "", text) if name == "html" else text)
    if name == "latex":
        text = text.replace("{}", "").replace("\\_", "_")
    return " ".join(text.split())


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("name", REPORTS)
def test_every_report_says_all(name, together, noted, shown) -> None:
    options = {"full": True} if name == "table" else {}
    text = plain(name, shown(name, {"a": noted, "b": noted} if together else noted, **options))
    counts = ["apgd-ce 4, square 1"] if name == "csv" else [PARTS, WORST]  # whose columns are named
    for said in (NOTE, *counts, WARNING, SENTENCE, "nothing to check: 0 of 60"):
        assert said in text, said


@pytest.mark.parametrize("name", REPORTS)
def test_nothing_is_said_without_a_reason(name, measured, shown) -> None:
    worst = [row.model_copy(update={"by_checks": 0}) for row in measured.worst_case]
    silent = measured.model_copy(update={"diagnostics": [], "warnings": [], "worst_case": worst})
    text = plain(name, shown(name, silent))
    assert "each part" not in text
    assert "diagnostic checks" not in text


def test_footnotes_name_what_they_are_about(noted) -> None:
    label = entry_labels(noted)[Entry(0, "undefended")]
    found = [str(note) for note in footnotes(noted)]
    assert found == [
        f"{label} / worst case L2 0.5: {WORST}",
        f"{label} / pgd:eps=0.01,steps=2: {NOTE}",
        f"{label} / pgd:eps=0.01,steps=2: {PARTS}",
    ]
    oblivious = next(c for c in noted.model_copy(deep=True).cells if c.knowledge == "oblivious")
    oblivious.notes = ["a note"]
    other = noted.model_copy(update={"cells": [oblivious], "worst_case": []})
    assert str(footnotes(other)[0]).endswith(f"{oblivious.attack_spec} (oblivious): a note")


def test_csv_puts_them_into_the_rows_they_are_about(noted, shown) -> None:
    rows = list(csv.DictReader(io.StringIO(shown("csv", noted), newline="")))
    assert [row["notes"] for row in rows if row["notes"]] == [NOTE]
    assert [row["breakdown"] for row in rows if row["breakdown"]] == ["apgd-ce 4, square 1"]
    (warned,) = [row for row in rows if row["warnings"]]
    assert (warned["attack"], warned["defense"], warned["knowledge"]) == (
        "pgd:eps=0.01,steps=2",
        "undefended",
        "adaptive",
    )
    assert next(row["by_checks"] for row in rows if row["attack"] == "worst case") == "8"
    judged = {(row["model"], row["verdict"]) for row in rows if row["verdict"]}
    assert judged == {("first", "no problem found"), ("second", "nothing to check")}
    assert not any(row["verdict"] for row in rows if row["kind"] == "shift")


def test_junit_puts_the_notes_of_a_cell_into_its_case(noted, shown) -> None:
    suite = ElementTree.fromstring(shown("junit", noted))[0]
    (case,) = [c for c in suite.iter("testcase") if NOTE in "".join(c.itertext())]
    assert case.get("name") == "pgd:eps=0.01,steps=2"
    properties = [(p.get("name"), p.get("value")) for p in suite.iter("property")]
    assert ("verdict", f"first: {SENTENCE}") in properties


def test_a_quick_verdict_is_not_marked_as_passed(noted, shown) -> None:
    one = noted.diagnostics[0]
    full = one.model_copy(update={"depth": "full"})
    assert verdict_label(one) == "no problem found by quick checks"
    assert verdict_label(full) == "no problem found"
    after = noted.model_copy(update={"diagnostics": [full]})
    for report, mark, badge in ((noted, "- note: first", "neutral"), (after, "- \\*\\*passed\\*\\*: first", "good")):
        assert re.search(mark, shown("markdown", report))
        assert f'<span class="badge {badge}">' in shown("html", report)
    assert "first (no problem found by quick checks)" in plain("markdown", shown("markdown", {"a": noted})).replace(
        "`", ""
    )


class Warns(Attack):
    """Says something through Python's warnings, as code of others does."""

    eps: float = 0.1
    norm: ClassVar[str] = "linf"

    def perturb(self, model, images, labels, context):
        import warnings

        warnings.warn("steps were\nreduced", UserWarning, stacklevel=1)
        return images


@pytest.mark.filterwarnings("default")
def test_what_an_attack_warns_of_is_in_the_report_once(recwarn) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    data = torch.rand(30, 1, 2, 2), torch.arange(30) % 2
    report = evaluate(model, data, attacks=[Warns()], device="cpu", batch_size=8, diagnose=None)
    found = [w for w in report.warnings if w.code == "attack-warning"]
    assert [w.message for w in found] == ["Warns: UserWarning: steps were reduced"]
    assert (found[0].defense, found[0].attack) == ("undefended", "Warns")
    assert len(recwarn) == 0


@pytest.mark.filterwarnings("default")
def test_what_a_library_warns_of_is_not_swallowed() -> None:
    import warnings

    from freqrobust.attacks.isolation import isolated

    with (
        warnings.catch_warnings(record=True) as caught,
        isolated("library", nn.Identity(), 0, torch.device("cpu")),
    ):
        warnings.warn("few classes", UserWarning, stacklevel=1)
        warnings.warn("old function", DeprecationWarning, stacklevel=1)
    assert [str(one.message) for one in caught] == ["few classes"]
