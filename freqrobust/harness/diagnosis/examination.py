"""Checks of a robust accuracy.

An attack that finds no example says something about the model only when the attack works. The checks look for the
symptoms of masked gradients (Athalye, Carlini, Wagner 2018, sec. 3.1) and of attacks that stopped too early (Carlini et
al. 2019, "On evaluating adversarial robustness"). Each is a comparison at one threat, on the same samples, without what
an eps sweep inherits. The quick checks are here, those that run other attacks in ``checks``.
"""

from __future__ import annotations

import hashlib
import math
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from freqrobust.core.errors import FreqRobustError, SpecError
from freqrobust.core.text import one_line
from freqrobust.core.user_code import running_user_code
from freqrobust.harness.batches import Timer
from freqrobust.harness.cell import add_examples, measure, measure_transfer, unattacked
from freqrobust.harness.diagnosis.findings import ATHALYE, CARLINI, CROCE, HOW, Finding, NotApplicable, RunnableCheck
from freqrobust.harness.outcome import Outcome
from freqrobust.harness.run_plan import checks_label
from freqrobust.harness.target_model import TargetModel
from freqrobust.numerics.norms import norms, per_sample, project
from freqrobust.numerics.threat import Threat
from freqrobust.plugins.base import Attack
from freqrobust.plugins.context import AttackContext
from freqrobust.plugins.criterion import Criterion, Misclassification
from freqrobust.plugins.registry import attacks
from freqrobust.plugins.selection import check_criterion
from freqrobust.plugins.specs import PluginSpec
from freqrobust.results.diagnosis import Check
from freqrobust.results.records import ThreatRecord

if TYPE_CHECKING:
    from freqrobust.harness.run import DefenseRun

#: Additional samples that another attack may misclassify before a check fails: so many, or this share.
FURTHER, FURTHER_SHARE = 3, 0.01
#: Share of margin gradients that may be exactly zero.
ZERO_SHARE = 0.05
#: The check that all others depend on.
REPEATABILITY = "repeatability"
#: Warnings of a cell whose attack saw no gradient.
BLIND = ("zero-gradients", "no-gradients")
#: With fewer samples than this the verdict is inconclusive: so few cannot exceed what a check allows by much.
FEWEST = 20
#: How far outputs in fp32 may differ between two calls, as a share of the largest logit: rounding differs.
SAME = 1e-3


def allowed(n: int) -> float:
    """How many of ``n`` samples a check may count before it fails."""
    return max(FURTHER_SHARE * n, FURTHER)


class _Budgeted(NamedTuple):
    """One attack with a budget above 0, and its outcome."""

    attack: Attack
    threat: Threat
    outcome: Outcome
    plugin_spec: PluginSpec[Attack]


