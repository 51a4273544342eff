"""What checks of a robust accuracy found, as a part of the report."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from freqrobust.results.records import ThreatRecord, _Part

#: What the checks say about the robust accuracy of a defense.
Verdict = Literal["no problem found", "inconclusive", "overestimated", "not meaningful", "nothing to check"]


class Check(_Part):
    """One question asked of a robust accuracy. It fails when ``measured`` is above ``threshold``."""

    name: str
    status: Literal["passed", "failed", "not applicable", "information"]
    measured: float | None = Field(None, description="samples, or a share of them where the unit says so")
    threshold: float | None = None
    unit: Literal["samples", "share"] | None = None
    n: int | None = Field(None, description="samples that were looked at")
    threat: ThreatRecord | None = None
    attack: str | None = Field(None, description="the spec of the attack that was tried")
    transferred: bool = Field(False, description="that attack was run on the undefended model")
    additional: int | None = Field(None, description="samples that it misclassified and that are robust in the report")
    reason: str | None = Field(None, description="what was found, or why the check is not applicable")
    source: str


class Diagnosis(_Part):
    """What the checks found about the robust accuracy of one defense."""

    model: int = 0
    defense: str
    defense_spec: str
    defense_params: dict[str, Any]
    verdict: Verdict
    sentence: str
    depth: Literal["quick", "full"] = "quick"
    threat: ThreatRecord | None = Field(None, description="at which the checks were made")
    n: int = Field(0, description="samples that were looked at")
    seconds: float = 0.0
    forwards: int = 0
    backwards: int = 0
    checks: list[Check]
