"""What one cell measured: arrays per sample, and the numbers that the report records."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from freqrobust.numerics.threat import Norm, Threat, allowance
from freqrobust.results.cell_numbers import CellNumbers
from freqrobust.results.outcomes import pack, unpack

NORMS: tuple[Norm, ...] = ("linf", "l2", "l1")


@dataclass
class Outcome:
    """What one cell measured.

    Attributes:
        right: the sample counts as right, ``(n,)``.
        predictions: predicted class, ``(n,)``; of the clean image where no example was tried.
        examples: by norm, how far the successful example of a sample is, ``(n,)``; infinite without one.
        survives: the successful example of a sample is still adversarial and within the budget with pixels rounded to
            8 bits, ``(n,)``; None where that was not looked at.
        signs: of the last perturbation of every sample that stayed robust, as packed bits; for the next eps of a sweep.
        warnings: code and message of what is reported about the cell.
        numbers: all else that is recorded of the cell.
    """

    right: np.ndarray
    predictions: np.ndarray
    examples: dict[Norm, np.ndarray] = field(default_factory=dict)
    survives: np.ndarray | None = None
    signs: np.ndarray | None = None
    warnings: list[tuple[str, str]] = field(default_factory=list)
    numbers: CellNumbers = field(default_factory=CellNumbers)

    def adversarial_within(self, threat: Threat) -> np.ndarray:
        """Samples with a successful example inside the threat, ``(n,)``."""
        if threat.norm not in self.examples:
            return np.zeros(len(self.right), dtype=bool)
        return self.examples[threat.norm] <= np.float32(allowance(threat.eps))

    def to_piece(self) -> dict[str, Any]:
        """JSON-like content, for the journal."""
        return {
            "n": len(self.right),
            "right": pack(self.right),
            "predictions": _encode(self.predictions.astype("<i4")),
            "examples": {norm: _encode(values.astype("<f4")) for norm, values in self.examples.items()},
            "survives": pack(self.survives) if self.survives is not None else None,
            "signs": _encode(self.signs) if self.signs is not None else None,
            "warnings": self.warnings,
            "numbers": self.numbers.model_dump(mode="json"),
        }

    @classmethod
    def from_piece(cls, piece: dict[str, Any]) -> Outcome:
        """The inverse of :meth:`to_piece`."""
        return cls(
            right=unpack(piece["right"], piece["n"]),
            predictions=_decode(piece["predictions"], "<i4"),
            examples={norm: _decode(text, "<f4") for norm, text in piece["examples"].items()},
            survives=unpack(piece["survives"], piece["n"]) if piece["survives"] is not None else None,
            signs=_decode(piece["signs"], "u1").reshape(piece["n"], -1) if piece["signs"] is not None else None,
            warnings=[(code, message) for code, message in piece["warnings"]],
            numbers=CellNumbers.model_validate(piece["numbers"]),
        )


def robust_under(clean: Outcome, outcomes: Iterable[Outcome], threat: Threat) -> np.ndarray:
    """Samples that are right and have no adversarial example within the threat, ``(n,)``."""
    right = clean.right.copy()
    for outcome in outcomes:
        right &= ~outcome.adversarial_within(threat)
    return right


def distances(clean: Outcome, outcome: Outcome, norm: Norm) -> np.ndarray:
    """How far the successful example of every sample is, float32 ``(n,)``: 0 where the clean image is misclassified."""
    return np.where(clean.right, outcome.examples[norm], np.float32(0))


def _encode(values: np.ndarray) -> str:
    return base64.b64encode(values.tobytes()).decode()


def _decode(text: str, dtype: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), dtype=dtype).copy()
