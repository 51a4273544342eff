"""The report: typed, versioned, integer counts with derived rates, JSON in and out."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, SerializeAsAny, ValidationError, computed_field, model_validator

from freqrobust.analysis_results import AnalysisResult, AnalysisTable, PictureRecord
from freqrobust.errors import FreqRobustError, SpecError
from freqrobust.statistics import wilson

if TYPE_CHECKING:
    from numpy.typing import NDArray

SCHEMA_VERSION: Literal[1] = 1
Interval = tuple[float, float]
#: What the checks say about the robust accuracy of a defense.
Verdict = Literal["no problem found", "inconclusive", "overestimated", "not meaningful", "nothing to check"]
#: Verdicts that older reports hold, and what they are called now.
RENAMED_VERDICTS = {"believable": "no problem found", "doubtful": "inconclusive"}
_Read = TypeVar("_Read", bound=BaseModel)


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
    name: str | None = Field(None, description="as the user named it")
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
    eot: int | None = Field(None, description="draws of a stochastic defense that the harness had the attack average")
    inherited: int = 0
    breakdown: dict[str, int] | None = Field(None, description="samples misclassified by each part of the attack")
    notes: list[str] | None = Field(None, description="what the attack reports about itself")
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
    by_checks: int = Field(0, description="samples that only the checks of the diagnosis misclassified")
    difference: Difference | None = None


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
    beyond: int | None = Field(None, description="samples that it misclassified and that are robust in the report")
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

    @model_validator(mode="before")
    @classmethod
    def _rename_verdict(cls, values: Any) -> Any:
        """Read the verdicts of older reports; their sentences begin with the same word."""
        if not isinstance(values, dict) or values.get("verdict") not in RENAMED_VERDICTS:
            return values
        old = values["verdict"]
        values = {**values, "verdict": RENAMED_VERDICTS[old]}
        sentence = values.get("sentence")
        if isinstance(sentence, str) and sentence.startswith(old):
            values["sentence"] = RENAMED_VERDICTS[old] + sentence.removeprefix(old)
        return values


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
    lost: int = Field(0, description="samples right before and wrong now; of a sweep, those that break earlier")
    gained: int = Field(0, description="samples wrong before and right now; of a sweep, those that break later")
    detectable: float | None = Field(None, description="smallest drop that is found with the comparison's power")
    churn: float | None = Field(None, description="share of samples assumed to improve all the same, for detectable")


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


class GateRecord(_Part):
    """What a gate decided, and why."""

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
    model: int = 0
    defense: str | None = None
    attack: str | None = Field(None, description="spec of the attack that it is about, where it is about one")


class AnalysisRecord(_Part):
    """One analysis of one or more models, side by side."""

    schema_version: Literal[1] = SCHEMA_VERSION
    freqrobust_version: str
    created: str
    seed: int
    name: str
    spec: str
    params: dict[str, Any]
    models: list[ModelRecord]
    data: DataRecord | None = Field(None, description="null where weights alone were looked at")
    environment: EnvironmentRecord
    results: list[SerializeAsAny[AnalysisResult]]
    tables: list[AnalysisTable] = []
    picture: PictureRecord | None = None
    warnings: list[Warned] = []

    def dumps(self) -> str:
        """The record as JSON text."""
        return json.dumps(self.model_dump(mode="json"), indent=1, allow_nan=False) + "\n"

    def to_json(self, path: str | os.PathLike[str]) -> None:
        """Write the record; the file appears whole or not at all."""
        from freqrobust.files import write_atomically

        write_atomically(path, self.dumps())

    @classmethod
    def from_json(cls, path: str | os.PathLike[str]) -> AnalysisRecord:
        """Read a record; the fields of each analysis come back as plain lists and numbers.

        Raises:
            ReportError: the file is missing, not a record, of another schema version, or contradicts itself.
        """
        return _read(cls, path)


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
    analyses: list[AnalysisRecord] = []
    gate: GateRecord | None = None
    warnings: list[Warned] = []

    def cell(
        self, attack: str, defense: str | None = None, knowledge: str = "adaptive", model: int = 0
    ) -> Cell | WorstCase:
        """The one cell, or worst case, that a reference names.

        Example:
            >>> report.cell("pgd:eps=2/255").accuracy  # doctest: +SKIP
            >>> report.cell("smooth/worst-linf-8/255").accuracy  # doctest: +SKIP

        Args:
            attack: a reference as of ``--fail-under``: ``clean``, ``pgd``, ``pgd:eps=2/255`` (the other parameters may
                be anything), ``worst``, ``worst-linf-8/255``, with a defense before it (``smooth/pgd``) or
                ``@oblivious`` behind it.
            defense: its name or spec, instead of in the reference. Where none is named it is the undefended model if
                that was measured, else any defense.
            knowledge: ``adaptive`` or ``oblivious``.
            model: the position of the model in :attr:`models`.

        Raises:
            KeyError: none or several match.
        """
        from freqrobust.references import pick

        try:
            return pick(self, attack, defense, knowledge, model)
        except SpecError as error:
            raise KeyError(str(error)) from None

    def dumps(self) -> str:
        """The report as JSON text."""
        return json.dumps(self.model_dump(mode="json"), indent=1, allow_nan=False) + "\n"

    def to_json(self, path: str | os.PathLike[str]) -> None:
        """Write the report; the file appears whole or not at all."""
        from freqrobust.files import write_atomically

        write_atomically(path, self.dumps())

    @classmethod
    def from_json(cls, path: str | os.PathLike[str]) -> Report:
        """Read a report.

        Raises:
            ReportError: the file is missing, not a report, of another schema version, or contradicts itself.
        """
        return _read(cls, path)


def _read(cls: type[_Read], path: str | os.PathLike[str]) -> _Read:
    """A report or a record from a file."""
    from freqrobust.files import reason, user_path

    try:
        values = json.loads(user_path(path, "the report", ReportError).read_text(encoding="utf-8"))
    except OSError as error:
        raise ReportError(f"{path}: {reason(error)}") from error
    except (ValueError, RecursionError) as error:
        raise ReportError(f"{path} is not JSON: {error}") from error
    values = _current(values, path)
    try:
        return cls.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ReportError(f"{path}: {where}: {first['msg'].removeprefix('Value error, ')}") from error


#: What turns a report of a version into one of the next. There has been one version so far.
_MIGRATIONS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {}


def _current(values: Any, path: str | os.PathLike[str]) -> dict[str, Any]:
    """A report of the current schema version, from that or an older one.

    Raises:
        ReportError: it has no version, or a newer one.
    """
    version = values.get("schema_version") if isinstance(values, dict) else None
    if not isinstance(version, int) or isinstance(version, bool) or version > SCHEMA_VERSION:
        newer = "; it was written by a newer freqrobust: upgrade to read it" if isinstance(version, int) else ""
        raise ReportError(f"{path}: expected a report of schema version {SCHEMA_VERSION}, but got {version!r}{newer}")
    for step in range(version, SCHEMA_VERSION):
        if step not in _MIGRATIONS:
            raise ReportError(f"{path}: expected a report of schema version {SCHEMA_VERSION}, but got {version!r}")
        values = {**_MIGRATIONS[step](values), "schema_version": step + 1}
    return dict(values)


def schema() -> str:
    """The JSON schema of a report, as published in ``docs/report.schema.json``."""
    return json.dumps(Report.model_json_schema(mode="serialization"), indent=2) + "\n"


if __name__ == "__main__":
    print(schema(), end="")
