"""A report against its baseline: which accuracies dropped, beyond chance and beyond what is allowed.

Both were measured on the same samples, so every test is paired. The tests are in :mod:`freqrobust.statistics`, and
derived in ``docs/statistics.md``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from freqrobust import targets
from freqrobust.errors import GateError, SpecError
from freqrobust.results import Cell, Comparison, DataRecord, ModelRecord, RegressionRow, Report, WorstCase
from freqrobust.statistics import detectable_drop, holm, mcnemar, sign_flip
from freqrobust.suites import HEADLINE_RADIUS, scaled_radius
from freqrobust.summary import model_labels
from freqrobust.targets import Target

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: The power that ``detectable`` is stated for.
POWER = 0.8
#: Share of samples assumed to improve by chance when the detectable drop is stated; more where more did.
CHURN = 0.01
#: The name of the default gate cells: clean, LFC at the headline's radius, the worst case per threat.
DEFAULT = "default"
#: Cells named in a note, at most.
NAMED = 4


@dataclass(frozen=True)
class Rules:
    """What counts as a regression.

    Attributes:
        cells: the declared gate cells, by the names of :mod:`freqrobust.targets`; ``default`` is the default ones.
        alpha: the chance of a false alarm, over all gate cells together.
        max_drop: drops up to this share are allowed.
        max_drops: the same by the name of a cell, which is a gate cell then; later ones win.
        strict: other seeds, versions, devices or cells are errors.
    """

    cells: Sequence[str] = (DEFAULT,)
    alpha: float = 0.05
    max_drop: float = 0.01
    max_drops: tuple[tuple[str, float], ...] = ()
    strict: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.alpha < 1:
            raise SpecError(f"alpha should be between 0 and 1, but got {self.alpha:g}")
        for name, drop in [("max-drop", self.max_drop), *self.max_drops]:
            if not 0 <= drop <= 1:
                hint = f"; did you mean {drop / 100:g}?" if 1 < drop <= 100 else ""
                raise SpecError(f"the largest drop of {name} should be a share in [0, 1], but got {drop:g}{hint}")


def compare(baseline: Report, new: Report, rules: Rules | None = None, *, name: str = "baseline") -> Comparison:
    """What changed from one report to another of the same data.

    Args:
        rules: what counts as a regression.
        name: what the baseline is called in the result and in messages.

    Raises:
        GateError: other data, a gate cell that failed, nothing in common; with ``strict`` any other difference.
        SpecError: a rule names no cell.
    """
    rules = rules or Rules()
    check_same_data(baseline.data, new.data, name)
    for report, called in ((baseline, name), (new, "the new report")):
        if any(cell.n != report.data.n for cell in report.cells):
            raise GateError(f"cannot compare with {name}: {called} is of a sequential check, which leaves samples out")
    partners = _partners(baseline.models, new.models)
    old, now = _Side(baseline, {b: n for n, b in partners.items()}), _Side(new, {n: n for n in partners})
    shared, notes = _shared(old, now)
    notes = [*_conditions(baseline, new, partners), *notes]
    declared = _declared(rules, [*shared, *targets.sweeps(shared)], new.data.shape)
    changes, more = _changes(old, now, [*shared, *targets.sweeps(shared)], declared)
    notes += more
    if rules.strict and notes:
        raise GateError(f"strict: {name} and the new report differ: {'; '.join(notes)}")
    labels = model_labels(new) if len(new.models) > 1 else []
    rows = _rows(changes, declared, rules, labels)
    return Comparison(
        baseline=name,
        models=[f"{_described(baseline.models[b])} -> {_described(new.models[n])}" for n, b in partners.items()],
        passed=not any(row.passed is False for row in rows),
        alpha=rules.alpha,
        max_drop=rules.max_drop,
        power=POWER,
        rows=rows,
        notes=notes,
    )


def check_same_data(old: DataRecord, now: DataRecord, name: str = "baseline") -> None:
    """Refuse two reports whose samples cannot be paired.

    Raises:
        GateError: they are of other data.
    """
    if old.sha256 != now.sha256:
        which = f"{old.spec} [{old.split}], n = {old.n}, is not {now.spec} [{now.split}], n = {now.n}"
        same = "the images, labels or chosen samples differ" if (old.spec, old.n) == (now.spec, now.n) else which
        raise GateError(f"cannot compare with {name}: it was made on other data ({same})")


def check_rules(rules: Rules, baseline: Report, planned: Sequence[Target]) -> None:
    """Refuse rules that name no cell of both the baseline and a run that is still to come.

    Raises:
        GateError: nothing in common.
        SpecError: a rule names no cell.
    """
    known = {target.key for target in targets.in_report(baseline)}
    shared = [target for target in planned if target.key in known]
    _declared(rules, [*shared, *targets.sweeps(shared)], baseline.data.shape)


def declared_cells(rules: Rules, known: Sequence[Target], shape: Sequence[int]) -> list[Target]:
    """The gate cells among those that are known.

    Raises:
        GateError: there are none.
        SpecError: a rule names no cell.
    """
    return list(_declared(rules, known, shape).cells.values())


def expected_drop(n: int, cells: int, alpha: float) -> float | None:
    """The smallest drop that ``cells`` gate cells on ``n`` samples will find, before anything is compared."""
    return detectable_drop(n, alpha / max(cells, 1), CHURN, POWER)


def default_cells(known: Iterable[Target], shape: Sequence[int]) -> list[Target]:
    """The gate cells where none are named: clean, LFC at the headline's radius, the worst case per threat."""
    radius = scaled_radius(HEADLINE_RADIUS, tuple(shape))
    return [t for t in known if t.knowledge == "adaptive" and (t.what == "worst" or _is_headline(t, radius))]


