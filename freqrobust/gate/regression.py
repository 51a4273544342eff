"""A report compared with its baseline: which accuracies dropped significantly, and by more than is allowed.

Both were measured on the same samples, so every test is paired. The tests are in :mod:`freqrobust.numerics.statistics`, and
derived in ``docs/statistics.md``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from freqrobust.core.errors import GateError, SpecError
from freqrobust.core.percent import points
from freqrobust.gate.pairing import (
    Change,
    Side,
    called,
    changes_of,
    conditions,
    described,
    model_pairs,
    shared_references,
    unpaired,
)
from freqrobust.numerics.statistics import detectable_drop, holm
from freqrobust.plugins.suites import HEADLINE_RADIUS, scaled_radius
from freqrobust.results import cell_reference
from freqrobust.results.cell_reference import CellReference
from freqrobust.results.gate_record import Comparison, RegressionRow
from freqrobust.results.gate_view import p_text, regression_result
from freqrobust.results.records import DataRecord
from freqrobust.results.report import Report
from freqrobust.results.summary import model_prefixes

#: The power that the minimum detectable drop is stated for.
POWER = 0.8
#: Share of samples that are assumed to become correct when the minimum detectable drop is stated; more where more did.
CHURN = 0.01
#: What stands for the default gate cells: clean, LFC at the headline's radius, the worst case per threat.
DEFAULT = "default"


@dataclass(frozen=True)
class Rules:
    """What counts as a regression.

    Attributes:
        cells: the gate cells, by the names of :mod:`freqrobust.results.cell_reference`; ``default`` is the default ones.
        alpha: the probability of a false alarm, over all gate cells together.
        max_drop: the allowed drop, as a share.
        max_drops: the allowed drop of a cell by its name, which makes it a gate cell; the last one that fits counts.
        strict: different seeds, versions, devices or cells are errors.
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
                raise SpecError(f"the allowed drop {name} should be a share in [0, 1], but got {drop:g}{hint}")


def compare(baseline: Report, new: Report, rules: Rules | None = None, *, name: str = "baseline") -> Comparison:
    """What changed from one report to another of the same data.

    Args:
        rules: what counts as a regression.
        name: what the baseline is called in the result and in messages.

    Raises:
        GateError: the reports are of different data or models, a gate cell failed, or they have no gate cell in common; with
            ``strict``, they differ in anything else.
        SpecError: a rule names no cell.
    """
    rules = rules or Rules()
    check_same_data(baseline.data, new.data, name)
    for report, side in ((baseline, name), (new, "the new report")):
        if any(cell.n != report.data.n for cell in report.cells):
            raise GateError(
                f"cannot compare with {name}: {side} comes from a sequential check, which does not measure every sample"
            )
    pairs = model_pairs(baseline.models, new.models)
    if not pairs:
        here, there = (", ".join(map(called, report.models)) for report in (baseline, new))
        raise GateError(
            f"cannot compare with {name}: it has the models {here}, and the new report has {there}; no two of them have the "
            "same fingerprint or the same name"
        )
    partners = {pair.new: pair.baseline for pair in pairs}
    old, now = Side(baseline, {b: n for n, b in partners.items()}), Side(new, {n: n for n in partners})
    shared, notes = shared_references(old, now)
    notes = [*conditions(baseline, new, partners), *unpaired(baseline.models, new.models, pairs), *notes]
    shared += cell_reference.sweep_references(shared)
    gate_cells = _gate_cells(rules, shared, new.data.shape)
    changes, remarks = changes_of(old, now, shared, gate_cells.cells, gate_cells.named)
    notes += remarks
    if rules.strict and notes:
        raise GateError(f"strict: {name} and the new report differ: {'; '.join(notes)}")
    prefixes = model_prefixes(new)
    rows = _rows(changes, gate_cells, rules, prefixes)
    notes += _undetectable(changes, gate_cells, rules, new)  # these are not differences, and strict allows them
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


def check_rules(rules: Rules, baseline: Report, planned: Sequence[CellReference]) -> None:
    """Refuse rules that name no cell of both the baseline and a planned run.

    Raises:
        GateError: they have no gate cell in common.
        SpecError: a rule names no cell.
    """
    known = {reference.key for reference in cell_reference.references_in(baseline)}
    shared = [reference for reference in planned if reference.key in known]
    _gate_cells(rules, [*shared, *cell_reference.sweep_references(shared)], baseline.data.shape)


