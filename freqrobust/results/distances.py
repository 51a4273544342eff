"""How far the nearest adversarial example of every sample is, as found by a minimum-norm attack."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import Field, model_validator

from freqrobust.numerics.threat import Norm
from freqrobust.results.records import _Part
from freqrobust.results.value import Value, dropped

if TYPE_CHECKING:
    from numpy.typing import NDArray


class DistanceRecord(_Part):
    """Distances of all samples, and what follows from them: the robustness curve of one attack under one defense.

    The robust accuracy at a budget eps is the share of samples whose distance is larger than eps. The summaries are
    computed from the distances, also when a report is read.
    """

    norm: Norm
    values: str = Field(
        description="base64 of little-endian float32 in sample order: 0 where the clean image is misclassified, "
        "infinite where no adversarial example was found"
    )
    median: Annotated[float | None, Value("median distance", dropped, by_norm=True)] = Field(
        None, description="of the samples that are correct on the clean image; null where it is infinite"
    )
    half_accuracy_eps: Annotated[float | None, Value("half-accuracy eps", dropped, by_norm=True)] = Field(
        None, description="smallest eps at which the robust accuracy is at most 50 %; null where there is none"
    )

    @classmethod
    def of(cls, norm: Norm, distances: NDArray[np.float32]) -> DistanceRecord:
        """The record of distances ``(n,)``: 0 where the clean image is misclassified, infinite without an example."""
        return cls(norm=norm, values=base64.b64encode(np.asarray(distances, dtype="<f4").tobytes()).decode())

    @model_validator(mode="before")
    @classmethod
    def _summarised(cls, values: Any) -> Any:
        if not isinstance(values, dict) or not isinstance(values.get("values"), str):
            return values
        distances = _decoded(values["values"])
        attacked = distances[distances > 0]
        return {
            **values,
            "median": _finite(np.median(attacked)) if len(attacked) else None,
            "half_accuracy_eps": _finite(np.sort(distances)[(len(distances) + 1) // 2 - 1]) if len(distances) else None,
        }

    def distances(self) -> NDArray[np.float32]:
        """The distances, ``(n,)``."""
        return _decoded(self.values)

    def merged(self, other: DistanceRecord) -> DistanceRecord:
        """The distances of the samples of both, those of the other behind."""
        return DistanceRecord.of(self.norm, np.concatenate([self.distances(), other.distances()]))


def _decoded(text: str) -> NDArray[np.float32]:
    content = base64.b64decode(text, validate=True)
    if len(content) % 4:
        raise ValueError(f"distances should be float32 numbers of 4 bytes each, but got {len(content)} bytes")
    values = np.frombuffer(content, dtype="<f4")
    if np.isnan(values).any() or (values < 0).any():
        raise ValueError("distances should be 0 or more, but some are negative or not a number")
    return values


def _finite(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None