def _is_headline(target: Target, radius: float) -> bool:
    params = target.attack_params
    low = target.attack == "lfc" and abs(params.get("radius", -1) - radius) < 1e-9
    return target.what == "cell" and (
        target.attack == "clean" or (low and params.get("shape") == "circle" and not params.get("clip"))
    )


class _Side:
    """The cells and worst cases of one report, by target."""

    def __init__(self, report: Report, renumber: Mapping[int, int]) -> None:
        self.cells: dict[str, tuple[Target, Cell]] = {}
        self.worst: dict[str, tuple[Target, WorstCase]] = {}
        for cell in report.cells:
            if cell.model in renumber:
                target = replace(targets.of_cell(cell), model=renumber[cell.model])
                self.cells[target.key] = (target, cell)
        for row in report.worst_case:
            if row.model in renumber:
                target = replace(targets.of_worst(row), model=renumber[row.model])
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


def _described(model: ModelRecord) -> str:
    return f"{model.arch} ({model.spec})"


def _partners(old: list[ModelRecord], new: list[ModelRecord]) -> dict[int, int]:
    """Which model of the baseline each new one is compared with: the same spec, else the same place."""
    specs = [model.spec for model in old]
    if len({model.spec for model in new} & set(specs)) == len(new) == len(set(specs)) > 1:
        return {n: specs.index(model.spec) for n, model in enumerate(new)}
    return {n: n for n in range(min(len(old), len(new)))}


def _shared(old: _Side, now: _Side) -> tuple[list[Target], list[str]]:
    """Targets of both, failed ones too, and what is missing or new."""
    before, after = ({t.key: t for t in side.targets()} for side in (old, now))
    notes = []
    for names, text in ((before.keys() - after, "missing in the new report"), (after.keys() - before, "not in it")):
        listed = [t.name for key, t in {**before, **after}.items() if key in names]
        if listed:
            more = f" and {len(listed) - NAMED} more" if len(listed) > NAMED else ""
            notes.append(f"cells {text}: {', '.join(listed[:NAMED])}{more}")
    return [t for key, t in after.items() if key in before], notes


