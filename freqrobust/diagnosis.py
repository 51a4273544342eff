"""Whether the robust accuracy of a defense is to be believed.

An attack that finds nothing says something about the model only when the attack works. The checks are the
symptoms of gradients that are masked (Athalye, Carlini, Wagner 2018, sec. 3.1) and of attacks that stopped too
early (Carlini et al. 2019, "On evaluating adversarial robustness"), each a comparison at one threat, on the same
samples, without what an eps sweep hands over.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple
from unittest.mock import patch

import numpy as np
import torch

from freqrobust import noise
from freqrobust.context import AttackContext
from freqrobust.errors import FreqRobustError, SpecError
from freqrobust.losses import margin
from freqrobust.measurement import NORMS, Outcome, Timer, holds, measure, measure_transfer
from freqrobust.perturbation import norms, per_sample, project
from freqrobust.plugin import Attack, Threat
from freqrobust.printable import one_line
from freqrobust.registry import Selection, attacks
from freqrobust.results import Check, ThreatRecord
from freqrobust.user_code import running_user_code
from freqrobust.victim import Victim

if TYPE_CHECKING:
    from freqrobust.session import DefenseRun

Depth = Literal["quick", "full"]
#: Samples that are looked at; fewer for stochastic defenses, whose attacks average over draws.
SAMPLES, SAMPLES_STOCHASTIC = 200, 50
#: Further samples that another attack may break before a check fails: so many, or this share.
FURTHER, FURTHER_SHARE = 3, 0.01
#: Share of margin gradients that may be exactly zero.
ZERO_SHARE = 0.05
#: The check that all others stand on.
REPEATABILITY = "repeatability"
#: Warnings of a cell whose attack saw no gradient.
BLIND = ("zero-gradients", "no-gradients")
#: Fewer samples than this tell nothing: so few cannot exceed what a check allows by much.
FEWEST = 20
#: How far outputs may differ between two calls, as a share of the largest logit: rounding differs.
SAME = 1e-3
#: Share of the samples that should still hold at the threat that is looked at, where there is such a threat.
HEADROOM = 0.05

ATHALYE = "Athalye, Carlini, Wagner 2018, sec. 3.1"
CARLINI = "Carlini et al. 2019"
TRAMER = "Tramer et al. 2020"
CROCE = "Croce and Hein 2020"


Measurements = Sequence["tuple[Selection, Outcome | str]"]


@dataclass
class Examined:
    """What the checks of one defense found.

    Attributes:
        depth: how much was asked for.
        threat: at which the checks were made.
        n: samples that were looked at.
        held: how many of them nothing broke at that threat, neither the report's attacks nor the checks.
        found: what the checks broke, for the worst case, and the passes they took.
        failed: why there are no checks.
    """

    depth: Depth
    threat: Threat | None = None
    n: int = 0
    held: int = 0
    checks: list[Check] = field(default_factory=list)
    found: list[Outcome] = field(default_factory=list)
    failed: str | None = None


def examine(
    run: DefenseRun,
    clean: Outcome,
    adaptive: Measurements,
    oblivious: Measurements,
    depth: Depth,
    source: DefenseRun | None,
) -> Examined | None:
    """Check the robust accuracies of one defense.

    Args:
        run: the defense.
        clean: its clean pass.
        adaptive: its cells, made by attacks that know the defense.
        oblivious: its cells, made by attacks that do not.
        depth: ``quick`` takes three forward passes and one backward pass per sample, more of a stochastic defense, whose
            predictions are votes; ``full`` runs other attacks.
        source: the undefended model, to transfer examples from; None when the defense is none.

    Returns:
        None when no attack with a budget was measured.
    """
    aware, unaware = _budgeted(adaptive), _budgeted(oblivious)
    outcomes = [o for part in (adaptive, oblivious) for _, o in part if isinstance(o, Outcome)]
    count = SAMPLES_STOCHASTIC if run.chain.stochastic else SAMPLES
    n = len(clean.right)
    sample = np.zeros(n, dtype=bool)
    sample[noise.permutation(n, seed=run.run.seed, stream="diagnosis").numpy()[:count]] = True
    by_gradients = [one for one in aware if one.attack.needs_gradient]
    threats = {one.threat for one in by_gradients or [*aware, *unaware]}
    threat = _choose(threats, clean, outcomes, sample)
    if threat is None:
        return None
    work = _Examination(run, clean, sample, holds(clean, outcomes, threat), threat)
    work.quick()
    work.what_was_run([o for o in by_gradients if o.threat.norm == threat.norm and o.threat.eps <= threat.eps])
    others = sorted({one.threat.norm for one in [*aware, *unaware]} - {threat.norm})
    if others:
        work.inform(
            "other norms", f"{threat.norm} was examined; {' and '.join(others)} was measured, not examined", CARLINI
        )
    if depth == "full":
        work.full(source)
    left = holds(clean, [*outcomes, *work.found], threat)
    return Examined(depth, threat, int(sample.sum()), int((left & sample).sum()), work.checks, work.found)


class _Budgeted(NamedTuple):
    """One attack with a budget above 0, and what it found."""

    attack: Attack
    threat: Threat
    outcome: Outcome


def _budgeted(measured: Measurements) -> list[_Budgeted]:
    found = []
    for selection, outcome in measured:
        attack = selection.plugin
        threat = attack.threat() if isinstance(attack, Attack) else None
        if isinstance(attack, Attack) and threat is not None and threat.eps > 0 and isinstance(outcome, Outcome):
            found.append(_Budgeted(attack, threat, outcome))
    return found


def _choose(threats: set[Threat], clean: Outcome, outcomes: list[Outcome], sample: np.ndarray) -> Threat | None:
    """The largest threat at which enough samples hold for another attack to show something; else the smallest."""
    ordered = sorted(threats, key=lambda t: (NORMS.index(t.norm), -t.eps))
    ordered = [t for t in ordered if t.norm == ordered[0].norm]
    enough = HEADROOM * sample.sum()
    for threat in ordered:
        if (holds(clean, outcomes, threat) & sample).sum() > enough:
            return threat
    return ordered[-1] if ordered else None


@dataclass
class _Examination:
    run: DefenseRun
    clean: Outcome
    sample: np.ndarray
    reported: np.ndarray
    threat: Threat
    checks: list[Check] = field(default_factory=list)
    found: list[Outcome] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.n = int(self.sample.sum())
        self.allowed = max(FURTHER_SHARE * self.n, FURTHER)
        self.record = ThreatRecord(norm=self.threat.norm, eps=self.threat.eps)

    # -- the quick part -------------------------------------------------------------------------------------

    def quick(self) -> None:
        """Do outputs repeat, are there gradients, and is noise as strong as they are?"""
        piece = self._remembered("quick", None, self.sample, lambda: _look(self))
        noisy = Outcome.from_piece(piece["noise"])
        self.found.append(noisy)
        self._repeatability(piece)
        self._zero_gradients(piece)
        self._compare("noise", "noise at the full budget", noisy, self.reported, ATHALYE)
        if piece["softmax"]:
            self.inform(
                "softmax outputs", "the model returns probabilities: the margin of logits would not saturate", CARLINI
            )
        if piece["differentiates"]:
            self.inform(
                "gradients inside forward", "the model differentiates while it predicts (test-time optimisation)", CROCE
            )

    def _repeatability(self, piece: dict[str, Any]) -> None:
        about: dict[str, Any] = {"name": REPEATABILITY, "source": CROCE, "n": self.n, "unit": "samples"}
        changed = piece["changed"]
        if self.run.chain.stochastic:
            same = "outputs are the same for the same draws; declared stochastic, and judged by majority"
            other = "outputs change for the same draws: randomness has to come from freqrobust.noise"
        else:
            same = "outputs are the same in another call and another batch"
            other = "outputs change from call to call, or with the batch; a random defense has to say stochastic = True"
        reason = other if changed else same
        status = "failed" if changed else "passed"
        self.checks.append(Check(**about, status=status, measured=changed, threshold=0, reason=reason))

    def _zero_gradients(self, piece: dict[str, Any]) -> None:
        about: dict[str, Any] = {"name": "zero gradients", "source": CARLINI, "n": piece["gradients"], "unit": "share"}
        if not piece["gradients"]:
            self.checks.append(Check(**about, status="not applicable", reason="no sample is right on the clean image"))
            return
        share = piece["zero"] / piece["gradients"]
        reason = f"{piece['zero']} of {piece['gradients']} gradients of the margin loss are zero or not finite"
        status = "failed" if share > ZERO_SHARE else "passed"
        self.checks.append(Check(**about, status=status, measured=share, threshold=ZERO_SHARE, reason=reason))

    def what_was_run(self, by_gradients: list[_Budgeted]) -> None:
        """Did an attack by gradients run within the threat, and did it see any?"""
        about: dict[str, Any] = {"name": "attacks by gradients", "source": CARLINI, "threat": self.record}
        blind = [one for one in by_gradients if any(code in BLIND for code, _ in one.outcome.warnings)]
        reason = f"{len(by_gradients)} attacks of the report followed gradients"
        if not by_gradients:
            reason = "no attack of the report followed gradients of the defended model"
        elif blind:
            reason = f"{len(blind)} of {len(by_gradients)} attacks of the report met gradients of zero, or none"
        status = "failed" if blind or not by_gradients else "passed"
        self.checks.append(Check(**about, status=status, reason=reason))

    # -- the full part --------------------------------------------------------------------------------------

    def full(self, source: DefenseRun | None) -> None:
        """Other attacks at the same budget, and other budgets."""
        iterative = self._attack("pgd", self.sample, steps=20)
        if isinstance(iterative, str):
            for name in ("single step", "black box", "transfer", "more steps", "growing eps"):
                self._not_applicable(name, iterative)
            return
        spec, plain = iterative
        self._compare("plain PGD", "20 steps, nothing inherited", plain, self.reported, CARLINI, spec)
        queries = 100 if self.run.chain.stochastic else 500
        held = plain.right
        self._against("single step", "one step against 20", held, ATHALYE, "fgsm")
        self._against("black box", "scores alone against gradients", held, ATHALYE, "square", queries=queries)
        self._transfer(source, held)
        still = held & self.reported
        self._against("more steps", "100 steps after 20 and the report", still, CARLINI, "pgd", steps=100)
        about = "5 starts after 1 and the report"
        self._against("more restarts", about, still, CARLINI, "pgd", steps=20, restarts=5)
        about = "the margin after the cross-entropy and the report"
        self._against("another loss", about, still, TRAMER, "pgd", steps=20, loss="margin")
        self._growth(plain)
        self._together()

    def _together(self) -> None:
        """Everything that the checks broke, against everything that the report's attacks broke."""
        left = holds(self.clean, self.found, self.threat)
        beyond = int((~left & self.reported & self.sample).sum())
        reason = f"all checks together broke {beyond} of {self.n} samples beyond the report"
        self._judge("all together", beyond, reason, CARLINI, beyond)

    def _against(self, name: str, about: str, reference: np.ndarray, source: str, attack: str, **params: Any) -> None:
        """Another attack, on the samples that hold by the reference."""
        tried = self._attack(attack, reference & self.sample, **params)
        if isinstance(tried, str):
            self._not_applicable(name, tried)
        else:
            self._compare(name, about, tried[1], reference, source, tried[0])

    def _transfer(self, source: DefenseRun | None, held: np.ndarray) -> None:
        if source is None:
            self._not_applicable("transfer", "there is no undefended model to make examples on")
            return
        tried = self._attack("pgd", held & self.sample, source, steps=20)
        if isinstance(tried, str):
            self._not_applicable("transfer", tried)
            return
        about = "examples made on the undefended model against adaptive ones"
        self._compare("transfer", about, tried[1], held, ATHALYE, tried[0])

    def _growth(self, iterative: Outcome) -> None:
        """The same attack at half, once and twice the budget, and at one that reaches mid-grey from every image."""
        eps, most = self.threat.eps, grey(self.threat.norm, math.prod(self.run.run.data.shape))
        steps = {eps: iterative}
        for other in {eps / 2, min(2 * eps, most), most} - {eps}:
            tried = self._attack("pgd", self.sample, eps=other, steps=20)
            if isinstance(tried, str):
                self._not_applicable("growing eps", tried)
                return
            steps[other] = tried[1]
        lost = 0
        ordered = sorted(steps)
        for small, large in itertools.pairwise(ordered):
            lost = max(lost, int((~steps[small].right & steps[large].right & self.sample).sum()))
        reason = f"{lost} samples broken at one budget hold at the next larger one of " + ", ".join(
            str(Threat(self.threat.norm, e)) for e in ordered
        )
        self._judge("growing eps", lost, reason, ATHALYE)
        left = int((steps[most].right & self.sample).sum())
        reason = f"{left} samples hold at {Threat(self.threat.norm, most)}, where every image can become mid-grey"
        self._judge("large eps", left, reason, ATHALYE)

    # -- tools ----------------------------------------------------------------------------------------------

    def _attack(
        self, name: str, among: np.ndarray, source: DefenseRun | None = None, **params: Any
    ) -> tuple[str, Outcome] | str:
        """Run an attack on some of the samples: its spec and what it found; or why it could not be run."""
        given = {"eps": self.threat.eps, "norm": self.threat.norm, **params}
        try:
            plugin = attacks.get(name).build(name, given)
        except SpecError as error:
            return str(error)
        shown = {**given, "eps": Threat(self.threat.norm, given["eps"]).eps_text}
        selection = Selection(name, plugin, {key: f"{value}" for key, value in shown.items()})
        run = self.run

        def work() -> dict[str, Any]:
            if source is None:
                found = measure(selection, run.victim(), run.bench, self.clean, None, run.run.seed, among=among)
            else:
                target = [(run.victim(), self.clean)]
                found = measure_transfer(selection, source.victim(), run.bench, target, run.run.seed, among)[0]
            return found.to_piece()

        purpose = "transfer" if source is not None else "attack"
        try:
            with running_user_code(f"{selection.spec} failed"):
                outcome = Outcome.from_piece(self._remembered(purpose, selection, among, work))
        except FreqRobustError as error:  # the other checks are kept
            return one_line(error)
        self.found.append(outcome)
        return selection.spec, outcome

    def _remembered(
        self, purpose: str, selection: Selection | None, among: np.ndarray, work: Callable[[], dict[str, Any]]
    ) -> dict[str, Any]:
        """From the journal, or found and put there."""
        run = self.run.run
        digest = hashlib.sha256(np.packbits(among).tobytes() + repr(self.threat).encode()).hexdigest()
        key = run.key(self.run.chain, selection, None, purpose=f"diagnosis {purpose} {digest}")
        piece = run.checked.load(key)
        if piece is None:
            self.run.victim()  # made before the clock starts
            label = f"checking {self.run.chain.spec}, {selection.spec if selection is not None else 'quick checks'}"
            run.watch.begin(label, int(among.sum()))
            piece = work()
            run.keep(run.checked, key, piece)
            run.watch.end(label)
        return piece

    def _compare(
        self, name: str, about: str, tried: Outcome, reference: np.ndarray, source: str, attack: str | None = None
    ) -> None:
        """Fail when an attack broke many samples that hold by the reference."""
        broken = ~tried.right & self.clean.right & self.sample
        further = int((broken & reference).sum())
        beyond = int((broken & self.reported).sum())
        reason = f"{about}: {further} of {self.n} samples further"
        self._judge(name, further, reason, source, beyond, attack)

    def _judge(
        self, name: str, measured: int, reason: str, source: str, beyond: int | None = None, attack: str | None = None
    ) -> None:
        self.checks.append(
            Check(
                name=name,
                status="failed" if measured > self.allowed else "passed",
                measured=measured,
                threshold=self.allowed,
                unit="samples",
                n=self.n,
                threat=self.record,
                attack=attack,
                beyond=beyond,
                reason=reason,
                source=source,
            )
        )

    def _not_applicable(self, name: str, why: str) -> None:
        self.checks.append(Check(name=name, status="not applicable", reason=why, threat=self.record, source=ATHALYE))

    def inform(self, name: str, what: str, source: str) -> None:
        self.checks.append(Check(name=name, status="information", reason=what, source=source))


