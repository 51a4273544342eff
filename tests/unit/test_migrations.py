"""Reports of schema version 1 are read as the current version: names, values and verdicts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from freqrobust import Report
from freqrobust.results.analysis_record import AnalysisRecord, ReportError
from freqrobust.results.reporter import reports

#: Of the demo: two defenses, one of them with oblivious attacks; full checks; a gate with a baseline.
STORED = Path(__file__).parent / "data" / "report_v1.json"


@pytest.fixture(scope="module")
def old() -> dict[str, Any]:
    values: dict[str, Any] = json.loads(STORED.read_text(encoding="utf-8"))
    return values


@pytest.fixture(scope="module")
def report() -> Report:
    return Report.from_json(STORED)


def test_every_accuracy_is_kept(old, report: Report) -> None:
    assert (old["schema_version"], report.schema_version) == (1, 2)
    for before, after in zip(old["cells"] + old["worst_case"], [*report.cells, *report.worst_case], strict=True):
        assert (before["correct"], before["outcomes"], before["accuracy"]) == (
            after.correct,
            after.outcomes,
            after.accuracy,
        )
    for before, cell in zip(old["cells"], report.cells, strict=True):
        assert (before["by_chance"], before["agreement"]) == (cell.chance_accuracy, cell.clean_agreement)
        assert (before["notes"] or [], before["breakdown"] or {}) == (cell.notes, cell.breakdown)
        assert (before["seconds"], before["forwards"]) == (cell.seconds, cell.forwards)
        assert cell.batch_size is None  # not recorded then


def test_the_undefended_model_has_its_name_everywhere(report: Report) -> None:
    assert {cell.defense for cell in report.cells} == {"undefended", "smooth"}
    assert {row.defense_spec for row in report.worst_case} == {"undefended", "smooth:rho=1.0"}
    assert {c.difference.against for c in report.cells if c.difference} == {"undefended"}
    assert [d.defense for d in report.diagnostics] == ["undefended", "smooth"]
    assert {summary.defense for summary in report.corruptions} == {"undefended", "smooth"}
    for reference in ("clean", "none/clean", "undefended/clean"):
        assert report.cell(reference).defense == "undefended"
    assert report.cell("none/clean") is report.cell("undefended/clean")


def test_the_gate_is_kept_with_new_names(old, report: Report) -> None:
    assert report.gate is not None
    assert report.gate.comparison is not None
    before = old["gate"]["comparison"]["rows"]
    rows = report.gate.comparison.rows
    assert [row["name"].replace("none / ", "undefended / ") for row in before] == [row.name for row in rows]
    assert any(row.name == "undefended / clean" for row in rows)
    assert [(r["lost"], r["gained"], r["detectable"]) for r in before] == [
        (row.newly_misclassified, row.newly_correct, row.minimum_detectable_drop) for row in rows
    ]
    assert any(row.minimum_detectable_drop for row in rows)
    assert not any("none / " in note for note in report.gate.comparison.notes)


def test_checks_and_verdicts_are_kept(old, report: Report) -> None:
    checks = [check for diagnosis in report.diagnostics for check in diagnosis.checks]
    before = [check for diagnosis in old["diagnostics"] for check in diagnosis["checks"]]
    assert [check["beyond"] for check in before] == [check.additional for check in checks]
    assert any(check.additional is not None for check in checks)
    assert [d["verdict"] for d in old["diagnostics"]] == ["believable", "not meaningful"]
    assert [d.verdict for d in report.diagnostics] == ["no problem found", "not meaningful"]
    assert report.diagnostics[0].sentence.startswith("no problem found")


@pytest.mark.parametrize("name", ["table", "html", "markdown", "csv", "latex", "junit"])
def test_every_form_of_report_shows_it(name: str, report: Report, tmp_path: Path) -> None:
    import io

    target = io.StringIO()
    (spec,) = reports.parse(name)
    spec.plugin.render(report, target)
    assert "undefended" in target.getvalue()
    assert "believable" not in target.getvalue()


def test_what_is_written_is_of_the_current_version(report: Report, tmp_path: Path) -> None:
    report.to_json(tmp_path / "new.json")
    assert json.loads((tmp_path / "new.json").read_text())["schema_version"] == 2
    assert Report.from_json(tmp_path / "new.json") == report


def test_analyses_inside_and_alone(old, tmp_path: Path) -> None:
    result = {"label": "demo", "defense": "none", "defense_spec": "none", "by_chance": 3}
    kept = ("freqrobust_version", "created", "seed", "models", "environment")
    record = {**{key: old[key] for key in kept}, "schema_version": 1, "name": "x", "spec": "x", "params": {}}
    record["results"] = [result]
    (tmp_path / "alone.json").write_text(json.dumps(record))
    (tmp_path / "inside.json").write_text(json.dumps({**old, "analyses": [record]}))
    alone = AnalysisRecord.from_json(tmp_path / "alone.json")
    assert (alone.results[0].defense, alone.results[0].defense_spec) == ("undefended", "undefended")
    assert alone.results[0].model_dump()["by_chance"] == 3  # the name of an analysis's own field
    assert Report.from_json(tmp_path / "inside.json").analyses == [alone]


@pytest.mark.parametrize("broken", [{"cells": 3}, {"cells": [3]}, {"diagnostics": [{"checks": 1}]}, {"gate": 7}])
def test_a_broken_file_is_refused_not_repaired(broken, old, tmp_path: Path) -> None:
    (tmp_path / "broken.json").write_text(json.dumps({**old, **broken}))
    with pytest.raises(ReportError, match=next(iter(broken))):
        Report.from_json(tmp_path / "broken.json")


@pytest.mark.parametrize("version", [0, -1, 3, "1", True, None, 1.0])
def test_other_versions_are_refused(version, old, tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text(json.dumps({**old, "schema_version": version}))
    with pytest.raises(ReportError, match="expected a report of schema version 2"):
        Report.from_json(tmp_path / "other.json")
