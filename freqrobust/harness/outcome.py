"""What one cell measured: arrays per sample, and the numbers that the report records."""

from __future__ import annotations

import base64
import functools
import operator
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np

from freqrobust.numerics.threat import Norm, Threat, allowance
from freqrobust.results.cell_numbers import CellNumbers
from freqrobust.results.outcomes import pack, unpack
from freqrobust.results.value import merged

NORMS: tuple[Norm, ...] = ("linf", "l2", "l1")


@dataclass
class Counts:
    """What is counted while a cell is measured, and its warnings follow from; the counts of two blocks add up.

    Attributes:
        attacked: samples that an adversarial attack was run on.
        first_gradients: images in the first backward pass of each batch.
        zero_gradients: those of them whose gradient is exactly zero.
        non_finite: predictions that were not finite.
        logits: clean predictions that are not probabilities.
    """

    attacked: int = 0
    first_gradients: int = 0
    zero_gradients: int = 0
    non_finite: int = 0
    logits: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(**{one.name: getattr(self, one.name) + getattr(other, one.name) for one in fields(Counts)})


@dataclass
class Outcome:
    """What one cell measured, on all samples or on those of a block.

    Attributes:
        right: the sample counts as right, ``(n,)``.
        predictions: predicted class, ``(n,)``; of the clean image where no example was tried.
        examples: by norm, how far the successful example of a sample is, ``(n,)``; infinite without one.
        survives: the successful example of a sample is still adversarial and within the budget with pixels rounded to
            8 bits, ``(n,)``; None where that was not looked at.
        signs: of the last perturbation of every sample that stayed robust, as packed bits; for the next eps of a sweep.
        warnings: code and message of what is reported about the cell.
        numbers: all else that is recorded of the cell.
        counts: what further warnings follow from.
    """

    right: np.ndarray
    predictions: np.ndarray
    examples: dict[Norm, np.ndarray] = field(default_factory=dict)
    survives: np.ndarray | None = None
    signs: np.ndarray | None = None
    warnings: list[tuple[str, str]] = field(default_factory=list)
    numbers: CellNumbers = field(default_factory=CellNumbers)
    counts: Counts = field(default_factory=Counts)

    def part(self, start: int, stop: int) -> Outcome:
        """The arrays of these samples; without warnings and numbers, which are about all."""
        return self._with_arrays(lambda values: values[start:stop])

    def _with_arrays(self, change: Callable[[np.ndarray], np.ndarray]) -> Outcome:
        return Outcome(
            change(self.right),
            change(self.predictions),
            {norm: change(values) for norm, values in self.examples.items()},
            change(self.survives) if self.survives is not None else None,
            change(self.signs) if self.signs is not None else None,
        )

    @staticmethod
    def joined(parts: Sequence[Outcome]) -> Outcome:
        """The outcome on all samples, from those on consecutive blocks."""
        if len(parts) == 1:
            return parts[0]
        first, numbers = parts[0], parts[0].numbers
        for part in parts[1:]:
            numbers = CellNumbers(**merged(numbers, part.numbers))
        survives, signs = [part.survives for part in parts], [part.signs for part in parts]
        return Outcome(
            np.concatenate([part.right for part in parts]),
            np.concatenate([part.predictions for part in parts]),
            {norm: np.concatenate([part.examples[norm] for part in parts]) for norm in first.examples},
            _concatenated(survives),
            _concatenated(signs),
            list(dict.fromkeys(warning for part in parts for warning in part.warnings)),
            numbers,
            functools.reduce(operator.add, (part.counts for part in parts)),
        )

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
            "counts": asdict(self.counts),
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
            counts=Counts(**piece["counts"]),
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


def _concatenated(arrays: Sequence[np.ndarray | None]) -> np.ndarray | None:
    known = [array for array in arrays if array is not None]
    return np.concatenate(known) if len(known) == len(arrays) else None


def _encode(values: np.ndarray) -> str:
    return base64.b64encode(values.tobytes()).decode()


def _decode(text: str, dtype: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), dtype=dtype).copy()
