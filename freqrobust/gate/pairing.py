"""Two reports of the same samples, cell by cell: what is in both, and what happened to each sample."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from freqrobust.core.errors import GateError
from freqrobust.numerics.statistics import mcnemar, sign_flip
from freqrobust.results import cell_reference
from freqrobust.results.cell_reference import CellReference
from freqrobust.results.cells import Cell, WorstCase
from freqrobust.results.records import ModelRecord, NormalizeRecord
from freqrobust.results.report import Report
from freqrobust.results.summary import settings

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Cells named in a note, at most.
NAMED = 4


class Side:
    """What one report measured, by the keys of the references.

    Args:
        renumber: the new position of each model that takes part, by its position in the report.
    """

    def __init__(self, report: Report, renumber: Mapping[int, int]) -> None:
        self.measured: dict[str, tuple[CellReference, Cell | WorstCase]] = {}
        self._adversarial: dict[tuple[int, str, str], set[str]] = {}
        for reference, measured in cell_reference.referenced(report):
            if reference.model in renumber:
                renumbered = replace(reference, model=renumber[reference.model])
                self.measured[renumbered.key] = (renumbered, measured)
                if isinstance(measured, Cell) and measured.kind == "adversarial" and measured.status == "ok":
                    self._adversarial.setdefault(_owner(renumbered), set()).add(renumbered.key)

    def references(self) -> list[CellReference]:
        return [reference for reference, _ in self.measured.values()]

    def failed(self, reference: CellReference) -> str | None:
        """Why a cell failed; None if it did not."""
        _, measured = self.measured.get(reference.key, (None, None))
        return measured.error or "failed" if isinstance(measured, Cell) and measured.status == "failed" else None

    def right(self, key: str) -> NDArray[np.bool_]:
        return self.measured[key][1].right()

    def adversarial(self, reference: CellReference) -> set[str]:
        """The keys of the adversarial cells of a reference's model and defense."""
        return self._adversarial.get(_owner(reference), set())

    def worst_of(self, reference: CellReference, common: set[str]) -> NDArray[np.bool_]:
        """Right on the clean images and under each of the common attacks within the threat."""
        right = [
            self.right(key) for key in self.measured if key in common and _within(self.measured[key][0], reference)
        ]
        return np.asarray(np.logical_and.reduce(right)) if right else np.zeros(0, dtype=bool)

    def survived(self, keys: Sequence[str]) -> NDArray[np.int64]:
        """How many eps of a sweep, from the smallest upwards, each sample survives until it is misclassified."""
        levels = np.stack([self.right(key) for key in keys])
        return np.asarray(np.cumprod(levels, axis=0).sum(axis=0))


def _owner(reference: CellReference) -> tuple[int, str, str]:
    return reference.model, reference.defense, str(sorted(reference.defense_params.items()))


def _within(cell: CellReference, worst_case: CellReference) -> bool:
    assert worst_case.threat is not None
    limit = worst_case.threat
    return cell.threat is not None and cell.threat.norm == limit.norm and cell.threat.eps <= limit.eps * (1 + 1e-9)


def described(model: ModelRecord) -> str:
    """The architecture and the spec of a model."""
    return f"{model.arch} ({model.spec})"


@dataclass(frozen=True)
class ModelPair:
    """Two models that are compared, by their positions in the reports, and by what they were paired."""

    baseline: int
    new: int
    by: Literal["name", "fingerprint", "position"]


