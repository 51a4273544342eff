"""The report as JSON."""

from __future__ import annotations

from typing import IO, TYPE_CHECKING

from freqrobust.results.reporter import Reporter

if TYPE_CHECKING:
    from freqrobust.results.report import Report


class JSONReport(Reporter):
    """The whole report, in the published schema."""

    def render(self, report: Report, target: IO[str]) -> None:
        target.write(report.dumps())
