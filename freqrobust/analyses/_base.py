"""What the analyses share: the base of their records, common parameters, and results of one type."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from freqrobust.harness.analysis import Analysis
from freqrobust.results.analysis import AnalysisResult

if TYPE_CHECKING:
    from freqrobust.harness.analysis_context import Reading

Result = TypeVar("Result", bound=AnalysisResult)


class Record(BaseModel):
    """A part of a result: no other fields, and no NaN or infinity."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class SplitAnalysis(Analysis):
    """An analysis that compares the frequencies below and above one radius."""

    radius: float | None = Field(
        None, gt=0, description="where the high frequencies begin, in cycles per image; default half of Nyquist"
    )

    def split(self, shape: tuple[int, ...]) -> float:
        """The radius for images ``(C, H, W)``."""
        from freqrobust.harness.analysis_context import split_radius

        return self.radius if self.radius is not None else split_radius(shape)


class ComponentAnalysis(Analysis):
    """An analysis of predictions on low (LFC) and high frequency components (HFC) at several radii."""

    radii: list[Annotated[float, Field(ge=0)]] = Field(
        [], description="radii in cycles per image; by default those for a side of 32 pixels, times side / 32"
    )
    shape: Literal["circle", "square"] = Field("circle", description="how the distance from DC is measured")


def only(results: Sequence[AnalysisResult], kind: type[Result]) -> list[Result]:
    """The results of one type."""
    return [result for result in results if isinstance(result, kind)]


def reading(low: bool, high: bool) -> Reading:
    """The frequencies that a model depends on, if it depends on low ones or on high ones."""
    return "both" if low and high else "low" if low else "high" if high else "neither"
