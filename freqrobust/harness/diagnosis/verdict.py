"""The verdict of the checks on a robust accuracy: one term, and one sentence."""

from __future__ import annotations

import math

from freqrobust.harness.diagnosis.examination import FEWEST, REPEATABILITY, allowed
from freqrobust.harness.diagnosis.examine import Examined
from freqrobust.results.diagnosis import Check, Verdict


def verdict(examined: Examined, meaningless: str | None) -> tuple[Verdict, str]:
    """The verdict and its sentence.

    Args:
        examined: the checks.
        meaningless: why the accuracies are not meaningful, if they are not.
    """
    if meaningless is not None:
        return "not meaningful", f"not meaningful: {meaningless}"
    if examined.failed is not None:
        return "inconclusive", f"inconclusive: the checks could not be run: {examined.failed}"
    assert examined.threat is not None
    of = f"of {examined.n} samples"
    at = examined.threat.text
    failed = [c for c in examined.checks if c.status == "failed"]
    changing = [c for c in failed if c.name == REPEATABILITY]
    if changing:  # every other comparison then depends on random draws as well
        return "inconclusive", f"inconclusive: {changing[0].reason}"
    stronger = [c for c in examined.checks if c.additional is not None and c.additional > _allowed(c, examined.n)]
    if stronger:
        worst = max(stronger, key=lambda c: c.additional or 0)
        by = f"overestimated by at least {_points(worst, examined.n)}"
        return "overestimated", f"{by}: {_subject(worst)} misclassified {worst.additional} more {of} at {at}"
    if examined.robust == 0:
        return "nothing to check", f"nothing to check: 0 {of} robust at {at}"
    if failed:
        first, *others = failed
        also = f"; also failed: {', '.join(c.name for c in others)}" if others else ""
        return "inconclusive", f"inconclusive: {first.name}: {first.reason}{also}"
    if examined.n < FEWEST:
        return "inconclusive", f"inconclusive: {examined.n} samples were examined, at least {FEWEST} are needed"
    return "no problem found", _no_problem(examined, f"{examined.robust} {of} robust at {at}")


def _allowed(check: Check, n: int) -> float:
    """How many additional samples of ``n`` the attack of a check may misclassify."""
    own = check.threshold if check.unit == "samples" else None
    return max(allowed(n), own or 0)


def _points(check: Check, n: int) -> str:
    """The additional samples in percentage points of those examined, rounded down."""
    points = math.floor(1000 * (check.additional or 0) / n) / 10
    return "1 point" if points == 1 else f"{points:g} points"


def _subject(check: Check) -> str:
    """The attack that a check ran, with how where its spec does not say so; else the check."""
    if check.attack is None:
        return check.name
    return f"{check.attack}, transferred from the undefended model," if check.transferred else check.attack


def _no_problem(examined: Examined, robust: str) -> str:
    ran = [c for c in examined.checks if c.status in ("passed", "failed")]
    quick = "quick " if examined.depth == "quick" else ""
    sentence = f"no problem found by {len(ran)} {quick}checks ({robust})"
    tried = [c for c in ran if c.attack is not None]
    if not tried:
        return f"{sentence}; not tested with strong attacks" + (", run --diagnose" if quick else "")
    if not quick:
        return sentence
    strong = max(tried, key=lambda c: c.additional or 0)
    return f"{sentence}; the only strong attack that was tried, {strong.attack}, misclassified {strong.additional} more"
