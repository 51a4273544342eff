"""Checks of how an attack went, from the margins and gradients at its steps.

An attack can fail although the model has useful gradients: because it stops too early, returns another image than its
best one, or goes in directions that do not increase the loss (Pintor et al. 2022, "Indicators of Attack Failure").
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from freqrobust.harness.diagnosis.findings import Finding, NotApplicable
from freqrobust.harness.diagnosis.full_check import FullCheck
from freqrobust.harness.diagnosis.traces import RISING, TINY, Trace, trace
from freqrobust.plugins.specs import PluginSpec

if TYPE_CHECKING:
    from freqrobust.harness.diagnosis.examination import Examination
    from freqrobust.plugins.base import Attack

#: Passes per sample that the attack of the report may have taken to be run again; else PGD with 20 steps is watched.
PASSES = 250
#: A guess of the passes of the attack that is watched.
TRACED = 100.0
#: Steps that an attack has to make for its last tenth to mean anything.
FEWEST_STEPS = 5
#: Share of the robust samples whose loss may still be rising at the end.
RISING_SHARE = 0.25
#: Share of the samples on which steps may have no effect, or gradients a wrong scale.
IDLE_SHARE = SCALE_SHARE = 0.05


def watched(examination: Examination) -> PluginSpec[Attack]:
    """The strongest gradient-based attack of the report at this threat that does not take too many passes; else PGD.

    Of its restarts only the first is run: each would begin a new curve.

    Raises:
        NotApplicable: there is none, and PGD is not installed.
    """
    affordable = []
    for entry in examination.by_gradients:
        attacked = int(examination.clean.right.sum()) - entry.outcome.numbers.inherited
        if entry.threat == examination.threat and entry.outcome.numbers.forwards <= PASSES * attacked:
            robust = int((entry.outcome.right & examination.sample).sum())
            affordable.append((robust, entry.plugin_spec.spec, entry.plugin_spec))
    if not affordable:
        given = {"eps": examination.threat.eps, "norm": examination.threat.norm, "steps": 20}
        return examination.plugin_spec("pgd", given)
    plugin_spec = min(affordable, key=lambda entry: entry[:2])[2]
    if getattr(plugin_spec.plugin, "restarts", 1) == 1:
        return plugin_spec
    once = plugin_spec.plugin.model_copy(update={"restarts": 1})
    return PluginSpec(plugin_spec.name, once, {**plugin_spec.given, "restarts": "1"})


@dataclass(frozen=True)
class Indicator(FullCheck):
    """A check of how the strongest attack of the report went; all of them watch the same run of it."""

    unit: ClassVar[str] = "trace"

    def passes(self, stochastic: bool) -> float:
        return TRACED

    def run(self, examination: Examination) -> Finding:
        if examination.stochastic:
            raise NotApplicable("the losses of a stochastic defense change from pass to pass")
        found = trace(examination, watched(examination), examination.sample)
        if found.steps == 0:
            raise NotApplicable(f"{found.spec} makes no steps with all samples of a batch")
        return self.judge(examination, found)

    @abstractmethod
    def judge(self, examination: Examination, found: Trace) -> Finding:
        """The finding, from what was seen."""

    def counted(
        self, examination: Examination, found: Trace, flags: np.ndarray, of: np.ndarray, share: float, words: str
    ) -> Finding:
        """The finding that counts some of the samples ``of``, which may be a share of them.

        Args:
            examination: the examination.
            found: the trace.
            flags: those that count, ``(n,)``.
            of: those that were looked at, ``(n,)``.
            share: how many of them may count.
            words: what counts, and what to do about it, separated by a semicolon.
        """
        count, n = int((flags & of).sum()), int(of.sum())
        threshold = max(examination.allowed, share * n)
        what, advice = words.split("; ", 1)
        reason = f"{found.spec}: {count} of {n} {what}"
        return Finding(
            count, f"{reason}; {advice}" if count > threshold else reason, None, found.spec, threshold=threshold, n=n
        )


@dataclass(frozen=True)
class LossStillRising(Indicator):
    """The loss must have converged where the attack ends, on the samples that are robust."""

    def judge(self, examination: Examination, found: Trace) -> Finding:
        _enough_steps(found)
        robust = found.attacked & found.outcome.right & ~found.returned
        words = (
            f"robust samples have a loss that made more than {RISING:.0%} of its increase in the last tenth of the "
            "steps; use more steps or a larger step size"
        )
        return self.counted(examination, found, found.rising, robust, RISING_SHARE, words)


@dataclass(frozen=True)
class SilentSuccess(Indicator):
    """An image on the way that is adversarial must not be lost."""

    def judge(self, examination: Examination, found: Trace) -> Finding:
        lost = ~found.outcome.right & ~found.returned & examination.reported
        words = (
            "samples were misclassified on the way, but neither in the image that was returned nor in the report; "
            "the attack has to return the best image of all steps"
        )
        finding = self.counted(examination, found, lost, found.attacked, 0.0, words)
        return replace(finding, beyond=examination.misclassified(found.outcome))


@dataclass(frozen=True)
class StepsWithoutEffect(Indicator):
    """The steps must increase the loss."""

    def judge(self, examination: Examination, found: Trace) -> Finding:
        _enough_steps(found)
        words = (
            "samples have a loss that the steps did not increase; the gradients are masked: declare a surrogate (BPDA), "
            "or use another loss or an attack without gradients"
        )
        return self.counted(examination, found, found.idle, found.attacked & found.started, IDLE_SHARE, words)


@dataclass(frozen=True)
class ScaleOfGradients(Indicator):
    """Gradients must be finite, and large enough for float32."""

    def judge(self, examination: Examination, found: Trace) -> Finding:
        words = (
            f"samples have a first gradient of an L2 norm below {TINY:g}, or values that are not finite; use logits "
            "instead of probabilities, divide large logits by a constant, or use loss=margin or loss=dlr"
        )
        return self.counted(examination, found, found.scale, found.attacked, SCALE_SHARE, words)


def _enough_steps(found: Trace) -> None:
    if found.steps < FEWEST_STEPS:
        raise NotApplicable(f"{found.spec} makes {found.steps} steps, at least {FEWEST_STEPS} are needed")
