"""A report against its baseline: which accuracies dropped, beyond chance and beyond what is allowed.

Both were measured on the same samples, so every test is paired. The tests are in :mod:`freqrobust.numerics.statistics`, and
derived in ``docs/statistics.md``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from freqrobust.core.errors import GateError, SpecError
from freqrobust.gate.pairing import (
    Change,
    Side,
    changes_of,
    conditions,
    described,
    model_pairs,
    shared_targets,
    unpaired,
)
from freqrobust.gate.planned import Target
from freqrobust.numerics.statistics import detectable_drop, holm
from freqrobust.plugins.suites import HEADLINE_RADIUS, scaled_radius
from freqrobust.results import cell_reference
from freqrobust.results.gate_record import Comparison, RegressionRow
from freqrobust.results.records import DataRecord
from freqrobust.results.report import Report
from freqrobust.results.summary import model_labels

#: The power that ``minimum_detectable_drop`` is stated for.
POWER = 0.8
#: Share of samples assumed to improve by chance when the detectable drop is stated; more where more did.
CHURN = 0.01
#: The name of the default gate cells: clean, LFC at the headline's radius, the worst case per threat.
DEFAULT = "default"


@dataclass(frozen=True)
class Rules:
    """What counts as a regression.

    Attributes:
        cells: the declared gate cells, by the names of :mod:`freqrobust.gate.planned`; ``default`` is the default ones.
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
    pairs = model_pairs(baseline.models, new.models)
    partners = {pair.new: pair.baseline for pair in pairs}
    old, now = Side(baseline, {b: n for n, b in partners.items()}), Side(new, {n: n for n in partners})
    shared, notes = shared_targets(old, now)
    notes = [*conditions(baseline, new, partners), *unpaired(baseline.models, new.models, pairs), *notes]
    declared = _declared(rules, [*shared, *cell_reference.sweeps(shared)], new.data.shape)
    changes, more = changes_of(old, now, [*shared, *cell_reference.sweeps(shared)], declared.cells, declared.named)
    notes += more
    if rules.strict and notes:
        raise GateError(f"strict: {name} and the new report differ: {'; '.join(notes)}")
    labels = model_labels(new) if len(new.models) > 1 else []
    rows = _rows(changes, declared, rules, labels)
    notes += _undetectable(changes, declared, rules, labels)  # no difference of the two: strict allows it
    return Comparison(
        baseline=name,
        models=[
            f"{described(baseline.models[pair.baseline])} -> {described(new.models[pair.new])}, paired by {pair.by}"
            for pair in pairs
        ],
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
    known = {target.key for target in cell_reference.in_report(baseline)}
    shared = [target for target in planned if target.key in known]
    _declared(rules, [*shared, *cell_reference.sweeps(shared)], baseline.data.shape)


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


def undetectable_cells(report: Report, rules: Rules) -> list[str]:
    """A line for each gate cell that can never fail with this report as the baseline, and why.

    Raises:
        GateError: there are no gate cells.
        SpecError: a rule names no cell.
    """
    side = Side(report, {number: number for number in range(len(report.models))})
    known = side.targets()
    known += cell_reference.sweeps(known)
    declared = _declared(rules, known, report.data.shape)
    changes, _ = changes_of(side, side, known, (), ())
    return _undetectable(changes, declared, rules, model_labels(report) if len(report.models) > 1 else [])


def _undetectable(changes: Sequence[Change], declared: _Declared, rules: Rules, labels: Sequence[str]) -> list[str]:
    """A line for each gate cell where even a drop to zero would pass, at the level of Holm's first step."""
    judged = [change for change in changes if change.target.key in declared.cells]
    lines = []
    for change in judged:
        required = declared.limit(change.target, rules)
        accuracy = f"{change.baseline:.1%}"
        if change.baseline == 0:
            reason = f"the accuracy in the baseline is {accuracy}, and cannot drop"
        elif change.baseline <= required + 1e-12:
            reason = (
                f"the accuracy in the baseline is {accuracy}, and drops of up to {100 * required:g} points are allowed"
            )
        elif change.p_of_zero * len(judged) > rules.alpha:
            reason = f"the accuracy in the baseline is {accuracy}, and a drop to 0% of this cell alone would not be significant"
        else:
            continue
        lines.append(f"no regression can be detected in {_named(change.target, labels)}: {reason}")
    return lines


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

    def limit(self, target: Target, rules: Rules) -> float:
        """The largest drop that is allowed."""
        return next((drop for keys, drop in reversed(self.limits) if target.key in keys), rules.max_drop)


def _declared(rules: Rules, shared: Sequence[Target], shape: Sequence[int]) -> _Declared:
    cells: dict[str, Target] = {}
    named: set[str] = set()
    limits = []
    for text in rules.cells:
        if text == DEFAULT:
            cells |= {t.key: t for t in default_cells(shared, shape)}
        else:
            found = {t.key: t for t in cell_reference.find(text, shared, "gate cell")}
            cells, named = cells | found, named | found.keys()
    for text, drop in rules.max_drops:
        found = {t.key: t for t in cell_reference.find(text, shared, "max-drop")}
        cells, named = cells | found, named | found.keys()
        limits.append((set(found), drop))
    if not cells:
        raise GateError("cannot compare: the two reports have no gate cell in common")
    return _Declared(cells, named, limits)


def _rows(changes: Sequence[Change], declared: _Declared, rules: Rules, labels: Sequence[str]) -> list[RegressionRow]:
    """Judged rows, worst first, then the others; ``labels`` names the models where there are several."""
    judged = [change for change in changes if change.target.key in declared.cells]
    if not judged:
        raise GateError("cannot compare: the two reports have no gate cell in common")
    adjusted = dict(zip((c.target.key for c in judged), holm([c.p_value for c in judged]), strict=True))
    rows = []
    for change in changes:
        key = change.target.key
        p = adjusted.get(key)
        required = declared.limit(change.target, rules)
        churn = max(min(change.lost, change.gained) / change.n, CHURN)
        mcnemars = p is not None and change.test == "mcnemar"
        rows.append(
            RegressionRow(
                name=_named(change.target, labels),
                model=change.target.model,
                passed=None if p is None else not (p <= rules.alpha and change.drop > required + 1e-12),
                measured=change.drop,
                required=required if p is not None else None,
                p_value=change.p_value,
                p_adjusted=p,
                test=change.test,
                n=change.n,
                baseline=change.baseline,
                new=change.new,
                newly_wrong=change.lost,
                newly_right=change.gained,
                minimum_detectable_drop=detectable_drop(change.n, rules.alpha / len(judged), churn, POWER)
                if mcnemars
                else None,
                churn=churn if mcnemars else None,
                text=_text(change, p, required, rules.alpha),
            )
        )
    return sorted(rows, key=_badness)


def _named(target: Target, labels: Sequence[str]) -> str:
    return f"{labels[target.model]}: {target.name}" if labels else target.name


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


def _text(change: Change, p: float | None, required: float, alpha: float) -> str:
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
