"""The report: typed, versioned, integer counts with derived rates, JSON in and out."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, computed_field, model_validator

from freqrobust.errors import FreqRobustError
from freqrobust.statistics import wilson

if TYPE_CHECKING:
    from numpy.typing import NDArray

SCHEMA_VERSION: Literal[1] = 1
Interval = tuple[float, float]


class ReportError(FreqRobustError):
    """A report file cannot be read, or contradicts itself."""


def pack(outcomes: NDArray[np.bool_]) -> str:
    """Booleans in sample order as base64 of ``numpy.packbits(bitorder="little")``."""
    return base64.b64encode(np.packbits(np.asarray(outcomes, dtype=bool), bitorder="little").tobytes()).decode()


def unpack(text: str, n: int) -> NDArray[np.bool_]:
    """The inverse of :func:`pack`.

    Raises:
        ValueError: the text does not hold ``n`` outcomes.
    """
    raw = np.frombuffer(base64.b64decode(text, validate=True), dtype=np.uint8)
    if len(raw) != (n + 7) // 8:
        raise ValueError(f"expected the outcomes of {n} samples, but got {len(raw)} bytes")
    bits = np.unpackbits(raw, bitorder="little").astype(bool)
    if bits[n:].any():
        raise ValueError(f"expected the outcomes of {n} samples, but more are set")
    return bits[:n]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, protected_namespaces=())


class NormalizeRecord(_Part):
    mean: list[float] = []
    std: list[float] = []
    source: Literal["given", "checkpoint", "architecture", "trial", "none"] = "none"
    preset: str | None = None
    scores: dict[str, float] = Field({}, description="accuracy on the trial samples, by preset")


class PublishedRecord(_Part):
    """What others report for the same model."""

    source: str
    clean: float | None = None
    autoattack: float | None = None
    corruptions: float | None = None
    threat_model: str | None = None
    eps: str | None = Field(None, description="as written by the source")


class ModelRecord(_Part):
    spec: str
    arch: str
    sha256: str
    parameters: int
    normalize: NormalizeRecord
    published: PublishedRecord | None = Field(None, description="accuracies that the model's source reports")


class DataRecord(_Part):
    spec: str
    split: str
    n: int
    classes: int
    shape: list[int]
    sha256: str
    ids: Literal["all"] | list[int]


class EnvironmentRecord(_Part):
    python: str
    torch: str
    device: str
    precision: Literal["fp32", "bf16"]
    git: str | None = None


class ThreatRecord(_Part):
    norm: str
    eps: float


class Difference(_Part):
    against: str = "none"
    points: float
    ci95: Interval


class PerturbationRecord(_Part):
    successes: int
    linf_max: float
    l2_mean: float


_DERIVED = ("accuracy", "ci95")


def _close(given: Sequence[Any], expected: Sequence[float]) -> bool:
    return len(given) == len(expected) and all(
        isinstance(a, int | float) and abs(a - b) < 1e-9 for a, b in zip(given, expected, strict=True)
    )


class _Counted(_Part):
    """``correct`` of ``n``, per sample in ``outcomes``; the rates are derived, and checked on the way in."""

    n: int
    correct: int
    outcomes: str | None = Field(description="base64 of numpy.packbits(bitorder='little'), sample order")

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
                raise ValueError(f"the outcomes hold {right} right samples, but correct is {self.correct}")
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


class Cell(_Counted):
    """One (defense, attack) pair on one dataset."""

    model: int = 0
    defense: str
    defense_spec: str
    defense_params: dict[str, Any]
    attack: str
    attack_spec: str
    attack_params: dict[str, Any]
    kind: Literal["adversarial", "shift"]
    threat: ThreatRecord | None = None
    knowledge: Literal["adaptive", "oblivious"] = "adaptive"
    gradients: Literal["exact", "straight-through", "surrogate"] | None = Field(
        None, description="how an adaptive attack differentiates the defense; for oblivious cells it did not"
    )
    status: Literal["ok", "failed"] = "ok"
    error: str | None = None
    votes: int | None = Field(None, description="majority votes per sample, for stochastic defenses")
    inherited: int = 0
    breakdown: dict[str, int] | None = Field(None, description="samples broken by each part of the attack")
    notes: list[str] | None = Field(None, description="what the attack says about itself")
    difference: Difference | None = None
    by_chance: float | None = None
    agreement: float | None = Field(None, description="share predicted as on the clean image")
    perturbation: PerturbationRecord | None = None
    seconds: float = 0.0
    forwards: int = 0
    backwards: int = 0


class WorstCase(_Counted):
    """Right under every adversarial example that fits the threat."""

    model: int = 0
    defense: str
    defense_spec: str
    defense_params: dict[str, Any]
    threat: ThreatRecord
    difference: Difference | None = None


class Check(_Part):
    name: str
    status: Literal["passed", "failed", "not applicable", "information"]
    measured: float | None = None
    threshold: float | None = None
    reason: str | None = None
    source: str


class Diagnosis(_Part):
    model: int = 0
    defense: str
    defense_params: dict[str, Any]
    verdict: Literal["believable", "doubtful", "overestimated", "not meaningful"]
    sentence: str
    checks: list[Check]


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
    part: Literal["common", "extra"] = Field(description="of the 15 of the benchmark, or of the 4 for validation")
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


class Warned(_Part):
    code: str
    message: str
    defense: str | None = None


class Report(_Part):
    """Everything one evaluation found, and under which conditions."""

    schema_version: Literal[1] = SCHEMA_VERSION
    freqrobust_version: str
    created: str
    seed: int
    status: Literal["complete", "partial"]
    models: list[ModelRecord]
    data: DataRecord
    environment: EnvironmentRecord
    cells: list[Cell]
    worst_case: list[WorstCase] = []
    corruptions: list[CorruptionSummary] = []
    diagnostics: list[Diagnosis] = []
    analyses: list[dict[str, Any]] = []
    gate: dict[str, Any] | None = None
    warnings: list[Warned] = []

    def cell(self, attack: str, defense: str = "none", knowledge: str = "adaptive") -> Cell:
        """The one cell of that attack and defense, each given by its name or by its spec.

        Raises:
            KeyError: none or several match.
        """
        found = [
            c
            for c in self.cells
            if attack in (c.attack_spec, c.attack)
            and defense in (c.defense_spec, c.defense)
            and c.knowledge == knowledge
        ]
        exact = [c for c in found if c.attack_spec == attack and c.defense_spec == defense] or found
        if len(exact) != 1:
            raise KeyError(f"{len(exact)} {knowledge} cells match attack {attack!r} and defense {defense!r}")
        return exact[0]

    def dumps(self) -> str:
        """The report as JSON text."""
        return json.dumps(self.model_dump(mode="json"), indent=1, allow_nan=False) + "\n"

    def to_json(self, path: str | Path) -> None:
        """Write the report; the file appears whole or not at all."""
        from freqrobust.journal import write_atomically

        write_atomically(Path(path), self.dumps())

    @classmethod
    def from_json(cls, path: str | Path) -> Report:
        """Read a report.

        Raises:
            ReportError: the file is missing, not a report, of another schema version, or contradicts itself.
        """
        try:
            values = json.loads(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise ReportError(f"{path}: {error.strerror or error}") from error
        except ValueError as error:
            raise ReportError(f"{path} is not JSON: {error}") from error
        version = values.get("schema_version") if isinstance(values, dict) else None
        if version != SCHEMA_VERSION:
            raise ReportError(f"{path}: expected a report of schema version {SCHEMA_VERSION}, but got {version!r}")
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise ReportError(f"{path}: {where}: {first['msg'].removeprefix('Value error, ')}") from error


def schema() -> str:
    """The JSON schema of a report, as published in ``docs/report.schema.json``."""
    return json.dumps(Report.model_json_schema(mode="serialization"), indent=2) + "\n"


if __name__ == "__main__":
    print(schema(), end="")
