"""Two reports of the same samples, cell by cell: what is in both, and what happened to each sample."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from freqrobust.core.errors import GateError
from freqrobust.gate.planned import Target
from freqrobust.numerics.statistics import mcnemar, sign_flip
from freqrobust.results import cell_reference
from freqrobust.results.cells import Cell, WorstCase
from freqrobust.results.records import ModelRecord, NormalizeRecord
from freqrobust.results.report import Report

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Cells named in a note, at most.
NAMED = 4


class Side:
    """The cells and worst cases of one report, by target."""

    def __init__(self, report: Report, renumber: Mapping[int, int]) -> None:
        self.cells: dict[str, tuple[Target, Cell]] = {}
        self.worst: dict[str, tuple[Target, WorstCase]] = {}
        for cell in report.cells:
            if cell.model in renumber:
                target = replace(cell_reference.of_cell(cell), model=renumber[cell.model])
                self.cells[target.key] = (target, cell)
        for row in report.worst_case:
            if row.model in renumber:
                target = replace(cell_reference.of_worst(row), model=renumber[row.model])
                self.worst[target.key] = (target, row)

    def targets(self) -> list[Target]:
        return [target for target, _ in (*self.cells.values(), *self.worst.values())]

    def failed(self, target: Target) -> str | None:
        """Why a cell failed; None if it did not."""
        found = self.cells.get(target.key)
        return found[1].error or "failed" if found is not None and found[1].status == "failed" else None

    def right(self, target: Target) -> NDArray[np.bool_]:
        found = self.worst[target.key][1] if target.what == "worst" else self.cells[target.key][1]
        return found.right()

    def adversarial(self, target: Target) -> set[str]:
        """The adversarial cells of a target's model and defense."""
        return {
            key
            for key, (other, cell) in self.cells.items()
            if _owner(other) == _owner(target) and cell.kind == "adversarial" and cell.status == "ok"
        }

    def worst_of(self, target: Target, common: set[str]) -> NDArray[np.bool_]:
        """Right on the clean images and under each of the common attacks inside the threat."""
        inside = [cell.right() for key, (_, cell) in self.cells.items() if key in common and _inside(cell, target)]
        return np.asarray(np.logical_and.reduce(inside)) if inside else np.zeros(0, dtype=bool)

    def survived(self, keys: Sequence[str]) -> NDArray[np.int64]:
        """How many eps of a sweep, upwards, each sample survives before it breaks."""
        levels = np.stack([self.cells[key][1].right() for key in keys])
        return np.asarray(np.cumprod(levels, axis=0).sum(axis=0))


def _owner(target: Target) -> tuple[int, str, str]:
    return target.model, target.defense, str(sorted(target.defense_params.items()))


def _inside(cell: Cell, target: Target) -> bool:
    assert target.threat is not None
    norm, eps = target.threat
    return cell.threat is not None and cell.threat.norm == norm and cell.threat.eps <= eps * (1 + 1e-9)


def described(model: ModelRecord) -> str:
    """A model, in words."""
    return f"{model.arch} ({model.spec})"


@dataclass(frozen=True)
class ModelPair:
    """Two models that are compared, by their places in the reports, and why these two."""

    baseline: int
    new: int
    by: Literal["name", "fingerprint", "position"]


def model_pairs(old: Sequence[ModelRecord], new: Sequence[ModelRecord]) -> list[ModelPair]:
    """Which model of the baseline each new one is compared with, in the order of the new ones.

    The one of the same name (as the user named it, else its spec), then the one of the same fingerprint; what remains
    is paired in the order of the reports. A name or fingerprint that several models have decides nothing, except that
    both together do.
    """
    rules: list[tuple[Literal["name", "fingerprint"], Callable[[ModelRecord], object]]] = [
        ("name", lambda model: (_called(model), model.sha256)),
        ("name", _called),
        ("fingerprint", lambda model: model.sha256),
    ]
    left, right = dict(enumerate(old)), dict(enumerate(new))
    pairs = []
    for by, key in rules:
        before, after = _unique(left, key), _unique(right, key)
        for value in before.keys() & after.keys():
            pairs.append(ModelPair(before[value], after[value], by))
            del left[before[value]], right[after[value]]
    pairs += [ModelPair(b, n, "position") for b, n in zip(left, right, strict=False)]
    return sorted(pairs, key=lambda pair: pair.new)


def _called(model: ModelRecord) -> str:
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
        f"model {described(model)} is not compared: {where} has fewer models"
        for models, places, where in sides
        for place, model in enumerate(models)
        if place not in places
    ]


def shared_targets(old: Side, now: Side) -> tuple[list[Target], list[str]]:
    """Targets of both, failed ones too, and what is missing or new."""
    before, after = ({t.key: t for t in side.targets()} for side in (old, now))
    notes = []
    for names, text in ((before.keys() - after, "missing in the new report"), (after.keys() - before, "not in it")):
        listed = [t.name for key, t in {**before, **after}.items() if key in names]
        if listed:
            more = f" and {len(listed) - NAMED} more" if len(listed) > NAMED else ""
            notes.append(f"cells {text}: {', '.join(listed[:NAMED])}{more}")
    return [t for key, t in after.items() if key in before], notes