@dataclass
class Examination:
    """The checks of one defense at one threat, while they are made.

    Attributes:
        run: the defense.
        clean: its clean pass.
        sample: the samples that are examined, ``(n,)``.
        reported: those that are robust to all attacks of the report at this threat, ``(n,)``.
        source: the undefended model, to transfer examples from; None when it is the one that is examined.
        found: the outcomes of the attacks of the checks.
        by_gradients: the attacks of the report that use gradients, within the threat.
        traces: the attacks that were watched, or why they could not be.
    """

    run: DefenseRun
    clean: Outcome
    sample: np.ndarray
    reported: np.ndarray
    threat: Threat
    source: DefenseRun | None = None
    checks: list[Check] = field(default_factory=list)
    found: list[Outcome] = field(default_factory=list)
    by_gradients: list[_Budgeted] = field(default_factory=list)
    traces: dict[tuple[str, str, bytes], Any] = field(default_factory=dict)
    _tried: dict[tuple[str, bool, bytes], Outcome | NotApplicable] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.n = int(self.sample.sum())
        self.allowed = allowed(self.n)
        self.record = ThreatRecord(norm=self.threat.norm, eps=self.threat.eps)
        self.pixels = math.prod(self.run.run.data.shape)
        self.stochastic = self.run.chain.stochastic

    # -- quick checks ---------------------------------------------------------------------------------------

    def quick(self) -> None:
        """Do outputs repeat, are there gradients, and is noise as strong as they are?"""
        piece = self.remembered("quick", None, self.sample, lambda: _look(self))
        noisy = Outcome.from_piece(piece["noise"])
        self.found.append(noisy)
        self._repeatability(piece)
        self._zero_gradients(piece)
        additional = self.misclassified(noisy)
        reason = self.additional("random noise at the full budget", additional)
        self._judge("noise", ATHALYE, Finding(additional, reason, additional))
        if piece["softmax"]:
            reason = "the model returns probabilities instead of logits, on which losses can saturate"
            self.inform("softmax outputs", reason, CARLINI)
        if piece["differentiates"]:
            reason = "the model computes gradients while it predicts (test-time optimisation)"
            self.inform("gradients inside forward", reason, CROCE)

    def _repeatability(self, piece: dict[str, Any]) -> None:
        about: dict[str, Any] = {"name": REPEATABILITY, "source": CROCE, "n": self.n, "unit": "samples"}
        changed = piece["changed"]
        if self.run.chain.stochastic:
            same = "outputs are the same for the same random draws; predictions are majority votes"
            other = "outputs change for the same random draws; a stochastic defense has to draw from freqrobust.noise"
        else:
            same = "outputs are the same in another call and in other batches"
            other = "outputs change between calls or with the batch; a random defense has to set stochastic = True"
        reason = other if changed else same
        status = "failed" if changed else "passed"
        self.checks.append(Check(**about, status=status, measured=changed, threshold=0, reason=reason))

    def _zero_gradients(self, piece: dict[str, Any]) -> None:
        about: dict[str, Any] = {"name": "zero gradients", "source": CARLINI, "n": piece["gradients"], "unit": "share"}
        if not piece["gradients"]:
            self.checks.append(Check(**about, status="not applicable", reason="no clean image is classified correctly"))
            return
        share = piece["zero"] / piece["gradients"]
        reason = f"{piece['zero']} of {piece['gradients']} gradients of the margin loss are zero or not finite"
        status = "failed" if share > ZERO_SHARE else "passed"
        self.checks.append(Check(**about, status=status, measured=share, threshold=ZERO_SHARE, reason=reason))

    def what_was_run(self, by_gradients: list[_Budgeted]) -> None:
        """Did a gradient-based attack run within the threat, and did it receive gradients?"""
        self.by_gradients = by_gradients
        about: dict[str, Any] = {"name": "gradient-based attacks", "source": CARLINI, "threat": self.record}
        blind = [entry for entry in by_gradients if any(code in BLIND for code, _ in entry.outcome.warnings)]
        reason = f"attacks of the report that use gradients of the defended model: {len(by_gradients)}"
        if not by_gradients:
            reason = "no attack of the report uses gradients of the defended model"
        elif blind:
            reason = f"{len(blind)} of {len(by_gradients)} attacks of the report received no gradients, or zeros"
        status = "failed" if blind or not by_gradients else "passed"
        self.checks.append(Check(**about, status=status, reason=reason))

    # -- checks that run attacks ----------------------------------------------------------------------------

    def attacks_of(self, checks: Iterable[RunnableCheck]) -> None:
        """Other attacks at the same budget, and other budgets."""
        criterion = self.run.run.criterion
        for check in checks:
            if check.misclassification_only and not isinstance(criterion.plugin, Misclassification):
                self._not_applicable(check, f"defined for the criterion misclassification, not for {criterion.spec}")
                continue
            try:
                self._judge(check.name, check.source, check.run(self))
            except NotApplicable as why:
                self._not_applicable(check, str(why))

    def attack(
        self, name: str, among: np.ndarray | None = None, transferred: bool = False, **params: Any
    ) -> tuple[str, Outcome]:
        """Run an attack, at the budget of the threat unless another is given, once for each choice of arguments.

        Args:
            name: of the attack.
            among: the samples that it may attack, ``(n,)``; by default those that are examined.
            transferred: make the examples on the undefended model.
            params: parameters of the attack.

        Returns:
            Its spec and its outcome.

        Raises:
            NotApplicable: it is not installed, has no such parameter, or failed.
        """
        if transferred and self.source is None:
            raise NotApplicable("this is the undefended model")
        given = {"eps": self.threat.eps, "norm": self.threat.norm, **params}
        plugin_spec = self.plugin_spec(name, given)
        among = self.sample if among is None else among
        key = (plugin_spec.spec, transferred, among.tobytes())
        if key not in self._tried:
            self._tried[key] = self._run(plugin_spec, among, self.source if transferred else None)
        outcome = self._tried[key]
        if isinstance(outcome, NotApplicable):
            raise outcome
        return plugin_spec.spec, outcome

    def plugin_spec(self, name: str, given: dict[str, Any]) -> PluginSpec[Attack]:
        """An attack with these parameters.

        Raises:
            NotApplicable: it is not installed, has no such parameter, or does not take the criterion.
        """
        shown = {**given, "eps": Threat(self.threat.norm, given["eps"]).eps_text}
        try:
            plugin = attacks.get(name).build(name, given)
            plugin_spec = PluginSpec(name, plugin, {key: f"{value}" for key, value in shown.items()})
            check_criterion(self.run.run.criterion, [plugin_spec])
        except SpecError as error:
            raise NotApplicable(str(error)) from error
        return plugin_spec

    def misclassified(self, outcome: Outcome, robust: np.ndarray | None = None) -> int:
        """How many of the samples that are robust, in the report unless given, an attack misclassified."""
        robust = self.reported if robust is None else robust
        return int((~outcome.right & self.clean.right & self.sample & robust).sum())

    def additional(self, about: str, count: int) -> str:
        """The reason of a check that compares attacks."""
        return f"{about}: {count} of {self.n} additional samples misclassified"

    # -- tools ----------------------------------------------------------------------------------------------

    def _run(
        self, plugin_spec: PluginSpec[Attack], among: np.ndarray, source: DefenseRun | None
    ) -> Outcome | NotApplicable:
        run = self.run

        def work() -> dict[str, Any]:
            model, batches, seed = run.target_model(), run.batches, run.run.seed
            if source is None:
                return measure(
                    plugin_spec, model, batches, self.clean, None, seed, among=among, rounding=False
                ).to_piece()
            targets = [(model, self.clean)]
            (outcome,) = measure_transfer(plugin_spec, source.target_model(), batches, targets, seed, among, False)
            return outcome.to_piece()

        purpose = "transfer" if source is not None else "attack"
        try:
            with running_user_code(f"{plugin_spec.spec} failed"):
                outcome = Outcome.from_piece(self.remembered(purpose, plugin_spec, among, work))
        except FreqRobustError as error:  # the other checks are kept
            return NotApplicable(one_line(error))
        self.found.append(outcome)
        return outcome

    def remembered(
        self,
        purpose: str,
        plugin_spec: PluginSpec[Attack] | None,
        among: np.ndarray,
        work: Callable[[], dict[str, Any]],
    ) -> dict[str, Any]:
        """From the journal, or measured and stored there."""
        run = self.run.run
        digest = hashlib.sha256(np.packbits(among).tobytes() + repr(self.threat).encode()).hexdigest()
        key = run.key(self.run.chain, plugin_spec, None, purpose=f"diagnosis {purpose} {digest}")
        piece = run.checked.load(key)
        if piece is None:
            self.run.target_model()  # made before the clock starts
            what = plugin_spec.spec + HOW[purpose.split()[0]] if plugin_spec is not None else "quick checks"
            label = f"{checks_label(self.run.chain)}, {what}"
            run.progress.begin(label, int(among.sum()))
            piece = work()
            run.keep(run.checked, key, piece)
            run.progress.end(label)
        return piece

    def _judge(self, name: str, source: str, finding: Finding) -> None:
        threshold = self.allowed if finding.threshold is None else finding.threshold
        self.checks.append(
            Check(
                name=name,
                status="failed" if finding.measured > threshold else "passed",
                measured=finding.measured,
                threshold=threshold,
                unit="share" if finding.share else "samples",
                n=self.n if finding.n is None else finding.n,
                threat=self.record,
                attack=finding.attack,
                transferred=finding.transferred,
                additional=finding.beyond,
                reason=finding.reason,
                source=source,
            )
        )

    def _not_applicable(self, check: RunnableCheck, why: str) -> None:
        self.checks.append(
            Check(name=check.name, status="not applicable", reason=why, threat=self.record, source=check.source)
        )

    def inform(self, name: str, what: str, source: str) -> None:
        self.checks.append(Check(name=name, status="information", reason=what, source=source))