def model_pairs(old: Sequence[ModelRecord], new: Sequence[ModelRecord]) -> list[ModelPair]:
    """Which model of the baseline each new one is compared with, in the order of the new ones.

    The one with the same fingerprint, then the one of the same name (as the user named it, else its spec). Models that
    share a fingerprint are told apart by their names; models that share a name are paired in their order where both
    reports have equally many. Two reports of a single model each are compared in any case. All others have no partner.
    """
    rules: list[tuple[Literal["name", "fingerprint"], Callable[[ModelRecord], object]]] = [
        ("fingerprint", lambda model: (model.sha256, called(model))),
        ("fingerprint", lambda model: model.sha256),
        ("name", called),
    ]
    left, right = dict(enumerate(old)), dict(enumerate(new))
    pairs = []
    for by, key in rules:
        before, after = _unique(left, key), _unique(right, key)
        for value in before.keys() & after.keys():
            pairs.append(ModelPair(before[value], after[value], by))
            del left[before[value]], right[after[value]]
    for name in dict.fromkeys(map(called, left.values())):
        sides = [[place for place, model in side.items() if called(model) == name] for side in (left, right)]
        if len(sides[0]) == len(sides[1]):
            pairs += [ModelPair(b, n, "name") for b, n in zip(*sides, strict=True)]
    if not pairs and len(old) == len(new) == 1:
        pairs = [ModelPair(0, 0, "position")]
    return sorted(pairs, key=lambda pair: pair.new)


def called(model: ModelRecord) -> str:
    """The name that the user gave a model, else its spec."""
    return model.name or model.spec


def _unique(models: Mapping[int, ModelRecord], key: Callable[[ModelRecord], object]) -> dict[object, int]:
    """The places of models by a property that no other has."""
    values = {place: key(model) for place, model in models.items()}
    times = Counter(values.values())
    return {value: place for place, value in values.items() if times[value] == 1}


def unpaired(old: Sequence[ModelRecord], new: Sequence[ModelRecord], pairs: Sequence[ModelPair]) -> list[str]:
    """A line for each model that is not compared."""
    sides = (
        (old, {pair.baseline for pair in pairs}, "the new report"),
        (new, {pair.new for pair in pairs}, "the baseline"),
    )
    return [
        f"model {called(model)} ({model.arch}) is not compared: no other model of {where} has its fingerprint or its name"
        for models, places, where in sides
        for place, model in enumerate(models)
        if place not in places
    ]


def shared_references(old: Side, now: Side) -> tuple[list[CellReference], list[str]]:
    """References to what both reports contain, failed cells too, and lines that list the others."""
    before, after = ({r.key: r for r in side.references()} for side in (old, now))
    notes = []
    for keys, missing in ((before.keys() - after, "the new report"), (after.keys() - before, "the baseline")):
        names = [r.name for key, r in {**before, **after}.items() if key in keys]
        if names:
            more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
            notes.append(f"cells missing in {missing}: {', '.join(names[:NAMED])}{more}")
    return [r for key, r in after.items() if key in before], notes


def conditions(old: Report, new: Report, partners: Mapping[int, int]) -> list[str]:
    """A line for each setting that differs."""
    before, after = settings(old), settings(new)
    if {d.depth for d in old.diagnostics} != {d.depth for d in new.diagnostics}:  # the worst case includes its attacks
        before["diagnosis"], after["diagnosis"] = _depth(old), _depth(new)
    before["number of models"], after["number of models"] = str(len(old.models)), str(len(new.models))
    lines = [_differs(what, before[what], after[what]) for what in before if before[what] != after[what]]
    for n, b in partners.items():
        normalizations = [(r.mean, r.std) for r in (old.models[b].normalize, new.models[n].normalize)]
        if normalizations[0] != normalizations[1]:
            texts = [_normalization(r) for r in (old.models[b].normalize, new.models[n].normalize)]
            lines.append(_differs(f"normalisation of {described(new.models[n])}", *texts))
    return lines


def _differs(what: str, before: str, after: str) -> str:
    return f"{what}: {before} in the baseline, {after} in the new report"


def _depth(report: Report) -> str:
    return ", ".join(sorted({diagnosis.depth for diagnosis in report.diagnostics})) or "none"


def _normalization(record: NormalizeRecord) -> str:
    mean, std = (",".join(f"{x:g}" for x in values) for values in (record.mean, record.std))
    return f"{mean}/{std}" if mean else "none"