def _conditions(old: Report, new: Report, partners: Mapping[int, int]) -> list[str]:
    """Conditions of measuring that are not the same."""
    found = {
        "seed": (old.seed, new.seed),
        "freqrobust": (old.freqrobust_version, new.freqrobust_version),
        "torch": (old.environment.torch, new.environment.torch),
        "device": (old.environment.device, new.environment.device),
        "precision": (old.environment.precision, new.environment.precision),
    }
    if len(old.models) != len(new.models):
        found["number of models"] = (len(old.models), len(new.models))
    for n, b in partners.items():
        before, after = old.models[b].normalize, new.models[n].normalize
        if (before.mean, before.std) != (after.mean, after.std):
            found["normalisation"] = (_normalization(before), _normalization(after))
    return [f"{what}: {before} before, {after} now" for what, (before, after) in found.items() if before != after]


def _normalization(record: object) -> str:
    mean, std = (",".join(f"{x:g}" for x in getattr(record, key)) for key in ("mean", "std"))
    return f"{mean}/{std}" if mean else "none"


@dataclass(frozen=True)
class _Declared:
    """The gate cells.

    Attributes:
        cells: all of them, by key.
        named: those that a rule names, and not only ``default``.
        limits: drops that are allowed for some of them; later ones win.
    """

    cells: dict[str, Target]
    named: set[str]
    limits: list[tuple[set[str], float]]


def _declared(rules: Rules, shared: Sequence[Target], shape: Sequence[int]) -> _Declared:
    cells: dict[str, Target] = {}
    named: set[str] = set()
    limits = []
    for text in rules.cells:
        if text == DEFAULT:
            cells |= {t.key: t for t in default_cells(shared, shape)}
        else:
            found = {t.key: t for t in targets.find(text, shared, "gate cell")}
            cells, named = cells | found, named | found.keys()
    for text, drop in rules.max_drops:
        found = {t.key: t for t in targets.find(text, shared, "max-drop")}
        cells, named = cells | found, named | found.keys()
        limits.append((set(found), drop))
    if not cells:
        raise GateError("cannot compare: the two reports have no gate cell in common")
    return _Declared(cells, named, limits)


@dataclass
class _Change:
    """What happened to the samples of one target."""

    target: Target
    test: str
    p_value: float
    n: int
    baseline: float
    new: float
    drop: float
    lost: int
    gained: int


def _changes(old: _Side, now: _Side, shared: Sequence[Target], declared: _Declared) -> tuple[list[_Change], list[str]]:
    """The changes of all targets that both sides measured, and what has to be said of the others."""
    changes: list[_Change] = []
    notes: dict[str, None] = {}
    for target in shared:
        failed = {"the new report": now.failed(target), "the baseline": old.failed(target)}
        where = next((side for side, reason in failed.items() if reason is not None), None)
        if where is not None:
            if target.key in declared.cells:
                raise GateError(f"cannot compare: the gate cell {target.name} failed in {where}: {failed[where]}")
            notes[f"{target.name} failed in {where}"] = None
        elif target.what == "sweep":
            levels = _levels(shared, target, old, now)
            if len(levels) > 1:
                changes.append(_sweep_change(target, old.survived(levels), now.survived(levels), len(levels)))
        elif target.what == "cell":
            changes.append(_change(target, old.right(target), now.right(target)))
        else:
            both = old.adversarial(target), now.adversarial(target)
            if both[0] == both[1]:
                changes.append(_change(target, old.right(target), now.right(target)))
                continue
            before, after = (side.worst_of(target, both[0] & both[1]) for side in (old, now))
            if len(before):
                notes[f"{target.name} is over the attacks that both reports have"] = None
                changes.append(_change(target, before, after))
                continue
            if target.key in declared.named:
                raise GateError(f"cannot compare: {target.name} is over other attacks in each report")
            notes[f"{target.name} is over other attacks in each report, and is not compared"] = None
    return changes, list(notes)


def _levels(shared: Sequence[Target], sweep: Target, old: _Side, now: _Side) -> list[str]:
    """The cells of a sweep that both sides measured, by eps."""
    cells = {
        t.threat[1]: t.key
        for t in shared
        if t.what == "cell" and t.threat is not None and targets.sweep_of(t).key == sweep.key
        if not old.failed(t) and not now.failed(t)
    }
    return [cells[eps] for eps in sorted(cells)]