def _look(work: Examination) -> dict[str, Any]:
    """One pass with gradients, one without in other batches, one with noise."""
    run, threat = work.run, work.threat
    target_model, batches, seed = run.target_model(), run.batches, run.run.seed
    timer = Timer(target_model, batches)
    outcome = unattacked(work.clean)
    counts = {"changed": 0, "zero": 0, "gradients": 0}
    softmax, differentiates = True, False

    def look(chunk: torch.Tensor) -> None:
        nonlocal softmax, differentiates
        images, labels, ids = batches.data.batch(chunk, batches.device)
        where = chunk.numpy()
        right = torch.from_numpy(work.clean.right[where]).to(images.device)
        with target_model.attacked(ids, "diagnosis", fp32=True) as view:
            logits, gradient = _margin_gradient(view, images, labels, target_model.criterion)
        flat = gradient.flatten(1)
        nothing = (flat.abs().amax(dim=1) == 0) | ~torch.isfinite(flat).all(dim=1)
        with _watched() as calls:
            again = _in_other_batches(target_model, images, ids)
        noisy = _with_noise(images, AttackContext(ids, seed), threat)
        add_examples(outcome, work.clean, where, target_model.predict(noisy, ids), labels, noisy - images)
        # counted last: a batch that is out of memory is repeated
        softmax &= bool(((logits >= 0).all(dim=1) & ((logits.sum(dim=1) - 1).abs() < 1e-4)).all())
        differentiates |= bool(calls)
        counts["gradients"] += int(right.sum())
        counts["zero"] += int((nothing & right).sum())
        counts["changed"] += int((~_same(logits, again, SAME)).sum())

    batches.each(torch.from_numpy(np.flatnonzero(work.sample)), look)
    return {"noise": timer.close(outcome).to_piece(), **counts, "softmax": softmax, "differentiates": differentiates}


