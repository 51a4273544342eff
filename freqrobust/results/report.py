"""The report: typed, versioned, integer counts with derived rates, JSON in and out."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, model_validator

from freqrobust.core.errors import SpecError
from freqrobust.results.analysis_record import AnalysisRecord, Document
from freqrobust.results.cell_reference import pick
from freqrobust.results.cells import Cell, WorstCase
from freqrobust.results.certificates import CertificateRecord, with_shared_radii, without_shared_radii
from freqrobust.results.corruptions import CorruptionSummary
from freqrobust.results.diagnosis import Diagnosis
from freqrobust.results.examples import ExampleSet
from freqrobust.results.gate_record import GateRecord
from freqrobust.results.presented import Presented, presentation
from freqrobust.results.records import SCHEMA_VERSION, DataRecord, EnvironmentRecord, ModelRecord, Warned

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame


class Report(Presented, Document):
    """Everything that one evaluation measured, and under which conditions.

    ``print(report)`` shows the headline; a notebook shows it as a table.
    """

    presenter: ClassVar[str] = "report_text"

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
    examples: list[ExampleSet] = Field([], description="images of a few samples, for each model")
    gate: GateRecord | None = None
    warnings: list[Warned] = []

    @model_validator(mode="before")
    @classmethod
    def _with_shared_radii(cls, values: Any) -> Any:
        if not isinstance(values, dict) or not isinstance(values.get("certificates"), list):
            return values
        return {**values, "certificates": with_shared_radii(values["certificates"])}

    def _content(self) -> dict[str, Any]:
        """The content of the JSON file: radii that a sweep over eps shares are in it once."""
        values = super()._content()
        return {**values, "certificates": without_shared_radii(values["certificates"])}

    def cell(self, reference: str, *, model: int = 0) -> Cell | WorstCase:
        """The one cell, or worst case, that a reference names.

        Example:
            >>> report.cell("pgd:eps=2/255").accuracy  # doctest: +SKIP
            >>> report.cell("smooth/worst-linf-8/255").accuracy  # doctest: +SKIP

        Args:
            reference: as in ``--fail-under``, ``[DEFENSE/]WHAT[@oblivious]``: ``clean``, ``pgd``, ``pgd:eps=2/255`` (the
                other parameters may be anything), ``worst``, ``worst-linf-8/255``, ``smooth/pgd``. Without a defense it is
                the undefended model if that was measured, otherwise any defense; ``*`` is any defense.
            model: the position of the model in :attr:`models`.

        Raises:
            KeyError: no cell has that name, or several have; the message lists them.
        """
        try:
            return pick(self, reference, model)
        except SpecError as error:
            raise KeyError(str(error)) from None

    def to_dataframe(self) -> DataFrame:
        """A data frame with one row for each cell, in the order of :attr:`cells`.

        Accuracies and the ends of their 95 % intervals are shares, differences are in points. Counts are integers (of
        pandas' ``Int64`` where they can be missing), shares and seconds floats, names strings.

        Raises:
            SpecError: pandas is not installed.
        """
        frame: DataFrame = presentation("data_frame", "data_frame")(self)
        return frame

    def to_html(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        theme: Literal["auto", "light", "dark"] = "auto",
        title: str | None = None,
    ) -> str:
        """The report as one self-contained page, as ``--report out.html`` writes it.

        Args:
            path: also write the page to this file.
            theme: its colours; ``auto`` follows the system of the reader.
            title: the heading of the page; by default it says what was measured.

        Returns:
            The text of the page.

        Raises:
            FreqRobustError: jinja2 is not installed, or the file cannot be written.
        """
        page: str = presentation("rendering", "page")(self, path, theme=theme, title=title)
        return page

    def plot(self, path: str | os.PathLike[str] | None = None) -> Figure:
        """A figure of the accuracies with their 95 % intervals: the headline, and curves over eps and over the radius.

        Args:
            path: also write the figure to this file; the ending of its name determines the format.

        Returns:
            A figure of matplotlib that belongs to no window. A notebook shows it.

        Raises:
            SpecError: matplotlib is not installed, or the format is not supported.
        """
        figure: Figure = presentation("report_figure", "plot")(self, path)
        return figure


def schema() -> str:
    """The JSON schema of a report, as published in ``docs/report.schema.json``."""
    return json.dumps(Report.model_json_schema(mode="serialization"), indent=2) + "\n"


if __name__ == "__main__":
    print(schema(), end="")