@dataclass(frozen=True)
class Change:
    """What happened to the samples of one reference.

    Attributes:
        p_of_zero: the p-value if every sample that was right in the baseline were wrong now: the smallest there can be.
    """

    reference: CellReference
    test: Literal["mcnemar", "sign-flip"]
    p_value: float
    n: int
    baseline: float
    new: float
    drop: float
    newly_misclassified: int
    newly_correct: int
    p_of_zero: float


def changes_of(
    old: Side, now: Side, shared: Sequence[CellReference], judged: Collection[str], named: Collection[str]
) -> tuple[list[Change], list[str]]:
    """The changes of everything that both sides measured, and a line for each reference that is not compared as it is.

    Args:
        judged: keys of the gate cells.
        named: keys of those that a rule names.

    Raises:
        GateError: a gate cell failed, or one that a rule names cannot be compared.
    """
    changes: list[Change] = []
    notes: dict[str, None] = {}
    for reference in shared:
        failures = {"the new report": now.failed(reference), "the baseline": old.failed(reference)}
        where = next((side for side, reason in failures.items() if reason is not None), None)
        if where is not None:
            if reference.key in judged:
                raise GateError(f"cannot compare: the gate cell {reference.name} failed in {where}: {failures[where]}")
            notes[f"{reference.name} failed in {where}"] = None
            continue
        change, note = _changed(reference, shared, old, now)
        if note:
            notes[note] = None
        if change is not None:
            changes.append(change)
        elif reference.key in named:
            raise GateError(f"cannot compare: {note or reference.name}")
    return changes, list(notes)


def _changed(
    reference: CellReference, shared: Sequence[CellReference], old: Side, now: Side
) -> tuple[Change | None, str]:
    """The change of one reference, and a note on how it was compared or why it was not."""
    name, key = reference.name, reference.key
    if reference.what == "sweep":
        levels = _levels(shared, reference, old, now)
        if len(levels) < 2:
            return None, f"{name} is not compared: the two reports have fewer than two of its eps in common"
        return _tested("sign-flip", reference, old.survived(levels), now.survived(levels), len(levels)), ""
    attacks = old.adversarial(reference), now.adversarial(reference)
    if reference.what == "cell" or attacks[0] == attacks[1]:
        return _tested("mcnemar", reference, old.right(key), now.right(key)), ""
    before, after = (side.worst_of(reference, attacks[0] & attacks[1]) for side in (old, now))
    if len(before):
        return _tested(
            "mcnemar", reference, before, after
        ), f"{name} is compared over the attacks that both reports contain"
    return None, f"{name} is not compared: the two reports have no attack in common"


def _levels(shared: Sequence[CellReference], sweep: CellReference, old: Side, now: Side) -> list[str]:
    """The keys of the cells of a sweep that both sides measured, by eps."""
    cells = {
        r.threat.eps: r.key
        for r in shared
        if r.what == "cell" and r.threat is not None and cell_reference.reference_to_sweep(r).key == sweep.key
        if not old.failed(r) and not now.failed(r)
    }
    return [cells[eps] for eps in sorted(cells)]


def _tested(
    test: Literal["mcnemar", "sign-flip"],
    reference: CellReference,
    before: NDArray[Any],
    after: NDArray[Any],
    levels: int = 1,
) -> Change:
    """The paired test on how many of ``levels`` eps each sample survives; of a single cell, whether it is right."""
    difference = before.astype(np.int64) - after
    worse, better, n = int((difference > 0).sum()), int((difference < 0).sum()), len(before)
    if test == "mcnemar":
        p_value, p_of_zero = mcnemar(worse, better), mcnemar(int(before.sum()), 0)
    else:
        p_value, p_of_zero = sign_flip(_tally(difference)), sign_flip(_tally(before))
    was, now, drop = (float(values.sum()) / (levels * n) for values in (before, after, difference))
    return Change(reference, test, p_value, n, was, now, drop, worse, better, p_of_zero)


def _tally(values: NDArray[np.int64]) -> dict[int, int]:
    """How many samples have which value."""
    distinct, counts = np.unique(values, return_counts=True)
    return {int(value): int(count) for value, count in zip(distinct, counts, strict=True)}
