"""One measured (defense, attack) pair, and the worst case over several."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import numpy as np
from pydantic import Field, computed_field, model_validator

from freqrobust.numerics.statistics import wilson
from freqrobust.results.cell_numbers import CellNumbers
from freqrobust.results.outcomes import pack, unpack
from freqrobust.results.records import Difference, Interval, ThreatRecord, _Part
from freqrobust.results.value import Value, merged

if TYPE_CHECKING:
    from numpy.typing import NDArray

_DERIVED = ("accuracy", "ci95")


def _close(given: Sequence[Any], expected: Sequence[float]) -> bool:
    return len(given) == len(expected) and all(
        isinstance(a, int | float) and abs(a - b) < 1e-9 for a, b in zip(given, expected, strict=True)
    )


class _Counted(_Part):
    """``correct`` of ``n``, per sample in ``outcomes``; the rates are derived, and checked on the way in."""

    model: int = 0
    defense: str
    defense_spec: str
    defense_params: dict[str, Any]
    n: int
    correct: int
    outcomes: str | None = Field(description="base64 of numpy.packbits(bitorder='little'), sample order")
    difference: Difference | None = Field(None, description="paired difference from the undefended model")

    @model_validator(mode="before")
    @classmethod
    def _drop_derived(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        n, correct = values.get("n"), values.get("correct")
        if isinstance(n, int) and isinstance(correct, int) and 0 <= correct <= n and n > 0:
            expected = {"accuracy": [correct / n], "ci95": list(wilson(correct, n))}
            for key, numbers in expected.items():
                given = values.get(key)
                listed = given if isinstance(given, list | tuple) else [given]
                if given is not None and not _close(listed, numbers):
                    raise ValueError(f"{key} {given!r} contradicts {correct} of {n}")
        return {key: value for key, value in values.items() if key not in _DERIVED}

    @model_validator(mode="after")
    def _agree(self) -> Any:
        if self.outcomes is not None:
            right = int(unpack(self.outcomes, self.n).sum())
            if right != self.correct:
                raise ValueError(f"the outcomes count {right} correct samples, but correct is {self.correct}")
        return self

    @computed_field  # type: ignore[prop-decorator]
    @property
    def accuracy(self) -> float | None:
        """``correct / n``; None when nothing was counted."""
        return self.correct / self.n if self.n and self.outcomes is not None else None

    @computed_field  # type: ignore[prop-decorator]
    @property
    def ci95(self) -> Interval | None:
        """Wilson interval of the accuracy."""
        return wilson(self.correct, self.n) if self.n and self.outcomes is not None else None

    def right(self) -> NDArray[np.bool_]:
        """Which samples were counted right, ``(n,)``."""
        return unpack(self.outcomes, self.n) if self.outcomes is not None else np.zeros(self.n, dtype=bool)


class Cell(CellNumbers, _Counted):
    """One (defense, attack) pair on one dataset."""

    attack: str
    attack_spec: str
    attack_params: dict[str, Any]
    kind: Literal["adversarial", "shift"]
    threat: ThreatRecord | None = None
    knowledge: Literal["adaptive", "oblivious"] = "adaptive"
    status: Literal["ok", "failed"] = "ok"
    error: str | None = None

    @model_validator(mode="after")
    def _as_many_distances(self) -> Any:
        count = len(self.distances.distances()) if self.distances is not None else self.n
        if count != self.n:
            raise ValueError(f"there are {count} distances, but n is {self.n}")
        return self


class WorstCase(_Counted):
    """Correct under every adversarial example whose perturbation is within the threat."""

    threat: ThreatRecord
    by_checks: Annotated[int, Value("samples misclassified only by the diagnostic checks", operator.add, "note")] = (
        Field(0, description="samples that only the checks of the diagnosis misclassified")
    )


CountedT = TypeVar("CountedT", Cell, WorstCase)


def joined(one: CountedT, other: CountedT) -> CountedT:
    """The same cell or worst case measured on other samples, counted together; a failed part is kept alone."""
    for part in (one, other):
        if isinstance(part, Cell) and part.status == "failed":
            return part
    right = np.concatenate([one.right(), other.right()])
    counts = {"n": len(right), "correct": int(right.sum()), "outcomes": pack(right), "difference": None}
    return one.model_copy(update={**counts, **merged(one, other)})
