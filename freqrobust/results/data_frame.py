"""The cells of a report as a data frame of pandas."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, get_args, get_origin

from pydantic import BaseModel

from freqrobust.core.errors import SpecError
from freqrobust.results.cells import Cell
from freqrobust.results.record_rows import identity, rates, verdict
from freqrobust.results.report import Report
from freqrobust.results.summary import entry_of, model_labels
from freqrobust.results.value import declared
from freqrobust.results.view import facts

if TYPE_CHECKING:
    from pandas import DataFrame

#: The types of the numbers that are not declared as values of a cell.
_GIVEN: dict[str, str] = {
    **dict.fromkeys(("n", "seed"), "int64"),
    "correct": "Int64",
    **dict.fromkeys(("eps", "radius", "accuracy", "ci95_low", "ci95_high"), "float64"),
    **dict.fromkeys(("difference", "difference_ci95_low", "difference_ci95_high"), "float64"),
}


def _declared(cls: type[BaseModel]) -> dict[str, str]:
    """The types of the numbers among the values of a cell, from their annotations: a column of missing values has one."""
    found: dict[str, str] = {}
    for key in declared(cls):
        annotation: Any = cls.model_fields[key].annotation
        if get_origin(annotation) in (list, dict):  # written as text
            continue
        for part in get_args(annotation) or (annotation,):
            if isinstance(part, type) and issubclass(part, BaseModel):
                found |= _declared(part)
            elif part in (int, float):
                found[key] = "Int64" if part is int else "float64"
    return found


def data_frame(report: Report) -> DataFrame:
    """One row for each cell.

    Raises:
        SpecError: pandas is not installed.
    """
    if find_spec("pandas") is None:
        raise SpecError("a data frame needs pandas: pip install pandas")
    import pandas

    labels = model_labels(report)
    diagnoses = {entry_of(diagnosis): diagnosis for diagnosis in report.diagnostics}
    rows = []
    for cell in report.cells:
        row = {**identity(report, cell, labels), **rates(cell)}
        for fact in facts(cell):
            row[fact.key] = fact.text or None if isinstance(fact.value, list | dict) else fact.value
        rows.append({**row, **verdict(cell, diagnoses)})
    names = list(dict.fromkeys(name for row in rows for name in row))
    kinds: dict[str, Any] = {**_GIVEN, **_declared(Cell)}
    return pandas.DataFrame(
        {
            name: pandas.Series([row.get(name) for row in rows], dtype=kinds.get(name, "string"), name=name)
            for name in names
        }
    )