def grey(norm: str, pixels: int) -> float:
    """The budget within which every image in [0, 1] can become mid-grey, so that nothing is left to tell apart."""
    return {"linf": 0.5, "l2": 0.5 * math.sqrt(pixels), "l1": 0.5 * pixels}[norm]


def _look(work: _Examination) -> dict[str, Any]:
    """One pass with gradients, one without in other batches, one with noise."""
    run, threat = work.run, work.threat
    victim, bench, seed = run.victim(), run.bench, run.run.seed
    timer = Timer(victim)
    n = len(work.clean.right)
    outcome = Outcome(
        work.clean.right.copy(), work.clean.predictions.copy(), {norm: np.full(n, np.inf, np.float32) for norm in NORMS}
    )
    counts = {"changed": 0, "zero": 0, "gradients": 0}
    softmax, differentiates = True, False

    def look(chunk: torch.Tensor) -> None:
        nonlocal softmax, differentiates
        images, labels, ids = bench.data.batch(chunk, bench.device)
        where = chunk.numpy()
        right = torch.from_numpy(work.clean.right[where]).to(images.device)
        with victim.attacked(ids, "diagnosis") as view:
            logits, gradient = _margin_gradient(view, images, labels)
        flat = gradient.flatten(1)
        nothing = (flat.abs().amax(dim=1) == 0) | ~torch.isfinite(flat).all(dim=1)
        with _watched() as calls:
            again = _in_other_batches(victim, images, ids)
        noisy = _with_noise(images, AttackContext(ids, seed), threat)
        classes, _ = victim.predict(noisy, ids)
        broken = ((classes != labels) & right).cpu().numpy()
        outcome.right[where] &= ~broken
        for norm in NORMS:
            outcome.examples[norm][where[broken]] = norms(noisy - images, norm).cpu().numpy()[broken]
        # counted last: a batch that memory ran out for is looked at again
        softmax &= bool(((logits >= 0).all(dim=1) & ((logits.sum(dim=1) - 1).abs() < 1e-4)).all())
        differentiates |= bool(calls)
        counts["gradients"] += int(right.sum())
        counts["zero"] += int((nothing & right).sum())
        counts["changed"] += int((~_same(logits, again, max(SAME, victim.slack))).sum())

    bench.each(torch.from_numpy(np.flatnonzero(work.sample)), look)
    return {"noise": timer.close(outcome).to_piece(), **counts, "softmax": softmax, "differentiates": differentiates}