def declared_cells(rules: Rules, known: Sequence[CellReference], shape: Sequence[int]) -> list[CellReference]:
    """The gate cells among those that are known.

    Raises:
        GateError: there are none.
        SpecError: a rule names no cell.
    """
    return list(_gate_cells(rules, known, shape).cells.values())


def expected_drop(n: int, cells: int, alpha: float) -> float | None:
    """The minimum detectable drop with ``cells`` gate cells on ``n`` samples, before anything is compared."""
    return detectable_drop(n, alpha / max(cells, 1), CHURN, POWER)


def hindrance(
    accuracy: float, allowed: float, detectable: float | None, chance: float | None
) -> tuple[str, str] | None:
    """Whether a gate cell "can never" or "can hardly" fail at an accuracy, and why; None if nothing is in the way.

    Args:
        allowed: the allowed drop.
        detectable: the minimum detectable drop; None if no drop is.
        chance: the accuracy of guessing, for cells in which a model without any skill reaches it.
    """
    if accuracy == 0:
        return "can never", "which cannot drop"
    if accuracy <= allowed + 1e-12:
        return "can never", f"and drops of up to {100 * allowed:g} points are allowed"
    if chance is not None and accuracy <= chance + 1e-12:
        return "can hardly", f"which is not above chance ({chance:.1%})"
    if detectable is None or detectable > accuracy:
        smallest = "there is none" if detectable is None else f"it is {100 * detectable:.1f} points"
        return "can hardly", f"which is less than the minimum detectable drop ({smallest})"
    return None


def undetectable_cells(report: Report, rules: Rules) -> list[str]:
    """A line for each gate cell that can never fail with this report as the baseline, and why.

    Raises:
        GateError: there are no gate cells.
        SpecError: a rule names no cell.
    """
    side = Side(report, {number: number for number in range(len(report.models))})
    known = side.references()
    known += cell_reference.sweep_references(known)
    changes, _ = changes_of(side, side, known, (), ())
    return _undetectable(changes, _gate_cells(rules, known, report.data.shape), rules, report)


def _undetectable(changes: Sequence[Change], gate_cells: _GateCells, rules: Rules, report: Report) -> list[str]:
    """A line for each gate cell in which no regression can be detected, or hardly any, at the level of Holm's first step.

    None can be where even a drop to zero would pass.
    """
    judged = [change for change in changes if change.reference.key in gate_cells.cells]
    prefixes, lines = model_prefixes(report), []
    for change in judged:
        reference, why = change.reference, None
        if change.p_of_zero * len(judged) > rules.alpha:
            why = "can never", "and a drop to 0% of this cell alone would not be significant"
        # of a sweep no minimum detectable drop is known
        detectable = expected_drop(change.n, len(judged), rules.alpha) if change.test == "mcnemar" else 0.0
        by_guessing = reference.what == "cell" and reference.threat is None and change.test == "mcnemar"
        chance = 1 / report.data.classes if by_guessing else None
        found = hindrance(change.baseline, gate_cells.allowed_drop(reference, rules), detectable, chance)
        if found is not None and (why is None or found[0] == "can never"):
            why = found
        if why is None:
            continue
        name = prefixes[reference.model] + reference.name
        said = "no regression can" if why[0] == "can never" else "a regression can hardly"
        lines.append(f"{said} be detected in {name}: the accuracy in the baseline is {change.baseline:.1%}, {why[1]}")
    return lines


def default_cells(known: Iterable[CellReference], shape: Sequence[int]) -> list[CellReference]:
    """The default gate cells: clean, LFC at the headline's radius, the worst case per threat."""
    radius = scaled_radius(HEADLINE_RADIUS, tuple(shape))
    return [r for r in known if r.knowledge == "adaptive" and (r.what == "worst" or _is_headline(r, radius))]


