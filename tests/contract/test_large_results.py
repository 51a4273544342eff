"""Reports of many samples: what is in the file, how large it is, and that no cost grows faster than the samples."""

from __future__ import annotations

import importlib.util
import io
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from freqrobust import Report, compare
from freqrobust.gate.thresholds import Gate, parse_threshold
from freqrobust.numerics import statistics
from freqrobust.results.analysis_record import ReportError
from freqrobust.results.reporter import reports

FILE = Path(__file__).resolve().parents[2] / "benchmarks" / "large_results.py"
LARGE, SMALL = 50_000, 500
#: Of 100 cells and 40 worst cases, in base64.
OUTCOMES = 140 * 4 * -(-(LARGE // 8) // 3)


@pytest.fixture(scope="module")
def large() -> ModuleType:
    spec = importlib.util.spec_from_file_location("large_results", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def report(large: ModuleType) -> Report:
    """With distances and radii of 500 samples."""
    found: Report = large.large_report(SMALL, per_sample=True)
    return found


def seconds(work: Callable[[], Any]) -> float:
    """Of the processor, of the quickest one of three calls: what else is running takes no part of them."""
    times = []
    for _ in range(3):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return min(times)


def calls(work: Callable[[], Any]) -> int:
    """Functions that are called: the same number at any time, on any machine."""
    count = 0

    def counted(frame: object, event: str, argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(counted)
    try:
        work()
    finally:
        sys.setprofile(before)
    return count


def shown(name: str, report: Report) -> str:
    target = io.StringIO()
    reports.get(name)().render(report, target)
    return target.getvalue()


def test_the_radii_of_a_sweep_are_in_the_file_once(report: Report, tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    report.to_json(file)
    written = json.loads(file.read_text(encoding="utf-8"))["certificates"]
    assert [(one["defense"], one["radii"] is None) for one in written] == [
        (defense, number > 0) for defense in ("undefended", "smooth") for number in range(4)
    ]
    read = Report.from_json(file)
    assert read == report
    assert read.dumps() == file.read_text(encoding="utf-8")
    for one, other in zip(read.certificates, report.certificates, strict=True):
        radii = one.certified_radii()
        assert radii is not None
        np.testing.assert_array_equal(radii, other.certified_radii())
    first, second = read.certificates[0].certified_radii(), read.certificates[4].certified_radii()
    assert first is not None
    assert second is not None
    assert (first != second).any()


def test_radii_that_differ_are_all_kept(report: Report, tmp_path: Path) -> None:
    """Of a file that has been put together from others, or that has all of them, as files had before."""
    changed = report.model_copy(deep=True)
    changed.certificates[1].radii = changed.certificates[4].radii
    changed.certificates[1].outcomes, changed.certificates[1].correct = (
        changed.certificates[5].outcomes,
        changed.certificates[5].correct,
    )
    changed.certificates[2].shared_with = "smoothing:eps=7"  # there is none
    for one in (changed, Report.model_validate(json.loads(json.dumps(changed.model_dump(mode="json"))))):
        one.to_json(tmp_path / "report.json")
        assert Report.from_json(tmp_path / "report.json") == changed


def test_radii_of_a_sweep_are_checked_against_its_outcomes(report: Report, tmp_path: Path) -> None:
    values = json.loads(report.dumps())
    values["certificates"][3]["outcomes"] = values["certificates"][0]["outcomes"]
    values["certificates"][3]["correct"] = values["certificates"][3]["certified"] = values["certificates"][0]["correct"]
    for name in ("accuracy", "ci95"):
        del values["certificates"][3][name]
    (tmp_path / "report.json").write_text(json.dumps(values), encoding="utf-8")
    with pytest.raises(ReportError, match="a radius of at least 1, but some have less"):
        Report.from_json(tmp_path / "report.json")


def test_numbers_are_on_one_line_and_text_stays_as_it_is(report: Report) -> None:
    odd = report.model_copy(deep=True)
    odd.models[0].name = "[\n 1,\n 2\n]"
    odd.models[0].normalize.mean = [0.5, 1e-9, -3.0]
    odd.config = {"lists": [[], [1, [2, 3]], ["4", 5], [None, 6]], "given": "[\\n 7\\n]"}
    text = odd.dumps()
    assert json.loads(text) == json.loads(json.dumps(odd._content()))
    assert Report.model_validate(json.loads(text)) == odd
    assert '"mean": [0.5, 1e-09, -3.0]' in text
    assert text.count("\n") < 8000  # 500 ids would be 500 lines
    (line,) = [line for line in text.splitlines() if '"ids"' in line]
    assert line.strip().startswith(f'"ids": [{odd.data.ids[0]}, {odd.data.ids[1]}, ')


@pytest.mark.slow
def test_fifty_thousand_samples(large: ModuleType, report: Report, tmp_path: Path, show: Callable[..., Any]) -> None:
    many, other = large.large_report(LARGE), large.large_report(LARGE, seed=1, drop=0.01)
    file = tmp_path / "report.json"
    many.to_json(file)
    text = file.read_text(encoding="utf-8")
    sizes = large.parts(text)
    assert sizes["outcomes"] == OUTCOMES
    assert sizes["ids"] < 8 * LARGE
    assert sizes["else"] < 250_000
    assert Report.from_json(file) == many

    assert seconds(lambda: many.to_json(file)) < 1
    assert seconds(lambda: Report.from_json(file)) < max(0.2, 20 * seconds(lambda: json.loads(text)))

    few = large.large_report(SMALL), large.large_report(SMALL, seed=1, drop=0.01)
    few[0].to_json(tmp_path / "few.json")
    assert calls(lambda: many.to_json(file)) < calls(lambda: few[0].to_json(file)) + 10 * LARGE
    many.to_json(file)
    assert calls(lambda: Report.from_json(file)) < 1.1 * calls(lambda: Report.from_json(tmp_path / "few.json"))
    for name in ("html", "table", "markdown", "csv", "latex", "junit"):  # nothing in them is per sample
        assert len(shown(name, many)) < 1.5 * len(shown(name, few[0])), name

    def compared(one: Report, another: Report) -> None:
        statistics.detectable_drop.cache_clear()
        statistics._critical_counts.cache_clear()
        compare(one, another, cells=["default", "*/apgd", "*/pgd", "*/sweep"])

    assert seconds(lambda: compared(many, other)) < 50 * seconds(lambda: compared(*few))
    assert calls(lambda: compared(many, other)) < 1.5 * calls(lambda: compared(*few))
    gate = Gate([parse_threshold("apgd>=0.01")], baseline=file)
    assert gate.judge(other).comparison is not None

    per_sample = large.large_report(LARGE, per_sample=True)
    sizes = large.parts(per_sample.dumps())
    assert sizes["distances"] == 5 * 4 * -(-4 * LARGE // 3)
    assert sizes["radii"] == 2 * 4 * -(-4 * LARGE // 3)
    assert len(shown("html", per_sample)) < 1.5 * len(shown("html", report))
    page = tmp_path / "report.html"
    per_sample.to_html(page)
    assert page.stat().st_size < 500_000
    report.to_html(tmp_path / "few.html")
    elements = [
        show(one).evaluate("document.getElementsByTagName('*').length") for one in (tmp_path / "few.html", page)
    ]
    assert 100 < elements[1] < 1.5 * elements[0]
