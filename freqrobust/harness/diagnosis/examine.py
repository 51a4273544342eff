"""Examining the robust accuracies of one defense."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np

from freqrobust.harness.diagnosis.checks import FULL_CHECKS, QUICK_CHECKS
from freqrobust.harness.diagnosis.examination import Examination, _Budgeted
from freqrobust.harness.diagnosis.findings import CARLINI
from freqrobust.harness.diagnosis.full_check import FullCheck
from freqrobust.harness.outcome import NORMS, Outcome, robust_under
from freqrobust.numerics import noise
from freqrobust.numerics.threat import Threat
from freqrobust.plugins.base import Attack
from freqrobust.plugins.specs import PluginSpec
from freqrobust.results.diagnosis import Check

if TYPE_CHECKING:
    from freqrobust.harness.run import DefenseRun

Depth = Literal["quick", "full"]
#: Samples that are examined; fewer for stochastic defenses, whose attacks average over draws.
SAMPLES, SAMPLES_STOCHASTIC = 200, 50
#: Share of the samples that should be robust at the threat that is examined, where there is such a threat.
HEADROOM = 0.05
Measurements = Sequence["tuple[PluginSpec[Attack], Outcome | str]"]


@dataclass
class Examined:
    """The checks of one defense, and their outcomes.

    Attributes:
        depth: ``quick`` or ``full``.
        threat: at which the checks were made.
        n: samples that were examined.
        robust: how many of them are robust at that threat, to the report's attacks and to the checks.
        found: the outcomes of the attacks of the checks, for the worst case and the number of passes.
        failed: why the checks could not be made.
    """

    depth: Depth
    threat: Threat | None = None
    n: int = 0
    robust: int = 0
    checks: list[Check] = field(default_factory=list)
    found: list[Outcome] = field(default_factory=list)
    failed: str | None = None


def checks_of(depth: Depth) -> tuple[FullCheck, ...]:
    """The checks that run attacks, in their order."""
    return (*QUICK_CHECKS, *(FULL_CHECKS if depth == "full" else ()))


def units_of(depth: Depth, first: bool) -> list[list[FullCheck]]:
    """Checks that different processes can make at the same time, those that use the same attacks together.

    Args:
        depth: of the checks.
        first: those whose attacks the others use, or the others.
    """
    units: dict[str, list[FullCheck]] = {}
    for check in checks_of(depth):
        if check.first == first and check.passes(False):  # the others only count what these have found
            units.setdefault(check.unit or check.name, []).append(check)
        elif check.first == first and check.unit in units:
            units[check.unit].append(check)
    return list(units.values())


def examine(
    run: DefenseRun,
    clean: Outcome,
    adaptive: Measurements,
    oblivious: Measurements,
    depth: Depth,
    source: DefenseRun | None,
    only: Sequence[FullCheck] | None = None,
) -> Examined | None:
    """Check the robust accuracies of one defense.

    Args:
        run: the defense.
        clean: its clean pass.
        adaptive: its cells under adaptive attacks.
        oblivious: its cells under oblivious attacks.
        depth: ``quick`` takes three forward passes and one backward pass per sample, more of a stochastic defense, whose
            predictions are votes, and runs one strong attack on the robust samples; ``full`` runs other attacks.
        source: the undefended model, to transfer examples from; None when it is the one that is examined.
        only: of the checks that run attacks, these; by default all.

    Returns:
        None when no attack with a budget was measured.
    """
    budgeted = _budgeted(adaptive)
    everything = [*budgeted, *_budgeted(oblivious)]
    outcomes = [o for part in (adaptive, oblivious) for _, o in part if isinstance(o, Outcome)]
    count = SAMPLES_STOCHASTIC if run.chain.stochastic else SAMPLES
    n = len(clean.right)
    sample = np.zeros(n, dtype=bool)
    sample[noise.permutation(n, seed=run.run.seed, stream="diagnosis").numpy()[:count]] = True
    by_gradients = [entry for entry in budgeted if entry.attack.needs_gradient]
    threats = {entry.threat for entry in by_gradients or everything}
    threat = _choose(threats, clean, outcomes, sample)
    if threat is None:
        return None
    work = Examination(run, clean, sample, robust_under(clean, outcomes, threat), threat, source)
    work.quick()
    work.what_was_run([o for o in by_gradients if o.threat.norm == threat.norm and o.threat.eps <= threat.eps])
    others = sorted({entry.threat.norm for entry in everything} - {threat.norm})
    if others:
        names = " and ".join(norm.capitalize() for norm in others)
        reason = f"{threat.norm.capitalize()} was examined; {names} was measured but not examined"
        work.inform("other norms", reason, CARLINI)
    work.attacks_of(checks_of(depth) if only is None else only)
    robust = robust_under(clean, [*outcomes, *work.found], threat)
    return Examined(depth, threat, int(sample.sum()), int((robust & sample).sum()), work.checks, work.found)


def _budgeted(measured: Measurements) -> list[_Budgeted]:
    """The attacks with a budget above 0 that did not fail."""
    found = []
    for plugin_spec, outcome in measured:
        threat = plugin_spec.plugin.threat()
        if isinstance(outcome, Outcome) and threat is not None and threat.eps > 0:
            found.append(_Budgeted(plugin_spec.plugin, threat, outcome, plugin_spec))
    return found


def _choose(threats: set[Threat], clean: Outcome, outcomes: list[Outcome], sample: np.ndarray) -> Threat | None:
    """The largest threat at which enough samples are robust for another attack to find more; else the smallest."""
    ordered = sorted(threats, key=lambda t: (NORMS.index(t.norm), -t.eps))
    ordered = [t for t in ordered if t.norm == ordered[0].norm]
    enough = HEADROOM * sample.sum()
    for threat in ordered:
        if (robust_under(clean, outcomes, threat) & sample).sum() > enough:
            return threat
    return ordered[-1] if ordered else None
