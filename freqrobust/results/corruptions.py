"""Means over corruptions, as a part of the report."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from freqrobust.plugins.corruption_names import Part
from freqrobust.results.records import _Part


class CorruptionRow(_Part):
    """One corruption over its severities."""

    name: str
    accuracies: dict[str, float] = Field(description="by severity, 1 to 5")
    accuracy: float | None = Field(description="mean over the severities")
    ce: float | None = Field(None, description="corruption error: mean error over the reference's")
    relative_ce: float | None = Field(None, description="the same of the errors above the clean error")


class CorruptionSummary(_Part):
    """Means over corruptions and severities, of one defense and one way of making the corruptions."""

    model: int = 0
    defense: str
    defense_spec: str
    defense_params: dict[str, Any]
    part: Part = Field(description="the 15 of the benchmark, its 4 for validation, or others")
    source: Literal["generated", "files"] = Field(description="made on the fly, or read from the published files")
    constants: Literal["cifar", "imagenet"] | None = Field(None, description="of generated ones")
    eight_bit: bool = True
    complete: bool = Field(description="all corruptions of the part at all five severities")
    n: int
    rows: list[CorruptionRow]
    mean_accuracy: float | None = Field(description="mean over the corruptions of their means over the severities")
    mce: float | None = Field(None, description="mean corruption error against the reference, 1 = as bad")
    relative_mce: float | None = None
    reference: str | None = Field(None, description="alexnet, or the reference report")
