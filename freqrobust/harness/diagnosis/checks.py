"""The checks that run other attacks at the budget of the report.

``FULL_CHECKS`` declares each of them once, and ``QUICK_CHECKS`` those that are always run. The examination runs them in
this order, and lists those that cannot be run as not applicable: adding a check means adding one entry.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from freqrobust.core.errors import SpecError
from freqrobust.harness.diagnosis.findings import ATHALYE, CARLINI, CROCE, PINTOR, TRAMER, Finding, NotApplicable
from freqrobust.harness.diagnosis.full_check import FullCheck
from freqrobust.harness.diagnosis.indicators import (
    LossStillRising,
    ScaleOfGradients,
    SilentSuccess,
    StepsWithoutEffect,
)
from freqrobust.harness.diagnosis.traces import DRAWS, trace
from freqrobust.harness.outcome import robust_under
from freqrobust.harness.passes import passes
from freqrobust.numerics.threat import Threat
from freqrobust.plugins.criterion import Misclassification
from freqrobust.plugins.registry import attacks

if TYPE_CHECKING:
    import numpy as np

    from freqrobust.harness.diagnosis.examination import Examination
    from freqrobust.harness.outcome import Outcome


def reference(examination: Examination) -> Outcome:
    """PGD with 20 steps on all examined samples, which most checks are compared with."""
    return examination.attack("pgd", steps=20)[1]


#: Passes of PGD with 20 steps for a sample.
REFERENCE = 61.0
#: Steps of the strong attack of the quick checks, and the share of the examined samples that it may misclassify.
STRONG_STEPS, STRONG_SHARE = 20, 0.03
#: Standard deviation of the noise of averaged gradients, as a share of the change of a pixel if all change by the same.
NOISE = 1.0


@dataclass(frozen=True)
class AnotherAttack(FullCheck):
    """Another attack must not misclassify many samples that are robust so far.

    Attributes:
        attack: its name.
        about: the attack and what it is compared with, in words.
        params: its parameters besides eps and norm.
        params_stochastic: those that differ for stochastic defenses.
        robust_to: which samples it is run on: those that are robust to PGD with 20 steps, in the report, or both;
            ``report`` alone runs it on all examined samples.
        transferred: make the examples on the undefended model.
    """

    attack: str
    about: str
    params: Mapping[str, Any] = field(default_factory=dict)
    params_stochastic: Mapping[str, Any] = field(default_factory=dict)
    robust_to: Literal["report", "PGD-20", "both"] = "both"
    transferred: bool = False

    def run(self, examination: Examination) -> Finding:
        robust, among = self._samples(examination)
        params = {**self.params, **(self.params_stochastic if examination.stochastic else {})}
        spec, outcome = examination.attack(self.attack, among, self.transferred, **params)
        additional, beyond = examination.misclassified(outcome, robust), examination.misclassified(outcome)
        return Finding(additional, examination.additional(self.about, additional), beyond, spec, self.transferred)

    def passes(self, stochastic: bool) -> float:
        params = {**self.params, **(self.params_stochastic if stochastic else {})}
        try:
            return passes(attacks.get(self.attack).build(self.attack, {"eps": 0.1, **params}), stochastic).work
        except SpecError:  # the check says what is wrong
            return 0.0

    def _samples(self, examination: Examination) -> tuple[np.ndarray, np.ndarray | None]:
        """The robust samples, and those that the attack is run on."""
        if self.robust_to == "report":
            return examination.reported, None
        robust = reference(examination).right
        if self.robust_to == "both":
            robust = robust & examination.reported
        return robust, robust & examination.sample


@dataclass(frozen=True)
class StrongAttack(FullCheck):
    """Auto-PGD, on the samples that are robust in the report, must not misclassify many of them.

    It is a part of the quick checks: it takes at most ``STRONG_STEPS`` gradients for each of these samples. Runs towards
    single classes would take a multiple of them.
    """

    def passes(self, stochastic: bool) -> float:
        return 3.0 * STRONG_STEPS

    def run(self, examination: Examination) -> Finding:
        if examination.stochastic:
            raise NotApplicable("of a stochastic defense only the full checks run attacks")
        robust = examination.reported & examination.sample
        if not robust.any():
            raise NotApplicable("no sample is robust in the report")
        # the losses of other criteria are their own
        usual = isinstance(examination.run.run.criterion.plugin, Misclassification)
        params: dict[str, Any] = {"steps": STRONG_STEPS, "targets": 0, **({"loss": "margin"} if usual else {})}
        spec, outcome = examination.attack("apgd", robust, **params)
        beyond = examination.misclassified(outcome)
        reason = examination.additional(f"Auto-PGD with {STRONG_STEPS} steps, compared with the report", beyond)
        threshold = max(examination.allowed, STRONG_SHARE * examination.n)
        return Finding(beyond, reason, beyond, spec, threshold=threshold)


@dataclass(frozen=True)
class AveragedGradients(FullCheck):
    """PGD with gradients averaged over noise must not misclassify samples that the exact gradient does not.

    Where a loss is discontinuous, its gradient says nothing of the direction in which the loss increases, but its mean
    over a neighbourhood does.
    """

    def passes(self, stochastic: bool) -> float:
        return (1 + DRAWS) * REFERENCE

    def run(self, examination: Examination) -> Finding:
        if examination.stochastic:
            raise NotApplicable("attacks average the gradients of a stochastic defense already")
        threat = examination.threat
        robust = reference(examination).right & examination.reported & examination.sample
        typical = {"linf": 1.0, "l2": examination.pixels**-0.5, "l1": 1 / examination.pixels}[threat.norm]
        given = {"eps": threat.eps, "norm": threat.norm, "steps": 20}
        found = trace(examination, examination.plugin_spec("pgd", given), robust, NOISE * typical * threat.eps)
        beyond = examination.misclassified(found.outcome)
        about = (
            f"PGD-20 with gradients averaged over {DRAWS} Gaussian perturbations, compared with PGD-20 and the report"
        )
        return Finding(beyond, examination.additional(about, beyond), beyond)


def at_budgets(examination: Examination) -> dict[float, Outcome]:
    """PGD with 20 steps by eps: half, once and twice the budget, and one that reaches mid-grey from every image."""
    eps, largest = examination.threat.eps, grey(examination.threat.norm, examination.pixels)
    outcomes = {eps: reference(examination)}
    for other in {eps / 2, min(2 * eps, largest), largest} - {eps}:
        outcomes[other] = examination.attack("pgd", eps=other, steps=20)[1]
    return dict(sorted(outcomes.items()))


def grey(norm: str, pixels: int) -> float:
    """The budget within which every image in [0, 1] can become mid-grey, so that no two images can be told apart."""
    return {"linf": 0.5, "l2": 0.5 * math.sqrt(pixels), "l1": 0.5 * pixels}[norm]


@dataclass(frozen=True)
class IncreasingEps(FullCheck):
    """A sample that is misclassified at one budget must be misclassified at every larger one."""

    unit: ClassVar[str] = "budgets"

    def passes(self, stochastic: bool) -> float:
        return 3 * REFERENCE

    def run(self, examination: Examination) -> Finding:
        outcomes = at_budgets(examination)
        robust_again = max(
            int((~small.right & large.right & examination.sample).sum())
            for small, large in itertools.pairwise(outcomes.values())
        )
        budgets = ", ".join(Threat(examination.threat.norm, eps).text for eps in outcomes)
        reason = f"{robust_again} samples misclassified at one budget are robust at the next larger one ({budgets})"
        return Finding(robust_again, reason)


@dataclass(frozen=True)
class LargeEps(FullCheck):
    """No sample may be robust where all images can become the same, and so get the same prediction."""

    unit: ClassVar[str] = "budgets"

    def run(self, examination: Examination) -> Finding:
        eps, outcome = list(at_budgets(examination).items())[-1]
        robust = int((outcome.right & examination.sample).sum())
        threat = Threat(examination.threat.norm, eps)
        return Finding(robust, f"{robust} samples robust at {threat.text}, where every image can become mid-grey")


@dataclass(frozen=True)
class Combined(FullCheck):
    """All checks before this one, as one attack."""

    def run(self, examination: Examination) -> Finding:
        reference(examination)  # without it next to nothing was run
        robust = robust_under(examination.clean, examination.found, examination.threat)
        beyond = int((~robust & examination.reported & examination.sample).sum())
        return Finding(beyond, examination.additional("compared with the report", beyond), beyond)


QUICK_CHECKS: tuple[FullCheck, ...] = (StrongAttack("strong attack", CROCE, first=True),)

FULL_CHECKS: tuple[FullCheck, ...] = (
    AnotherAttack(
        "plain PGD",
        CARLINI,
        "pgd",
        "20 steps, not initialised from a sweep",
        {"steps": 20},
        robust_to="report",
        first=True,
    ),
    AnotherAttack("single step", ATHALYE, "fgsm", "one step, compared with 20 steps", robust_to="PGD-20"),
    AnotherAttack(
        "black box",
        ATHALYE,
        "square",
        "an attack without gradients, compared with PGD-20",
        {"queries": 500},
        {"queries": 100},
        robust_to="PGD-20",
    ),
    AnotherAttack(
        "transfer",
        ATHALYE,
        "pgd",
        "examples made on the undefended model, compared with PGD-20",
        {"steps": 20},
        robust_to="PGD-20",
        transferred=True,
    ),
    AnotherAttack("more steps", CARLINI, "pgd", "100 steps, compared with 20 steps and the report", {"steps": 100}),
    AnotherAttack(
        "more restarts", CARLINI, "pgd", "5 restarts, compared with 1 and the report", {"steps": 20, "restarts": 5}
    ),
    AnotherAttack(
        "another loss",
        TRAMER,
        "pgd",
        "the margin loss, compared with the cross-entropy and the report",
        {"steps": 20, "loss": "margin"},
        misclassification_only=True,  # the losses of other criteria are their own
    ),
    AnotherAttack(
        "nearest classes",
        CROCE,
        "apgd",
        "Auto-PGD, also towards the 3 nearest classes, compared with PGD-20 and the report",
        {"steps": 100, "targets": 3},
        {"steps": 20},
        misclassification_only=True,  # other criteria have no targeted runs
    ),
    AveragedGradients("averaged gradients", TRAMER),
    IncreasingEps("increasing eps", ATHALYE),
    LargeEps("large eps", ATHALYE, misclassification_only=True),
    LossStillRising("loss still rising", PINTOR),
    SilentSuccess("silent success", PINTOR),
    StepsWithoutEffect("steps without effect", PINTOR),
    ScaleOfGradients("scale of gradients", PINTOR),
    Combined("all checks combined", CARLINI),
)