def conditions(old: Report, new: Report, partners: Mapping[int, int]) -> list[str]:
    """Conditions of measuring that are not the same."""
    found = {
        "seed": (old.seed, new.seed),
        "freqrobust": (old.freqrobust_version, new.freqrobust_version),
        "torch": (old.environment.torch, new.environment.torch),
        "device": (old.environment.device, new.environment.device),
        "precision": (old.environment.precision, new.environment.precision),
    }
    if {d.depth for d in old.diagnostics} != {d.depth for d in new.diagnostics}:  # what it breaks is in the worst case
        found["diagnosis"] = (_depth(old), _depth(new))
    if len(old.models) != len(new.models):
        found["number of models"] = (len(old.models), len(new.models))
    for n, b in partners.items():
        before, after = old.models[b].normalize, new.models[n].normalize
        if (before.mean, before.std) != (after.mean, after.std):
            found["normalisation"] = (_normalization(before), _normalization(after))
    return [f"{what}: {before} before, {after} now" for what, (before, after) in found.items() if before != after]


def _depth(report: Report) -> str:
    return ", ".join(sorted({diagnosis.depth for diagnosis in report.diagnostics})) or "none"


def _normalization(record: NormalizeRecord) -> str:
    mean, std = (",".join(f"{x:g}" for x in values) for values in (record.mean, record.std))
    return f"{mean}/{std}" if mean else "none"


@dataclass(frozen=True)
class Change:
    """What happened to the samples of one target.

    Attributes:
        p_of_zero: the p-value if every sample that was right in the baseline were wrong now: the smallest there can be.
    """

    target: Target
    test: Literal["mcnemar", "sign-flip"]
    p_value: float
    n: int
    baseline: float
    new: float
    drop: float
    lost: int
    gained: int
    p_of_zero: float


def changes_of(
    old: Side, now: Side, shared: Sequence[Target], judged: Collection[str], named: Collection[str]
) -> tuple[list[Change], list[str]]:
    """The changes of all targets that both sides measured, and what has to be said of the others.

    Args:
        judged: keys of the gate cells.
        named: keys of those that were asked for by name.

    Raises:
        GateError: a gate cell failed, or one that was asked for cannot be compared.
    """
    changes: list[Change] = []
    notes: dict[str, None] = {}
    for target in shared:
        failed = {"the new report": now.failed(target), "the baseline": old.failed(target)}
        where = next((side for side, reason in failed.items() if reason is not None), None)
        if where is not None:
            if target.key in judged:
                raise GateError(f"cannot compare: the gate cell {target.name} failed in {where}: {failed[where]}")
            notes[f"{target.name} failed in {where}"] = None
            continue
        change, note = _changed(target, shared, old, now)
        if note:
            notes[note] = None
        if change is not None:
            changes.append(change)
        elif target.key in named:
            raise GateError(f"cannot compare: {note or target.name}")
    return changes, list(notes)


def _changed(target: Target, shared: Sequence[Target], old: Side, now: Side) -> tuple[Change | None, str]:
    """The change of one target, and what has to be said of it."""
    if target.what == "cell":
        return _change(target, old.right(target), now.right(target)), ""
    if target.what == "sweep":
        levels = _levels(shared, target, old, now)
        if len(levels) < 2:
            return None, f"{target.name} has fewer than two eps that both reports have"
        return _sweep_change(target, old.survived(levels), now.survived(levels), len(levels)), ""
    both = old.adversarial(target), now.adversarial(target)
    if both[0] == both[1]:
        return _change(target, old.right(target), now.right(target)), ""
    before, after = (side.worst_of(target, both[0] & both[1]) for side in (old, now))
    if len(before):
        return _change(target, before, after), f"{target.name} is over the attacks that both reports have"
    return None, f"{target.name} is over other attacks in each report, and is not compared"


def _levels(shared: Sequence[Target], sweep: Target, old: Side, now: Side) -> list[str]:
    """The cells of a sweep that both sides measured, by eps."""
    cells = {
        t.threat[1]: t.key
        for t in shared
        if t.what == "cell" and t.threat is not None and cell_reference.sweep_of(t).key == sweep.key
        if not old.failed(t) and not now.failed(t)
    }
    return [cells[eps] for eps in sorted(cells)]


def _change(target: Target, before: NDArray[np.bool_], after: NDArray[np.bool_]) -> Change:
    lost, gained, n = int((before & ~after).sum()), int((~before & after).sum()), len(before)
    was, now = float(before.mean()), float(after.mean())
    p_of_zero = mcnemar(int(before.sum()), 0)
    return Change(target, "mcnemar", mcnemar(lost, gained), n, was, now, (lost - gained) / n, lost, gained, p_of_zero)


def _sweep_change(target: Target, before: NDArray[np.int64], after: NDArray[np.int64], levels: int) -> Change:
    """The test on each sample's smallest breaking eps, counted in levels of the sweep."""
    difference = before - after
    was, now = float(before.mean()) / levels, float(after.mean()) / levels
    lost, gained = int((difference > 0).sum()), int((difference < 0).sum())
    drop = float(difference.sum()) / (levels * len(before))
    p_value, p_of_zero = sign_flip(_tally(difference)), sign_flip(_tally(before))
    return Change(target, "sign-flip", p_value, len(before), was, now, drop, lost, gained, p_of_zero)


def _tally(values: NDArray[np.int64]) -> dict[int, int]:
    """How many samples have which value."""
    distinct, counts = np.unique(values, return_counts=True)
    return {int(value): int(count) for value, count in zip(distinct, counts, strict=True)}
