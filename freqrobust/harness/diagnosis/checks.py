"""The checks that run other attacks at the budget of the report.

``FULL_CHECKS`` declares each of them once. The examination runs them in this order, and lists those that cannot be run
as not applicable: adding a check means adding one entry.
"""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from freqrobust.harness.diagnosis.findings import ATHALYE, CARLINI, TRAMER, Finding
from freqrobust.harness.outcome import robust_under
from freqrobust.numerics.threat import Threat

if TYPE_CHECKING:
    import numpy as np

    from freqrobust.harness.diagnosis.examination import Examination
    from freqrobust.harness.outcome import Outcome


@dataclass(frozen=True)
class FullCheck(ABC):
    """One check.

    Attributes:
        name: as reports show it, different for each check.
        source: the paper that recommends it.
        misclassification_only: it says nothing about other criteria.
    """

    name: str
    source: str
    misclassification_only: bool = field(default=False, kw_only=True)

    @abstractmethod
    def run(self, examination: Examination) -> Finding:
        """Run the check.

        Attacks are run through ``examination.attack``, which runs each of them once, resumes it from the journal and
        counts its examples in the worst case.

        Raises:
            NotApplicable: the check cannot be run.
        """


def reference(examination: Examination) -> Outcome:
    """PGD with 20 steps on all examined samples, which most checks are compared with."""
    return examination.attack("pgd", steps=20)[1]


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

    def _samples(self, examination: Examination) -> tuple[np.ndarray, np.ndarray | None]:
        """The robust samples, and those that the attack is run on."""
        if self.robust_to == "report":
            return examination.reported, None
        robust = reference(examination).right
        if self.robust_to == "both":
            robust = robust & examination.reported
        return robust, robust & examination.sample


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


FULL_CHECKS: tuple[FullCheck, ...] = (
    AnotherAttack(
        "plain PGD", CARLINI, "pgd", "20 steps, not initialised from a sweep", {"steps": 20}, robust_to="report"
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
    IncreasingEps("increasing eps", ATHALYE),
    LargeEps("large eps", ATHALYE, misclassification_only=True),
    Combined("all checks combined", CARLINI),
)
