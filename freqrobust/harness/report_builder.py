"""Putting a report together from what was measured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from freqrobust.core.version import __version__
from freqrobust.harness.cell import EOT
from freqrobust.harness.diagnosis.examine import Examined
from freqrobust.harness.diagnosis.verdict import verdict
from freqrobust.harness.outcome import Outcome, holds
from freqrobust.harness.provenance import data_record, environment_record, now
from freqrobust.harness.run import CLEAN, VOTES, Measured, Run
from freqrobust.models.fingerprint import record
from freqrobust.numerics.statistics import by_chance, paired_difference, wilson
from freqrobust.numerics.threat import Threat
from freqrobust.plugins.base import Attack
from freqrobust.plugins.specs import PluginSpec
from freqrobust.results.cells import Cell, WorstCase
from freqrobust.results.corruption_summary import Reference, summaries
from freqrobust.results.diagnosis import Diagnosis
from freqrobust.results.outcomes import pack
from freqrobust.results.records import Difference, PerturbationRecord, ThreatRecord, Warned
from freqrobust.results.report import Report

#: Share of the predictions of one class from which on they count as constant.
CONSTANT = 0.99


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
    threats = _threats(run.chosen)
    reference = next((m for m in measured if not m.chain.parts), None)
    base: dict[str, np.ndarray] = {}
    for one, checked in zip(measured, examined, strict=True):
        against = base if reference is not None and one is not reference else None
        for cell in _cells(run, one, against):
            cells.append(cell)
            if one is reference and cell.status == "ok":
                base[_cell_key(cell)] = cell.right()
        if one.error is None:
            for row in _worst(one, checked, threats, against):
                worst.append(row)
                if one is reference:
                    base[f"worst {row.threat}"] = row.right()
        warnings.extend(_warnings(run, one))
        if checked is not None:
            diagnostics.append(_diagnosis(run, one, checked))
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


def _threats(chosen: list[PluginSpec[Attack]]) -> list[Threat]:
    found = [s.plugin.threat() for s in chosen]
    return sorted({threat for threat in found if threat is not None}, key=lambda t: (t.norm, t.eps))


def _cells(run: Run, one: Measured, base: dict[str, np.ndarray] | None) -> list[Cell]:
    labels = run.data.labels.numpy()
    made = []
    entries: list[tuple[PluginSpec[Attack] | None, Outcome | str, Literal["adaptive", "oblivious"]]] = [
        (None, one.error or one.clean, "adaptive"),
        *((plugin_spec, outcome, "adaptive") for plugin_spec, outcome in one.cells),
        *((plugin_spec, outcome, "oblivious") for plugin_spec, outcome in one.oblivious),
    ]
    for plugin_spec, outcome, knowledge in entries:
        attack = plugin_spec.plugin if plugin_spec is not None else None
        threat = attack.threat() if isinstance(attack, Attack) else None
        cell: dict[str, Any] = {
            "defense": one.chain.name,
            "defense_spec": one.chain.spec,
            "defense_params": one.chain.params,
            "attack": plugin_spec.name if plugin_spec is not None else CLEAN,
            "attack_spec": plugin_spec.spec if plugin_spec is not None else CLEAN,
            "attack_params": plugin_spec.params if plugin_spec is not None else {},
            "kind": attack.kind if isinstance(attack, Attack) else "shift",
            "threat": ThreatRecord(norm=threat.norm, eps=threat.eps) if threat is not None else None,
            "knowledge": knowledge,
            "gradients": one.chain.gradients
            if knowledge == "adaptive" and isinstance(attack, Attack) and attack.needs_gradient
            else None,
            "votes": VOTES if one.chain.stochastic else None,
            "eot": attack.eot_used(EOT)
            if isinstance(attack, Attack)
            and attack.kind == "adversarial"
            and one.chain.stochastic
            and knowledge == "adaptive"
            else None,
            "n": len(labels),
        }
        if isinstance(outcome, str):
            made.append(Cell(**cell, status="failed", error=outcome, correct=0, outcomes=None))
            continue
        cell |= {
            "correct": int(outcome.right.sum()),
            "outcomes": pack(outcome.right),
            "inherited": outcome.inherited,
            "breakdown": outcome.breakdown or None,
            "notes": outcome.notes or None,
            "seconds": outcome.seconds,
            "forwards": outcome.forwards,
            "backwards": outcome.backwards,
        }
        if cell["kind"] == "shift":
            if run.criterion.plugin.correct_is_largest:
                cell["by_chance"] = chance_of(outcome.predictions, labels)
            if plugin_spec is not None:
                cell["agreement"] = float((outcome.predictions == one.clean.predictions).mean())
        else:
            cell["perturbation"] = _perturbation(outcome)
        finished = Cell(**cell)
        if base is not None and knowledge == "adaptive":
            finished.difference = _difference(outcome.right, base.get(_cell_key(finished)))
        made.append(finished)
    return made


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
    one: Measured, examined: Examined | None, threats: list[Threat], base: dict[str, np.ndarray] | None
) -> list[WorstCase]:
    rows = []
    adversarial = [
        (plugin_spec.plugin.threat(), outcome)
        for plugin_spec, outcome in [*one.cells, *one.oblivious]
        if isinstance(outcome, Outcome) and plugin_spec.plugin.kind == "adversarial"
    ]
    found = examined.found if examined is not None else []
    for threat in threats:
        if not any(t is not None and t.norm == threat.norm and t.eps <= threat.eps for t, _ in adversarial):
            continue  # no attack was measured inside this threat: nothing is known about it
        reported = holds(one.clean, [outcome for _, outcome in adversarial], threat)
        right = reported & holds(one.clean, found, threat)
        named = ThreatRecord(norm=threat.norm, eps=threat.eps)
        rows.append(
            WorstCase(
                defense=one.chain.name,
                defense_spec=one.chain.spec,
                defense_params=one.chain.params,
                threat=named,
                n=len(right),
                correct=int(right.sum()),
                outcomes=pack(right),
                by_checks=int((reported & ~right).sum()),
                difference=_difference(right, base.get(f"worst {named}")) if base is not None else None,
            )
        )
    return rows


def _warnings(run: Run, one: Measured) -> list[Warned]:
    name = one.chain.spec
    if one.error is not None:
        return [Warned(code="defense-failed", message=one.error, defense=name)]
    found = [Warned(code=code, message=message, defense=name) for code, message in one.clean.warnings]
    for plugin_spec, outcome in [*one.cells, *one.oblivious]:
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
    near = _near_chance(run, one)
    if near is not None:
        found.append(
            Warned(code="near-chance-accuracy", message=f"{near}; robust accuracies mean nothing", defense=name)
        )
    return found


def _near_chance(run: Run, one: Measured) -> str | None:
    """Why the clean accuracy says that the model predicts nothing, when it does."""
    if len(run.data.labels.unique()) == 1 or not run.criterion.plugin.correct_is_largest:
        return None  # of one class alone, constant predictions may well be right
    chance = chance_of(one.clean.predictions, run.data.labels.numpy())
    low, _ = wilson(int(one.clean.right.sum()), len(run.data))
    if low > chance:
        return None
    return f"clean accuracy {one.clean.right.mean():.1%} is no better than chance ({chance:.1%})"


def _constant(one: Measured) -> str | None:
    """Why predictions do not depend on the images, when they do not."""
    classes, counts = np.unique(one.clean.predictions, return_counts=True)
    share = counts.max() / counts.sum()
    return f"{share:.1%} of the predictions are class {classes[counts.argmax()]}" if share >= CONSTANT else None


def _diagnosis(run: Run, one: Measured, examined: Examined) -> Diagnosis:
    labels = run.data.labels
    several = len(labels.unique()) > 1  # of one class alone, constant predictions may well be right
    name, sentence = verdict(examined, _near_chance(run, one) or (_constant(one) if several else None))
    return Diagnosis(
        defense=one.chain.name,
        defense_spec=one.chain.spec,
        defense_params=one.chain.params,
        verdict=name,
        sentence=sentence,
        depth=examined.depth,
        threat=ThreatRecord(norm=examined.threat.norm, eps=examined.threat.eps) if examined.threat else None,
        n=examined.n,
        seconds=round(sum(outcome.seconds for outcome in examined.found), 4),
        forwards=sum(outcome.forwards for outcome in examined.found),
        backwards=sum(outcome.backwards for outcome in examined.found),
        checks=examined.checks,
    )
