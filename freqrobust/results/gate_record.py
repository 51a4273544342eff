"""What a gate decided, as a part of the report."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from freqrobust.results.presented import Presented
from freqrobust.results.records import Interval, _Part


class SequentialRecord(_Part):
    """How far a threshold was measured before it was decided."""

    seen: int = Field(description="samples measured")
    of: int = Field(description="samples there are")
    looks: int = Field(description="times that the threshold was looked at")
    false_pass: float = Field(description="at most this chance of passing where all samples would fail")
    false_fail: float = Field(description="at most this chance of failing where all samples would pass")
    passes: int = Field(description="forward and backward passes spent, in images")
    passes_all: int = Field(description="passes that all samples would have taken, in proportion to those spent")


class _Judged(_Part):
    """One row of a gate: something measured against something required."""

    name: str = Field(description="the cell: defense / attack; with several models, the model before it")
    model: int = 0
    passed: bool | None = Field(None, description="null: shown as information, not judged")
    measured: float | None = None
    required: float | None = None
    p_value: float | None = None
    p_adjusted: float | None = Field(None, description="corrected by Holm over the declared gate cells")
    text: str = Field(description="what was found, in one line")


class RegressionRow(_Judged):
    """A change from the baseline. ``measured`` is the drop of the accuracy as a share, ``required`` the largest allowed."""

    kind: Literal["regression"] = "regression"
    test: Literal["mcnemar", "sign-flip"] = "mcnemar"
    n: int
    baseline: float | None = Field(None, description="accuracy of the baseline; of a sweep, the mean over its eps")
    new: float | None = Field(None, description="accuracy now; of a sweep, the mean over its eps")
    newly_misclassified: int = Field(
        0,
        description="samples right before and wrong now; of a sweep, those misclassified at a smaller eps than before",
    )
    newly_correct: int = Field(
        0, description="samples wrong before and right now; of a sweep, those misclassified at a larger eps than before"
    )
    minimum_detectable_drop: float | None = Field(
        None, description="smallest drop that is detected with the comparison's power"
    )
    churn: float | None = Field(
        None, description="share of samples assumed to improve, for the minimum detectable drop"
    )


class ThresholdRow(_Judged):
    """An accuracy that has to be reached. ``measured`` is the accuracy, or the low end of its interval if confident."""

    kind: Literal["threshold"] = "threshold"
    n: int
    accuracy: float | None = None
    ci95: Interval | None = None
    confident: bool = False
    sequential: SequentialRecord | None = None


class Comparison(_Part):
    """A report against its baseline: rows worst first, those judged before the others."""

    baseline: str = Field(description="where the baseline came from")
    models: list[str] = Field([], description="what was compared with what and why, a line a pair of models")
    passed: bool
    alpha: float
    max_drop: float
    power: float = 0.8
    rows: list[RegressionRow]
    notes: list[str] = Field(
        [], description="in what else the two reports differ, and gate cells where no regression can be detected"
    )


class GateRecord(Presented, _Part):
    """What a gate decided, and why."""

    presenter: ClassVar[str] = "gate_text"

    passed: bool
    comparison: Comparison | None = None
    thresholds: list[ThresholdRow] = []

    @model_validator(mode="after")
    def _agree(self) -> Any:
        failed = [row.name for row in self.rows if row.passed is False]
        if self.passed == bool(failed):
            raise ValueError(f"the gate says passed = {self.passed}, but {len(failed)} of its rows failed")
        return self

    @property
    def rows(self) -> list[RegressionRow | ThresholdRow]:
        """Everything that was judged or shown: thresholds, then changes from the baseline."""
        return [*self.thresholds, *(self.comparison.rows if self.comparison is not None else [])]
