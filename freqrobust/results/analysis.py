"""What analyses find. Apart from the report, so that their modules need neither torch nor numpy to be imported."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from freqrobust.plugins.specs import UNDEFENDED


class AnalysisTable(BaseModel):
    """Numbers as they are to be read."""

    model_config = ConfigDict(extra="forbid")

    title: str
    columns: list[str]
    rows: list[list[str]]


class PictureRecord(BaseModel):
    """A picture inside of a report."""

    model_config = ConfigDict(extra="forbid")

    format: Literal["png", "svg"]
    base64: str
    alt: str = Field("", description="what it shows, in words")


class AnalysisResult(BaseModel):
    """What an analysis found of one model under one defense; every analysis adds fields of its own."""

    model_config = ConfigDict(extra="allow", allow_inf_nan=False, protected_namespaces=())

    model: int = Field(0, description="position among the models of the analysis")
    label: str = ""
    defense: str = UNDEFENDED
    defense_spec: str = UNDEFENDED
    defense_params: dict[str, Any] = {}
    reading: Literal["low", "high", "both", "neither"] | None = Field(
        None, description="the frequencies that this analysis finds the model to depend on"
    )
    sentence: str = Field("", description="the numbers that the reading rests on")
    seconds: float = 0.0
    forwards: int = 0
    backwards: int = 0


class SpectrumRecord(BaseModel):
    """A mean spectrum by the unitary DFT, over samples and channels; maps have DC at ``(H // 2, W // 2)``."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    source: str
    kind: Literal["images", "shift", "adversarial", "gradient"]
    n: int = Field(description="samples")
    amplitude: list[list[float]] = Field(description="mean amplitude, H x W")
    profile: list[float] = Field(
        description="mean amplitude by rounded distance from DC: 0, 1, 2, ... cycles per image"
    )
    radius: float = Field(description="where the high frequencies begin, in cycles per image")
    above: float = Field(description="share of the energy at or above the radius")
    low: float = Field(description="mean energy per frequency below the radius, without DC")
    high: float = Field(description="mean energy per frequency at or above the radius")
