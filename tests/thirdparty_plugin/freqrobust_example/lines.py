"""A report of one line a cell."""

from __future__ import annotations

from typing import IO

from pydantic import Field

from freqrobust import Report, Reporter


class Lines(Reporter):
    """Defense, attack, accuracy and model, with tabs in between."""

    digits: int = Field(3, ge=0, description="digits after the point")

    def render(self, report: Report, target: IO[str]) -> None:
        for cell in report.cells:
            accuracy = "failed" if cell.accuracy is None else f"{cell.accuracy:.{self.digits}f}"
            model = report.models[cell.model]
            target.write(f"{cell.defense_spec}\t{cell.attack_spec}\t{accuracy}\t{model.name or model.spec}\n")
