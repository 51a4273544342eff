"""The report: typed, versioned, integer counts with derived rates, JSON in and out."""

from __future__ import annotations

import json
from typing import Any, Literal

from pydantic import Field

from freqrobust.core.errors import SpecError
from freqrobust.results.analysis_record import AnalysisRecord, Document
from freqrobust.results.cell_reference import pick
from freqrobust.results.cells import Cell, WorstCase
from freqrobust.results.certificates import CertificateRecord
from freqrobust.results.corruptions import CorruptionSummary
from freqrobust.results.diagnosis import Diagnosis
from freqrobust.results.gate_record import GateRecord
from freqrobust.results.records import SCHEMA_VERSION, DataRecord, EnvironmentRecord, ModelRecord, Warned


class Report(Document):
    """Everything that one evaluation measured, and under which conditions."""

    schema_version: Literal[2] = SCHEMA_VERSION
    freqrobust_version: str
    created: str
    seed: int
    criterion: str = "misclassification"
    status: Literal["complete", "partial"]
    config: dict[str, Any] = Field({}, description="the options of the evaluation, with specs for plugins")
    models: list[ModelRecord]
    data: DataRecord
    environment: EnvironmentRecord
    cells: list[Cell]
    worst_case: list[WorstCase] = []
    certificates: list[CertificateRecord] = []
    corruptions: list[CorruptionSummary] = []
    diagnostics: list[Diagnosis] = []
    analyses: list[AnalysisRecord] = []
    gate: GateRecord | None = None
    warnings: list[Warned] = []

    def cell(
        self, attack: str, defense: str | None = None, knowledge: str = "adaptive", model: int = 0
    ) -> Cell | WorstCase:
        """The one cell, or worst case, that a reference names.

        Example:
            >>> report.cell("pgd:eps=2/255").accuracy  # doctest: +SKIP
            >>> report.cell("smooth/worst-linf-8/255").accuracy  # doctest: +SKIP

        Args:
            attack: a reference as of ``--fail-under``: ``clean``, ``pgd``, ``pgd:eps=2/255`` (the other parameters may
                be anything), ``worst``, ``worst-linf-8/255``, with a defense before it (``smooth/pgd``) or
                ``@oblivious`` behind it.
            defense: its name or spec, instead of in the reference. Where none is named it is the undefended model if
                that was measured, else any defense.
            knowledge: ``adaptive`` or ``oblivious``.
            model: the position of the model in :attr:`models`.

        Raises:
            KeyError: none or several match.
        """
        try:
            return pick(self, attack, defense, knowledge, model)
        except SpecError as error:
            raise KeyError(str(error)) from None


def schema() -> str:
    """The JSON schema of a report, as published in ``docs/report.schema.json``."""
    return json.dumps(Report.model_json_schema(mode="serialization"), indent=2) + "\n"


if __name__ == "__main__":
    print(schema(), end="")