def _is_headline(reference: CellReference, radius: float) -> bool:
    params = reference.attack_params
    low = reference.attack == "lfc" and abs(params.get("radius", -1) - radius) < 1e-9
    return reference.what == "cell" and (
        reference.attack == "clean" or (low and params.get("shape") == "circle" and not params.get("clip"))
    )


@dataclass(frozen=True)
class _GateCells:
    """The cells that a comparison judges.

    Attributes:
        cells: all of them, by key.
        named: the keys of those that a rule names, other than by ``default``.
        limits: sets of keys with the drop that is allowed for each; the last one that fits counts.
    """

    cells: dict[str, CellReference]
    named: set[str]
    limits: list[tuple[set[str], float]]

    def allowed_drop(self, reference: CellReference, rules: Rules) -> float:
        return next((drop for keys, drop in reversed(self.limits) if reference.key in keys), rules.max_drop)


def _gate_cells(rules: Rules, known: Sequence[CellReference], shape: Sequence[int]) -> _GateCells:
    def by_key(text: str, kind: str) -> dict[str, CellReference]:
        return {r.key: r for r in cell_reference.find(text, known, kind)}

    named: dict[str, CellReference] = {}
    for text in rules.cells:
        named |= by_key(text, "gate cell") if text != DEFAULT else {}
    limits = [(by_key(text, "max-drop"), drop) for text, drop in rules.max_drops]
    for references, _ in limits:
        named |= references
    default = {r.key: r for r in default_cells(known, shape)} if DEFAULT in rules.cells else {}
    if not default and not named:
        raise GateError("cannot compare: the two reports have no gate cell in common")
    return _GateCells(default | named, set(named), [(set(references), drop) for references, drop in limits])


def _rows(
    changes: Sequence[Change], gate_cells: _GateCells, rules: Rules, prefixes: Sequence[str]
) -> list[RegressionRow]:
    """Judged rows, worst first, then the others."""
    judged = [change for change in changes if change.reference.key in gate_cells.cells]
    if not judged:
        raise GateError("cannot compare: the two reports have no gate cell in common")
    adjusted = dict(zip((c.reference.key for c in judged), holm([c.p_value for c in judged]), strict=True))
    rows = []
    for change in changes:
        p = adjusted.get(change.reference.key)
        allowed = gate_cells.allowed_drop(change.reference, rules)
        row = RegressionRow(
            name=prefixes[change.reference.model] + change.reference.name,
            model=change.reference.model,
            measured=change.drop,
            p_value=change.p_value,
            p_adjusted=p,
            test=change.test,
            n=change.n,
            baseline=change.baseline,
            new=change.new,
            newly_misclassified=change.newly_misclassified,
            newly_correct=change.newly_correct,
            text="",
        )
        if p is not None:
            row.required = allowed
            row.passed = not (p <= rules.alpha and change.drop > allowed + 1e-12)
            if change.test == "mcnemar":
                row.churn = max(min(row.newly_misclassified, row.newly_correct) / row.n, CHURN)
                row.minimum_detectable_drop = detectable_drop(row.n, rules.alpha / len(judged), row.churn, POWER)
        row.text = _text(row, rules.alpha)
        rows.append(row)
    return sorted(rows, key=_badness)


def _badness(row: RegressionRow) -> tuple[bool, bool, float, float]:
    p = row.p_adjusted if row.p_adjusted is not None else row.p_value
    return row.passed is None, row.passed is not False, p if p is not None else 1.0, -(row.measured or 0.0)


def _text(row: RegressionRow, alpha: float) -> str:
    """The change and its conclusion, as one sentence."""
    what = "mean accuracy over the eps" if row.test == "sign-flip" else "accuracy"
    before, after, drop = row.baseline or 0.0, row.new or 0.0, row.measured or 0.0
    result, limit, corrected = "not judged (information only)", "", ""
    if row.required is not None:
        result = regression_result(row, alpha)
        limit = f"; allowed drop: {100 * row.required:g}"
        corrected = f", corrected p = {p_text(row.p_adjusted)}"
    return (
        f"{result}: the {what} changed from {before:.1%} to {after:.1%} ({points(-drop)} points{limit}), with "
        f"{row.newly_misclassified} samples newly misclassified and {row.newly_correct} newly correct (p = {p_text(row.p_value)}{corrected})"
    )
