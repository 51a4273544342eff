"""What a reproduced experiment found: tables, curves, and a verdict on each trend that its source states."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from freqrobust.results.analysis import AnalysisTable, PictureRecord
from freqrobust.results.analysis_record import Document
from freqrobust.results.records import SCHEMA_VERSION, DataRecord, EnvironmentRecord, Interval, _Part

Verdict = Literal["reproduced", "not reproduced", "undecided"]


class Trend(_Part):
    """One statement of the source, and whether it was seen here."""

    statement: str = Field(description="a complete sentence, as the source means it")
    verdict: Verdict
    estimate: float = Field(description="what decides: positive where the statement is true")
    ci95: Interval | None = Field(None, description="its 95 % confidence interval; null where the estimate is exact")
    measure: str = Field(description="what the estimate is, with its unit")
    unit: Literal["", "%"] = Field("", description="'%' for differences of shares, printed in percentage points")


class Measured(_Part):
    """One number beside the published one."""

    name: str
    value: float
    ci95: Interval | None = None
    published: float | None = None
    unit: str = Field("", description="'%' for shares that are printed as percentages")


class Curve(_Part):
    """One line of a picture."""

    panel: str = Field(description="title of the panel that it belongs to")
    label: str
    x: list[float]
    y: list[float]
    low: list[float] = Field([], description="lower ends of the 95 % confidence intervals; empty without intervals")
    high: list[float] = []
    x_label: str = "epoch"
    y_label: str = "accuracy"


class Findings(Document):
    """One experiment at one scale."""

    schema_version: Literal[2] = SCHEMA_VERSION
    freqrobust_version: str = ""
    created: str = ""
    name: str = ""
    spec: str = ""
    params: dict[str, Any] = {}
    source: str = Field("", description="the paper, with its table or figure")
    scale: str = ""
    seed: int = 0
    data: DataRecord | None = None
    train_data: DataRecord | None = None
    environment: EnvironmentRecord | None = None
    seconds: float = 0.0
    settings: dict[str, str] = Field({}, description="what was done, in words: network, images, epochs, ...")
    measured: list[Measured] = []
    tables: list[AnalysisTable] = []
    trends: list[Trend] = []
    curves: list[Curve] = []
    notes: list[str] = Field([], description="remarks, such as differences from the published protocol")
    picture: PictureRecord | None = None