def _change(target: Target, before: NDArray[np.bool_], after: NDArray[np.bool_]) -> _Change:
    lost, gained, n = int((before & ~after).sum()), int((~before & after).sum()), len(before)
    was, now = float(before.mean()), float(after.mean())
    return _Change(target, "mcnemar", mcnemar(lost, gained), n, was, now, (lost - gained) / n, lost, gained)


def _sweep_change(target: Target, before: NDArray[np.int64], after: NDArray[np.int64], levels: int) -> _Change:
    """The test on each sample's smallest breaking eps, counted in levels of the sweep."""
    difference = before - after
    values, counts = np.unique(difference, return_counts=True)
    tally = {int(value): int(count) for value, count in zip(values, counts, strict=True)}
    was, now = float(before.mean()) / levels, float(after.mean()) / levels
    lost, gained = int((difference > 0).sum()), int((difference < 0).sum())
    drop = float(difference.sum()) / (levels * len(before))
    return _Change(target, "sign-flip", sign_flip(tally), len(before), was, now, drop, lost, gained)


def _rows(changes: Sequence[_Change], declared: _Declared, rules: Rules, labels: Sequence[str]) -> list[RegressionRow]:
    """Judged rows, worst first, then the others; ``labels`` names the models where there are several."""
    judged = [change for change in changes if change.target.key in declared.cells]
    if not judged:
        raise GateError("cannot compare: the two reports have no gate cell in common")
    adjusted = dict(zip((c.target.key for c in judged), holm([c.p_value for c in judged]), strict=True))
    rows = []
    for change in changes:
        key = change.target.key
        p = adjusted.get(key)
        required = next((drop for keys, drop in reversed(declared.limits) if key in keys), rules.max_drop)
        churn = max(min(change.lost, change.gained) / change.n, CHURN)
        mcnemars = p is not None and change.test == "mcnemar"
        rows.append(
            RegressionRow(
                name=f"{labels[change.target.model]}: {change.target.name}" if labels else change.target.name,
                model=change.target.model,
                passed=None if p is None else not (p <= rules.alpha and change.drop > required + 1e-12),
                measured=change.drop,
                required=required if p is not None else None,
                p_value=change.p_value,
                p_adjusted=p,
                test="mcnemar" if change.test == "mcnemar" else "sign-flip",
                n=change.n,
                baseline=change.baseline,
                new=change.new,
                lost=change.lost,
                gained=change.gained,
                detectable=detectable_drop(change.n, rules.alpha / len(judged), churn, POWER) if mcnemars else None,
                churn=churn if mcnemars else None,
                text=_text(change, p, required, rules.alpha),
            )
        )
    return sorted(rows, key=_badness)


def _badness(row: RegressionRow) -> tuple[bool, bool, float, float]:
    p = row.p_adjusted if row.p_adjusted is not None else row.p_value
    return row.passed is None, row.passed is not False, p if p is not None else 1.0, -(row.measured or 0.0)


def points(share: float) -> str:
    """A change of a share in points, signed, and without a negative zero.

    Example:
        >>> points(-0.0004), points(-0.012)
        ('+0.0', '-1.2')
    """
    return f"{100 * share:+.1f}".replace("-0.0", "+0.0")


def _text(change: _Change, p: float | None, required: float, alpha: float) -> str:
    what = "mean accuracy over the eps " if change.test == "sign-flip" else ""
    moved = f"{what}{change.baseline:.1%} -> {change.new:.1%} ({points(-change.drop)} points)"
    counts = f"{change.lost} samples lost, {change.gained} gained"
    if p is None:
        return f"{moved}; {counts}; p = {change.p_value:.2g}, not judged"
    chance = f"p = {change.p_value:.2g}, corrected {p:.2g}"
    if p > alpha:
        verdict = "within chance" if change.drop > 0 else "no drop"
    else:
        verdict = f"a regression: more than {100 * required:g} points" if change.drop > required + 1e-12 else "allowed"
    return f"{moved}; {counts}; {chance}: {verdict}"
