"""Every registered report, third-party ones too, keeps to the rules of ``freqrobust.testing.check_reporter``."""

from __future__ import annotations

import pytest

from freqrobust import Report
from freqrobust.results.reporter import reports
from freqrobust.testing import reporter_checks
from freqrobust.testing.report_rules import REPORTS
from freqrobust.testing.rules import Setting


@pytest.fixture(scope="module")
def reported(trained, digits) -> Setting:
    return Setting(trained, digits, digits)


@pytest.fixture
def report(reported) -> Report:
    return reported.report


@pytest.mark.parametrize("name", reports.names())
@pytest.mark.parametrize("rule", REPORTS.rules)
def test_keeps_the_rule(make, reported, rule, name) -> None:
    (check,) = [check for check in reporter_checks(make(reports, name), reported) if check.name == rule]
    check()


def test_json_is_the_report(make, report, tmp_path) -> None:
    path = tmp_path / "report.json"
    with path.open("w") as target:
        make(reports, "json").render(report, target)
    assert Report.from_json(path) == report
