"""Putting a report together from what was measured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from freqrobust.core.version import __version__
from freqrobust.harness.cell import EOT
from freqrobust.harness.diagnosis.examine import Examined
from freqrobust.harness.diagnosis.verdict import verdict
from freqrobust.harness.outcome import Outcome, distances, robust_under
from freqrobust.harness.provenance import data_record, environment_record, now
from freqrobust.harness.run import Measured, Run
from freqrobust.harness.run_plan import CLEAN, VOTES
from freqrobust.models.fingerprint import record
from freqrobust.numerics.statistics import by_chance, paired_difference, wilson
from freqrobust.numerics.threat import Threat
from freqrobust.plugins.base import Attack
from freqrobust.plugins.specs import DefenseChain, PluginSpec
from freqrobust.results.cell_numbers import CellNumbers, PerturbationRecord
from freqrobust.results.cells import Cell, WorstCase
from freqrobust.results.corruption_summary import Reference, summaries
from freqrobust.results.diagnosis import Diagnosis
from freqrobust.results.distances import DistanceRecord
from freqrobust.results.outcomes import pack
from freqrobust.results.records import Difference, ThreatRecord, Warned
from freqrobust.results.report import Report

#: An attack, or the clean pass; what it measured, or why it failed; and what the attack knows of the defense.
_Measurement = tuple[PluginSpec[Attack] | None, Outcome | str, Literal["adaptive", "oblivious"]]
#: Share of the predictions of one class from which on they count as constant.
CONSTANT = 0.99
#: Beside the accuracy under an adaptive minimum-norm attack, which is often 0.
NO_BUDGET = (
    "the attack has no budget, and the accuracy is the share of samples without any adversarial example; see the "
    "robustness curve"
)


def assemble(
    run: Run,
    measured: Sequence[Measured],
    examined: Sequence[Examined | None],
    warnings: list[Warned],
    mce_reference: Reference | None = None,
) -> Report:
    """The report of one model: its cells, worst cases and verdicts.

    Args:
        run: the run, still open.
        measured: the cells of each defense.
        examined: what checks found of each defense.
        warnings: about the run as a whole; those about its defenses are added.
        mce_reference: what corruption errors are divided by.
    """
    cells: list[Cell] = []
    worst: list[WorstCase] = []
    diagnostics: list[Diagnosis] = []
    threats = _threats(run.attacks)
    reference = next((m for m in measured if not m.chain.parts), None)
    base: dict[str, np.ndarray] = {}
    for defended, checked in zip(measured, examined, strict=True):
        against = base if reference is not None and defended is not reference else None
        for cell in _cells(run, defended, against):
            cells.append(cell)
            if defended is reference and cell.status == "ok":
                base[_cell_key(cell)] = cell.right()
        if defended.error is None:
            for row in _worst(defended, checked, threats, against):
                worst.append(row)
                if defended is reference:
                    base[f"worst {row.threat}"] = row.right()
        warnings.extend(_warnings(run, defended))
        if checked is not None:
            diagnostics.append(_diagnosis(run, defended, checked))
    failed = any(cell.status == "failed" for cell in cells)
    report = Report(
        freqrobust_version=__version__,
        created=now(),
        seed=run.seed,
        criterion=run.criterion.spec,
        status="partial" if failed else "complete",
        models=[record(run.network, run.model_print)],
        data=data_record(run.data),
        environment=environment_record(run.device, run.precision),
        cells=cells,
        worst_case=worst,
        diagnostics=diagnostics,
        warnings=warnings,
    )
    report.corruptions = summaries(report, mce_reference)
    return report


def _cell_key(cell: Cell) -> str:
    return f"{cell.attack} {sorted(cell.attack_params.items())}"


def _threats(attacks: list[PluginSpec[Attack]]) -> list[Threat]:
    found = [s.plugin.threat() for s in attacks]
    return sorted({threat for threat in found if threat is not None}, key=lambda t: (t.norm, t.eps))


def _cells(run: Run, measured: Measured, base: dict[str, np.ndarray] | None) -> list[Cell]:
    chain, entries = measured.chain, list[_Measurement]()
    entries.append((None, measured.error or measured.clean, "adaptive"))
    entries += [(plugin_spec, outcome, "adaptive") for plugin_spec, outcome in measured.cells]
    entries += [(plugin_spec, outcome, "oblivious") for plugin_spec, outcome in measured.oblivious]
    cells = []
    for plugin_spec, outcome, knowledge in entries:
        attack = plugin_spec.plugin if plugin_spec is not None else None
        threat = attack.threat() if attack is not None else None
        values: dict[str, Any] = {
            **_defense(chain),
            "attack": plugin_spec.name if plugin_spec is not None else CLEAN,
            "attack_spec": plugin_spec.spec if plugin_spec is not None else CLEAN,
            "attack_params": plugin_spec.params if plugin_spec is not None else {},
            "kind": attack.kind if attack is not None else "shift",
            "threat": ThreatRecord(norm=threat.norm, eps=threat.eps) if threat is not None else None,
            "knowledge": knowledge,
            "n": len(run.data),
        }
        numbers = CellNumbers() if isinstance(outcome, str) else outcome.numbers.model_copy()
        if chain.stochastic:
            numbers.votes = VOTES
        if knowledge == "adaptive" and attack is not None:
            numbers.gradients = chain.gradients if attack.needs_gradient else None
            numbers.eot = attack.eot_used(EOT) if attack.kind == "adversarial" and chain.stochastic else None
        if isinstance(outcome, str):
            values |= {"status": "failed", "error": outcome, "correct": 0, "outcomes": None}
        else:
            values |= {"correct": int(outcome.right.sum()), "outcomes": pack(outcome.right)}
            if values["kind"] == "adversarial":
                numbers.perturbation = _perturbation(outcome)
                norm = attack.minimizes() if attack is not None else None
                if norm is not None:
                    numbers.distances = DistanceRecord.of(norm, distances(measured.clean, outcome, norm))
                    numbers.notes = [*numbers.notes, *([NO_BUDGET] if knowledge == "adaptive" else [])]
            else:
                if run.criterion.plugin.correct_is_largest:
                    numbers.chance_accuracy = chance_of(outcome.predictions, run.data.labels.numpy())
                if attack is not None:
                    agreeing = outcome.predictions == measured.clean.predictions
                    numbers.clean_agreement = float(agreeing.mean())
        cell = Cell(**values, **dict(numbers))
        if base is not None and knowledge == "adaptive" and cell.status == "ok":
            cell.difference = _difference(cell.right(), base.get(_cell_key(cell)))
        cells.append(cell)
    return cells


def _defense(chain: DefenseChain) -> dict[str, Any]:
    """How every part of a report names a defense."""
    return {"defense": chain.name, "defense_spec": chain.spec, "defense_params": chain.params}


def chance_of(predictions: np.ndarray, labels: np.ndarray) -> float:
    """Accuracy that these predictions would have if they were independent of the labels."""
    known = predictions[predictions >= 0]
    k = int(max(predictions.max(), labels.max())) + 1
    return by_chance(np.bincount(known, minlength=k).tolist(), np.bincount(labels, minlength=k).tolist(), len(labels))


def _perturbation(outcome: Outcome) -> PerturbationRecord:
    found = np.isfinite(outcome.examples["linf"])
    if not found.any():
        return PerturbationRecord(successes=0, linf_max=0.0, l2_mean=0.0)
    return PerturbationRecord(
        successes=int(found.sum()),
        linf_max=float(outcome.examples["linf"][found].max()),
        l2_mean=float(outcome.examples["l2"][found].mean()),
        survive_rounding=int(outcome.survives.sum()) if outcome.survives is not None else None,
    )


def _difference(right: np.ndarray, reference: np.ndarray | None) -> Difference | None:
    if reference is None:
        return None
    points, interval = paired_difference(
        int((right & reference).sum()),
        int((right & ~reference).sum()),
        int((~right & reference).sum()),
        int((~right & ~reference).sum()),
    )
    return Difference(points=points, ci95=interval)


def _worst(
    defended: Measured, examined: Examined | None, threats: list[Threat], base: dict[str, np.ndarray] | None
) -> list[WorstCase]:
    rows = []
    adversarial = [
        (plugin_spec.plugin.threat(), outcome)
        for plugin_spec, outcome in [*defended.cells, *defended.oblivious]
        if isinstance(outcome, Outcome) and plugin_spec.plugin.kind == "adversarial"
    ]
    found = examined.found if examined is not None else []
    for threat in threats:
        if not any(t is not None and t.norm == threat.norm and t.eps <= threat.eps for t, _ in adversarial):
            continue  # no attack was measured inside this threat: nothing is known about it
        reported = robust_under(defended.clean, [outcome for _, outcome in adversarial], threat)
        right = reported & robust_under(defended.clean, found, threat)
        named = ThreatRecord(norm=threat.norm, eps=threat.eps)
        rows.append(
            WorstCase(
                **_defense(defended.chain),
                threat=named,
                n=len(right),
                correct=int(right.sum()),
                outcomes=pack(right),
                by_checks=int((reported & ~right).sum()),
                difference=_difference(right, base.get(f"worst {named}")) if base is not None else None,
            )
        )
    return rows


def _warnings(run: Run, defended: Measured) -> list[Warned]:
    name = defended.chain.spec
    if defended.error is not None:
        return [Warned(code="defense-failed", message=defended.error, defense=name)]
    found = [Warned(code=code, message=message, defense=name) for code, message in defended.clean.warnings]
    for plugin_spec, outcome in [*defended.cells, *defended.oblivious]:
        if isinstance(outcome, str):
            attack = plugin_spec.plugin
            counted = isinstance(attack, Attack) and attack.kind == "adversarial"
            note = "; it is missing from the worst case" if counted else ""
            found.append(
                Warned(
                    code="cell-failed",
                    message=f"{plugin_spec.spec} failed: {outcome}{note}",
                    defense=name,
                    attack=plugin_spec.spec,
                )
            )
        else:
            found += [
                Warned(code=code, message=message, defense=name, attack=plugin_spec.spec)
                for code, message in outcome.warnings
            ]
    near = _near_chance(run, defended)
    if near is not None:
        found.append(
            Warned(code="near-chance-accuracy", message=f"{near}; robust accuracies are not meaningful", defense=name)
        )
    return found


def _near_chance(run: Run, defended: Measured) -> str | None:
    """Why the clean accuracy says that the model predicts nothing, when it does."""
    if len(run.data.labels.unique()) == 1 or not run.criterion.plugin.correct_is_largest:
        return None  # of one class alone, constant predictions may well be right
    chance = chance_of(defended.clean.predictions, run.data.labels.numpy())
    low, _ = wilson(int(defended.clean.right.sum()), len(run.data))
    if low > chance:
        return None
    return f"clean accuracy {defended.clean.right.mean():.1%} is no better than chance ({chance:.1%})"


def _constant(defended: Measured) -> str | None:
    """Why predictions do not depend on the images, when they do not."""
    classes, counts = np.unique(defended.clean.predictions, return_counts=True)
    share = counts.max() / counts.sum()
    return f"{share:.1%} of the predictions are class {classes[counts.argmax()]}" if share >= CONSTANT else None


def _diagnosis(run: Run, defended: Measured, examined: Examined) -> Diagnosis:
    labels = run.data.labels
    several = len(labels.unique()) > 1  # of one class alone, constant predictions may well be right
    name, sentence = verdict(examined, _near_chance(run, defended) or (_constant(defended) if several else None))
    return Diagnosis(
        **_defense(defended.chain),
        verdict=name,
        sentence=sentence,
        depth=examined.depth,
        threat=ThreatRecord(norm=examined.threat.norm, eps=examined.threat.eps) if examined.threat else None,
        n=examined.n,
        seconds=round(sum(outcome.numbers.seconds for outcome in examined.found), 4),
        forwards=sum(outcome.numbers.forwards for outcome in examined.found),
        backwards=sum(outcome.numbers.backwards for outcome in examined.found),
        checks=examined.checks,
    )
