"""The record of an analysis, and reading records from files."""

from __future__ import annotations

import json
import os
import re
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, SerializeAsAny, ValidationError

from freqrobust.core.errors import FreqRobustError
from freqrobust.results.analysis import AnalysisResult, AnalysisTable, PictureRecord
from freqrobust.results.migrations import migrated
from freqrobust.results.presented import Presented
from freqrobust.results.records import SCHEMA_VERSION, DataRecord, EnvironmentRecord, ModelRecord, Warned, _Part

if TYPE_CHECKING:
    from typing_extensions import Self


#: A list of numbers, a line each; no string of JSON text contains a line break.
_NUMBERS = re.compile(r"\[\n([-+.,\deE\s]+)\]")


class ReportError(FreqRobustError):
    """A report file cannot be read, or contradicts itself."""


class Document(_Part):
    """A record that is a JSON file of its own, of a schema version."""

    def _content(self) -> dict[str, Any]:
        """The content of the JSON file."""
        return self.model_dump(mode="json")

    def dumps(self) -> str:
        """The record as JSON text: indented, with each list of numbers on one line."""
        text = json.dumps(self._content(), indent=1, allow_nan=False)
        return _NUMBERS.sub(lambda found: f"[{' '.join(found[1].split())}]", text) + "\n"

    def to_json(self, path: str | os.PathLike[str]) -> None:
        """Write the record; a failure leaves no incomplete file."""
        from freqrobust.core.files import write_atomically

        write_atomically(path, self.dumps())

    @classmethod
    def from_json(cls, path: str | os.PathLike[str]) -> Self:
        """Read a record; fields of analyses come back as plain lists and numbers.

        Raises:
            ReportError: the file is missing, not a record, of another schema version, or contradicts itself.
        """
        from freqrobust.core.files import reason, user_path

        try:
            values = json.loads(user_path(path, "the report", ReportError).read_text(encoding="utf-8"))
        except IsADirectoryError as error:
            advice = (
                f"; give {os.path.join(path, 'report.json')}"
                if os.path.exists(os.path.join(path, "report.json"))
                else ""
            )
            raise ReportError(f"{path} is a directory; expected the JSON file of a report{advice}") from error
        except OSError as error:
            raise ReportError(f"{path}: {reason(error)}") from error
        except (ValueError, RecursionError) as error:
            raise ReportError(f"{path} is not JSON: {error}") from error
        try:
            return cls.model_validate(migrated(values))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise ReportError(f"{path}: {where}: {first['msg'].removeprefix('Value error, ')}") from error
        except ValueError as error:
            raise ReportError(f"{path}: {error}") from error


class AnalysisRecord(Presented, Document):
    """One analysis of one or more models, side by side."""

    presenter: ClassVar[str] = "analysis_text"

    schema_version: Literal[2] = SCHEMA_VERSION
    freqrobust_version: str
    created: str
    seed: int
    config: dict[str, Any] = Field({}, description="the options of the analysis, with specs for plugins")
    name: str
    spec: str
    params: dict[str, Any]
    models: list[ModelRecord]
    data: DataRecord | None = Field(None, description="null where weights alone were looked at")
    environment: EnvironmentRecord
    results: list[SerializeAsAny[AnalysisResult]]
    tables: list[AnalysisTable] = []
    picture: PictureRecord | None = None
    warnings: list[Warned] = []