def _with_noise(images: torch.Tensor, context: AttackContext, threat: Threat) -> torch.Tensor:
    """A random corner of the Linf ball, or a Gaussian direction at the full length in the other norms."""
    drawn = context.normal(images.shape[1:], "diagnosis noise")
    drawn = drawn.sign() if threat.norm == "linf" else drawn / per_sample(norms(drawn, threat.norm), drawn)
    return project(images + threat.eps * drawn, images, threat.norm, threat.eps)


def _margin_gradient(
    view: torch.nn.Module, images: torch.Tensor, labels: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    x = images.detach().requires_grad_(True)
    with torch.enable_grad():
        logits = view(x)
        values = margin(logits, labels).sum()
        gradient = torch.autograd.grad(values, x, allow_unused=True)[0] if values.requires_grad else None
    return logits.detach(), gradient if gradient is not None else torch.zeros_like(images)


def _in_other_batches(victim: Victim, images: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """The same predictions, of the same draws, made for the second half first and for each half apart."""
    half = len(images) // 2
    found: list[torch.Tensor] = []
    for part in (slice(half, None), slice(0, half)):
        if len(images[part]):
            with victim.drawing(ids[part], "diagnosis"):
                found.insert(0, victim.logits(images[part]))
    return torch.cat(found)


def _same(a: torch.Tensor, b: torch.Tensor, share: float) -> torch.Tensor:
    """Rows of logits that agree, ``(N,)``; NaN agrees with NaN."""
    largest = torch.where(torch.isfinite(b), b.abs(), 0).amax(dim=1, keepdim=True)
    return (((a - b).abs() <= share * largest) | (a == b) | (a.isnan() & b.isnan())).all(dim=1)


@contextmanager
def _watched() -> Iterator[list[str]]:
    """Notes calls of ``torch.autograd`` while a model predicts."""
    calls: list[str] = []

    def noting(name: str) -> Any:
        original = getattr(torch.autograd, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            calls.append(name)
            return original(*args, **kwargs)

        return patch.object(torch.autograd, name, call)

    with noting("grad"), noting("backward"):
        yield calls


# -- the verdict --------------------------------------------------------------------------------------------

Verdict = Literal["believable", "doubtful", "overestimated", "not meaningful"]


def verdict(examined: Examined, meaningless: str | None) -> tuple[Verdict, str]:
    """The verdict and its sentence.

    Args:
        examined: the checks.
        meaningless: why accuracies mean nothing at all, when they do not.
    """
    if meaningless is not None:
        return "not meaningful", f"not meaningful: {meaningless}"
    if examined.failed is not None:
        return "doubtful", f"doubtful: the checks themselves failed: {examined.failed}"
    assert examined.threat is not None
    at = f"of {examined.n} samples at {examined.threat}"
    allowed = max(FURTHER_SHARE * examined.n, FURTHER)
    changing = [c for c in examined.checks if c.name == REPEATABILITY and c.status == "failed"]
    if changing:  # every other comparison is then also one of draws
        return "doubtful", f"doubtful: {changing[0].reason}"
    stronger = [c for c in examined.checks if c.beyond is not None and c.beyond > allowed]
    if stronger:
        worst = max(stronger, key=lambda c: c.beyond or 0)
        attack = f" ({worst.attack})" if worst.attack else ""
        return "overestimated", f"overestimated: {worst.name}{attack} broke {worst.beyond} more {at}"
    failed = [c for c in examined.checks if c.status == "failed"]
    if examined.n < FEWEST and not failed:
        return "doubtful", f"doubtful: {examined.n} samples are too few to tell"
    if failed:
        first, *others = failed
        also = f"; also failed: {', '.join(c.name for c in others)}" if others else ""
        return "doubtful", f"doubtful: {first.name}: {first.reason}{also}"
    what = f"{examined.held} {at} held, and no check found fault"
    if examined.depth == "quick":
        return "believable", f"believable as far as quick checks tell: {what} (--diagnose runs the others)"
    return "believable", f"believable: {what}"