def _with_noise(images: torch.Tensor, context: AttackContext, threat: Threat) -> torch.Tensor:
    """A random vertex of the Linf ball; in the other norms a Gaussian direction, scaled to eps."""
    drawn = context.normal(images.shape[1:], "diagnosis noise")
    drawn = drawn.sign() if threat.norm == "linf" else drawn / per_sample(norms(drawn, threat.norm), drawn)
    return project(images + threat.eps * drawn, images, threat.norm, threat.eps)


def _margin_gradient(
    view: torch.nn.Module, images: torch.Tensor, labels: torch.Tensor, criterion: Criterion
) -> tuple[torch.Tensor, torch.Tensor]:
    x = images.detach().requires_grad_(True)
    with torch.enable_grad():
        logits = view(x)
        values = criterion.margin(logits, labels).sum()
        gradient = torch.autograd.grad(values, x, allow_unused=True)[0] if values.requires_grad else None
    return logits.detach(), gradient if gradient is not None else torch.zeros_like(images)


def _in_other_batches(target_model: TargetModel, images: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """The same predictions, of the same draws, made for the second half first and for each half apart."""
    half = len(images) // 2
    results: list[torch.Tensor] = []
    for part in (slice(half, None), slice(0, half)):
        if len(images[part]):
            with target_model.drawing(ids[part], "diagnosis"):
                results.insert(0, target_model.logits(images[part]))
    return torch.cat(results)


def _same(a: torch.Tensor, b: torch.Tensor, share: float) -> torch.Tensor:
    """Rows of logits that agree, ``(N,)``; NaN agrees with NaN."""
    largest = torch.where(torch.isfinite(b), b.abs(), 0).amax(dim=1, keepdim=True)
    return (((a - b).abs() <= share * largest) | (a == b) | (a.isnan() & b.isnan())).all(dim=1)


#: Held while functions of torch.autograd are replaced, so that one thread cannot restore what another one replaced.
_REPLACING = threading.RLock()


@contextmanager
def _watched() -> Iterator[list[str]]:
    """Records the calls that this thread makes of ``torch.autograd``'s functions, which are always restored."""
    calls: list[str] = []
    thread = threading.get_ident()

    def recording(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if threading.get_ident() == thread:
                calls.append(name)
            return function(*args, **kwargs)

        return call

    with _REPLACING:
        originals = {name: getattr(torch.autograd, name) for name in ("grad", "backward")}
        try:
            for name, function in originals.items():
                setattr(torch.autograd, name, recording(name, function))
            yield calls
        finally:
            for name, function in originals.items():
                setattr(torch.autograd, name, function)
