"""Sequential checks: samples in random order, and a cell is measured only until its threshold is decided.

Each look measures the next samples of a seeded permutation with :func:`freqrobust.evaluate`; the decision is that of
:mod:`freqrobust.numerics.sequential_test`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

from freqrobust.core.errors import SpecError
from freqrobust.core.progress import finish
from freqrobust.core.progress import plan as plan_progress
from freqrobust.core.schedule import Piece
from freqrobust.gate import planned
from freqrobust.gate.thresholds import Gate, Threshold, least_right, required_of, unmeasured
from freqrobust.numerics import noise
from freqrobust.numerics.sequential_test import Plan, looks_for, plan
from freqrobust.numerics.statistics import wilson
from freqrobust.plugins.selection import parse_attacks
from freqrobust.results import cell_reference
from freqrobust.results.cells import Cell, WorstCase, joined
from freqrobust.results.gate_record import GateRecord, SequentialRecord, ThresholdRow
from freqrobust.results.records import Warned
from freqrobust.results.report import Report
from freqrobust.results.summary import model_prefixes

if TYPE_CHECKING:
    from freqrobust.core.progress import Progress
    from freqrobust.data.dataset import ImageData
    from freqrobust.plugins.base import Attack
    from freqrobust.plugins.specs import DefenseChain, PluginSpec
    from freqrobust.results.cell_reference import CellReference

#: The default probability of a decision that differs from that on all samples.
ERROR_RATE = 0.05


@dataclass
class _Open:
    """One threshold on one cell, and what is known so far."""

    reference: CellReference
    required: float
    plan: Plan
    confident: bool
    right: int = 0
    seen: int = 0
    looks: int = 0
    passes: int = 0
    verdict: bool | None = None
    failure: str | None = None

    def take(self, part: Report) -> None:
        """Count one more look, and decide if that is possible."""
        measured = {reference.key: cell for reference, cell in cell_reference.referenced(part)}.get(self.key)
        if measured is None or measured.outcomes is None:
            self.verdict = False
            errors = [cell.error for cell in part.cells if cell.error]
            self.failure = getattr(measured, "error", None) or (errors[0] if errors else "it was not measured")
            return
        self.right += measured.correct
        self.seen += measured.n
        self.passes += sum(cell.forwards + cell.backwards for cell in part.cells if self._needs(cell))
        self.verdict = self.plan.decide(self.looks, self.right)
        self.looks += 1

    def _needs(self, cell: Cell) -> bool:
        if self.reference.what == "worst":
            return cell.kind == "adversarial"
        return cell_reference.reference_to_cell(cell).key == self.key

    @property
    def key(self) -> str:
        """The key of the cell in a report of its model alone."""
        return replace(self.reference, model=0).key

    def row(self, n: int, rates: tuple[float, float], prefix: str) -> ThresholdRow:
        if self.failure is not None:
            return unmeasured(self.reference, self.required, self.seen, self.failure, prefix)
        accuracy = self.right / self.seen
        samples = "" if self.seen == n else f" on {self.seen} of {n} samples"
        return ThresholdRow(
            name=prefix + self.reference.name,
            model=self.reference.model,
            passed=self.verdict,
            measured=accuracy,
            required=self.required,
            text=f"the accuracy is {accuracy:.1%}{samples}, and at least {self.required:.1%} is required of all",
            n=self.seen,
            accuracy=accuracy,
            ci95=wilson(self.right, self.seen),
            confident=self.confident,
            sequential=SequentialRecord(
                seen=self.seen,
                of=n,
                looks=self.looks,
                false_pass=rates[0],
                false_fail=rates[1],
                passes=self.passes,
                passes_all=round(self.passes * n / self.seen),
            ),
        )


@dataclass
class _Merged:
    """The cells and worst cases of all looks, by the keys of their references."""

    cells: dict[str, Cell] = field(default_factory=dict)
    worst: dict[str, WorstCase] = field(default_factory=dict)
    parts: list[Report] = field(default_factory=list)

    def add(self, part: Report, model: int, judged: Sequence[_Open]) -> None:
        """Take in one look. A worst case counts while it is judged: all of its attacks are measured then."""
        self.parts.append(part)
        worst = {one.reference.key for one in judged if one.reference.what == "worst"}
        for cell in part.cells:
            cell.model = model
            key = cell_reference.reference_to_cell(cell).key
            self.cells[key] = joined(self.cells[key], cell) if key in self.cells else cell
        for row in part.worst_case:
            row.model = model
            key = cell_reference.reference_to_worst_case(row).key
            if key in worst:
                self.worst[key] = joined(self.worst[key], row) if key in self.worst else row


def _warnings(merged: _Merged, n: int) -> list[Warned]:
    """The warnings of all looks, and how many passes were saved. A look at few samples is often near chance."""
    warnings = {}
    for part in merged.parts:
        for warning in part.warnings:
            if warning.code != "near-chance-accuracy":
                warning.model = part.cells[0].model
                warnings[warning.code, warning.message, warning.model, warning.defense] = warning
    spent = sum(cell.forwards + cell.backwards for cell in merged.cells.values())
    total = sum((cell.forwards + cell.backwards) * n / cell.n for cell in merged.cells.values())
    share = spent / total if total else 1.0
    seen = [cell.n for cell in merged.cells.values()]
    message = (
        f"measuring a cell stopped when its threshold was decided, after {min(seen)} to {max(seen)} of {n} samples: "
        f"{spent} forward and backward passes instead of about {total:.0f} ({1 - share:.0%} saved)"
    )
    return [*warnings.values(), Warned(code="sequential", message=message)]


class SequentialGate(Gate):
    """Thresholds, each measured on as many samples as its decision takes.

    Args:
        thresholds: accuracies that have to be reached.
        confident: the low end of the 95 % interval on all samples has to reach them.
        false_pass: the largest probability of passing a cell that fails on all samples.
        false_fail: the largest probability of failing a cell that passes on all samples.

    Raises:
        SpecError: there are no thresholds, or a probability is out of range.
    """

    early: ClassVar[bool] = True

    def __init__(
        self,
        thresholds: Iterable[Threshold],
        *,
        confident: bool = False,
        false_pass: float = ERROR_RATE,
        false_fail: float = ERROR_RATE,
    ) -> None:
        super().__init__(thresholds, confident=confident)
        if not self.thresholds:
            raise SpecError("a sequential check needs thresholds, but there are none")
        for name, rate in (("false-pass", false_pass), ("false-fail", false_fail)):
            if not 0 < rate < 0.5:
                raise SpecError(f"{name} should be between 0 and 0.5, but got {rate:g}")
        self.rates = (false_pass, false_fail)
        self.rows: list[ThresholdRow] = []

    def measure(self, model: Any, data: Any, **options: Any) -> Report:
        """A report of what was measured until every threshold was decided."""
        from freqrobust.harness.provenance import data_record
        from freqrobust.plugins.selection import with_undefended

        chains: Sequence[DefenseChain] = with_undefended(options.pop("defenses"), options.pop("undefended"))
        attacks: Sequence[PluginSpec[Attack]] = parse_attacks(options.pop("attacks"))
        oblivious: bool = options.pop("oblivious")
        progress: Progress = options.pop("progress")
        options["mce_reference"] = None  # means over corruptions need all samples
        options["certify"] = None  # thresholds are about attacks, and only they are decided
        options["diagnose"] = None  # checks of a part of the samples would say little about all
        plan_progress(progress, [Piece(_label(chain), len(data)) for _ in _listed(model) for chain in chains])
        known = planned.planned(chains, attacks, oblivious)
        required = required_of(self.thresholds, known)
        merged, judged = _Merged(), []
        models = _listed(model)
        for number, network in enumerate(models):
            for chain in chains:
                opened = [
                    self._open(reference, required[reference.key], len(data), number)
                    for reference in known
                    if reference.key in required and reference.defense_spec == chain.spec
                ]
                looks = _Chain(chain, attacks, oblivious and bool(chain.parts), opened)
                for part, open_ in looks.parts(network, data, progress, options):
                    merged.add(part, number, open_)
                judged += opened
                finish(progress, _label(chain))
        report = merged.parts[-1].model_copy(
            update={
                "data": data_record(data),
                "models": [
                    next(p.models[0] for p in merged.parts if p.cells[0].model == i) for i in range(len(models))
                ],
                "cells": list(merged.cells.values()),
                "worst_case": list(merged.worst.values()),
                "status": "partial" if any(c.status == "failed" for c in merged.cells.values()) else "complete",
                "warnings": _warnings(merged, len(data)),
            }
        )
        prefixes = model_prefixes(report)
        self.rows = [one.row(len(data), self.rates, prefixes[one.reference.model]) for one in judged]
        return report

    def _open(self, reference: CellReference, required: float, n: int, model: int) -> _Open:
        need = least_right(required, n, self.confident)
        return _Open(replace(reference, model=model), required, plan(n, need, *self.rates), self.confident)

    def judge(self, report: Report) -> GateRecord:
        """The verdicts reached while measuring."""
        record = GateRecord(passed=all(row.passed for row in self.rows), thresholds=self.rows)
        report.gate = record
        return record


def _listed(model: Any) -> list[Any]:
    return list(model) if isinstance(model, list | tuple) else [model]


def _label(chain: DefenseChain) -> str:
    return f"{chain.spec}, in random order"


@dataclass
class _Chain:
    """One defense, while it has open thresholds."""

    chain: DefenseChain
    attacks: Sequence[PluginSpec[Attack]]
    oblivious: bool
    opened: list[_Open]

    def parts(
        self, network: Any, data: ImageData, progress: Progress, options: dict[str, Any]
    ) -> Iterator[tuple[Report, list[_Open]]]:
        """Reports on the next samples of a random order, each with the thresholds that were open before it."""
        from freqrobust.harness.evaluate import evaluate

        if not self.opened:
            return
        order = noise.permutation(len(data), seed=options["seed"], stream="sequential")
        done = 0
        progress.begin(_label(self.chain), len(data))
        for look in looks_for(len(data)):
            open_ = [one for one in self.opened if one.verdict is None]
            part = evaluate(
                network,
                data.take(order[done:look].sort().values),
                attacks=self.needed(open_) or ["clean"],
                defenses=[self.chain],
                undefended=False,
                oblivious=self.needs_oblivious(open_),
                **{**options, "examples": 0},
            )
            progress.advance(look - done)
            done = look
            for one in open_:
                one.take(part)
            yield part, open_
            if all(one.verdict is not None for one in self.opened):
                break
        progress.end(f"{self.chain.spec}: decided after {done} of {len(data)} samples")

    def needed(self, opened: Sequence[_Open]) -> list[PluginSpec[Attack]]:
        """The attacks that the open thresholds are about, each with the smaller eps of its sweep."""
        references = [planned.reference_to_pair(self.chain, attack) for attack in self.attacks]
        wanted: set[int] = set()
        for one in opened:
            adaptive = replace(one.reference, model=0, knowledge="adaptive").key
            for index, reference in enumerate(references):
                if one.reference.what == "worst":
                    if planned.is_adversarial(self.attacks[index]):
                        wanted.add(index)
                elif reference.key == adaptive:
                    wanted |= {index, *_smaller(references, index)}
        return [self.attacks[index] for index in sorted(wanted)]

    def needs_oblivious(self, opened: Sequence[_Open]) -> bool:
        """Whether an open threshold is also about examples made on the undefended model."""
        asked = [one.reference for one in opened]
        return any(r.knowledge == "oblivious" or (r.what == "worst" and self.oblivious) for r in asked)


def _smaller(references: Sequence[CellReference], index: int) -> list[int]:
    """The smaller eps of the sweep that an attack belongs to: it inherits their adversarial examples."""
    own = references[index].threat
    if own is None:
        return []
    sweep = cell_reference.reference_to_sweep(references[index]).key
    return [
        i
        for i, other in enumerate(references)
        if other.threat is not None
        and other.threat.eps < own.eps
        and cell_reference.reference_to_sweep(other).key == sweep
    ]
