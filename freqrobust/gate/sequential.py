"""Judging thresholds early: samples in random order, cells stopped as soon as their threshold is decided.

Each look measures the next samples of a seeded permutation through the ordinary :func:`freqrobust.evaluate`; the
decision is that of :mod:`freqrobust.numerics.sequential_test`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

from freqrobust.core.errors import SpecError
from freqrobust.gate import planned
from freqrobust.gate.thresholds import Gate, Threshold, least_right, required_of
from freqrobust.numerics import noise
from freqrobust.numerics.sequential_test import Plan, looks_for, plan
from freqrobust.numerics.statistics import wilson
from freqrobust.plugins.selection import parse_attacks
from freqrobust.results import cell_reference
from freqrobust.results.cells import Cell, WorstCase, joined
from freqrobust.results.gate_record import GateRecord, SequentialRecord, ThresholdRow
from freqrobust.results.records import Warned
from freqrobust.results.report import Report
from freqrobust.results.summary import model_labels

if TYPE_CHECKING:
    from freqrobust.core.progress import Progress
    from freqrobust.data.dataset import ImageData
    from freqrobust.gate.planned import Target
    from freqrobust.plugins.base import Attack
    from freqrobust.plugins.specs import DefenseChain, PluginSpec

#: The default chances of deciding otherwise than all samples would.
ERROR_RATE = 0.05


@dataclass
class _Open:
    """One threshold on one cell, and what is known so far."""

    target: Target
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
        """One more look."""
        found = {cell_reference.of_cell(c).key: c for c in part.cells} | {
            cell_reference.of_worst(w).key: w for w in part.worst_case
        }
        one = found.get(self.key)
        if one is None or one.outcomes is None:
            self.verdict = False
            failed = [cell.error for cell in part.cells if cell.error]
            self.failure = getattr(one, "error", None) or (failed[0] if failed else "it was not measured")
            return
        self.right += one.correct
        self.seen += one.n
        self.passes += sum(cell.forwards + cell.backwards for cell in part.cells if self._needs(cell))
        self.verdict = self.plan.decide(self.looks, self.right)
        self.looks += 1

    def _needs(self, cell: Cell) -> bool:
        if self.target.what == "worst":
            return cell.kind == "adversarial"
        return cell_reference.of_cell(cell).key == self.key

    @property
    def key(self) -> str:
        """The key of the target in a report of its model alone."""
        return replace(self.target, model=0).key

    def row(self, n: int, rates: tuple[float, float], label: str) -> ThresholdRow:
        name = f"{label}: {self.target.name}" if label else self.target.name
        if self.failure is not None:
            text = f"could not be measured: {self.failure}"
            return ThresholdRow(name=name, passed=False, required=self.required, text=text, n=self.seen)
        accuracy = self.right / self.seen
        reached = "reached" if self.verdict else "not reached"
        surely = "" if self.seen == n else f" (wrong in at most {100 * rates[0 if self.verdict else 1]:g} % of orders)"
        return ThresholdRow(
            name=name,
            model=self.target.model,
            passed=self.verdict,
            measured=accuracy,
            required=self.required,
            text=f"{accuracy:.1%} of {self.seen} samples; required {self.required:.1%} of {n}: {reached}{surely}",
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
    """The cells and worst cases of all looks, by target."""

    cells: dict[str, Cell] = field(default_factory=dict)
    worst: dict[str, WorstCase] = field(default_factory=dict)
    parts: list[Report] = field(default_factory=list)

    def add(self, part: Report, model: int, judged: Sequence[_Open]) -> None:
        """Take in one look. A worst case counts while it is judged: all of its attacks are measured then."""
        self.parts.append(part)
        worst = {one.target.key for one in judged if one.target.what == "worst"}
        for cell in part.cells:
            cell.model = model
            key = cell_reference.of_cell(cell).key
            self.cells[key] = joined(self.cells[key], cell) if key in self.cells else cell
        for row in part.worst_case:
            row.model = model
            key = cell_reference.of_worst(row).key
            if key in worst:
                self.worst[key] = joined(self.worst[key], row) if key in self.worst else row


def _warnings(merged: _Merged, n: int) -> list[Warned]:
    """The warnings of all looks, and what was saved; looks at few samples are often near chance."""
    found = {}
    for part in merged.parts:
        for one in part.warnings:
            if one.code != "near-chance-accuracy":
                one.model = part.cells[0].model
                found[one.code, one.message, one.model, one.defense] = one
    spent = sum(cell.forwards + cell.backwards for cell in merged.cells.values())
    whole = sum((cell.forwards + cell.backwards) * n / cell.n for cell in merged.cells.values())
    share = spent / whole if whole else 1.0
    seen = [cell.n for cell in merged.cells.values()]
    message = (
        f"cells were stopped when their threshold was decided, after {min(seen)} to {max(seen)} of {n} samples: {spent} "
        f"forward and backward passes instead of about {whole:.0f} ({1 - share:.0%} saved)"
    )
    return [*found.values(), Warned(code="sequential", message=message)]


class SequentialGate(Gate):
    """Thresholds, each measured on as many samples as its decision takes.

    Args:
        thresholds: accuracies that have to be reached.
        confident: the low end of the interval that all samples would have has to reach them.
        false_pass: chance, at most, of passing a cell that all samples would fail.
        false_fail: chance, at most, of failing a cell that all samples would pass.

    Raises:
        SpecError: no thresholds, or chances out of range.
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
            raise SpecError("a sequential check decides thresholds, and there are none")
        for name, rate in (("false-pass", false_pass), ("false-fail", false_fail)):
            if not 0 < rate < 0.5:
                raise SpecError(f"{name} should be between 0 and 0.5, but got {rate:g}")
        self.rates = (false_pass, false_fail)
        self.rows: list[ThresholdRow] = []

    def measure(self, model: Any, data: Any, **options: Any) -> Report:
        """A report of what was measured until everything was decided."""
        from freqrobust.harness.provenance import data_record
        from freqrobust.plugins.selection import with_undefended

        chains: Sequence[DefenseChain] = with_undefended(options.pop("defenses"), options.pop("undefended"))
        attacks: Sequence[PluginSpec[Attack]] = parse_attacks(options.pop("attacks"))
        oblivious: bool = options.pop("oblivious")
        watch: Progress = options.pop("progress")
        options["mce_reference"] = None  # means over corruptions need all samples
        options["diagnose"] = None  # a check of a part would say little of the whole
        known = planned.planned(chains, attacks, oblivious)
        required = required_of(self.thresholds, known)
        merged, judged = _Merged(), []
        models = list(model) if isinstance(model, list | tuple) else [model]
        for number, network in enumerate(models):
            for chain in chains:
                mine = [t for t in known if t.key in required and t.defense_spec == chain.spec]
                opened = [self._open(t, required[t.key], len(data), number) for t in mine]
                one = _Chain(chain, attacks, oblivious and bool(chain.parts), opened)
                for part, open_ in one.parts(network, data, watch, options):
                    merged.add(part, number, open_)
                judged += opened
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
        labels = model_labels(report) if len(models) > 1 else [""]
        self.rows = [one.row(len(data), self.rates, labels[one.target.model]) for one in judged]
        return report

    def _open(self, target: Target, required: float, n: int, model: int) -> _Open:
        need = least_right(required, n, self.confident)
        return _Open(replace(target, model=model), required, plan(n, need, *self.rates), self.confident)

    def judge(self, report: Report) -> GateRecord:
        """The verdicts reached while measuring."""
        record = GateRecord(passed=all(row.passed for row in self.rows), thresholds=self.rows)
        report.gate = record
        self.report = report
        return record


@dataclass
class _Chain:
    """One defense, while it has open thresholds."""

    chain: DefenseChain
    attacks: Sequence[PluginSpec[Attack]]
    oblivious: bool
    opened: list[_Open]

    def parts(
        self, network: Any, data: ImageData, watch: Progress, options: dict[str, Any]
    ) -> Iterator[tuple[Report, list[_Open]]]:
        """Reports on the next samples of a random order, each with the thresholds that were open before it."""
        from freqrobust.harness.evaluate import evaluate

        if not self.opened:
            return
        order = noise.permutation(len(data), seed=options["seed"], stream="sequential")
        done = 0
        watch.begin(f"{self.chain.spec}, in random order", len(data))
        for look in looks_for(len(data)):
            open_ = [one for one in self.opened if one.verdict is None]
            part = evaluate(
                network,
                data.take(order[done:look].sort().values),
                attacks=self.needed(open_) or ["clean"],
                defenses=[self.chain],
                undefended=False,
                oblivious=self.oblivious_needed(open_),
                **options,
            )
            watch.advance(look - done)
            done = look
            for one in open_:
                one.take(part)
            yield part, open_
            if all(one.verdict is not None for one in self.opened):
                break
        watch.end(f"{self.chain.spec}: decided after {done} of {len(data)} samples")

    def needed(self, opened: Sequence[_Open]) -> list[PluginSpec[Attack]]:
        """The attacks whose outcomes the open thresholds are about, each with the smaller eps of its sweep."""
        names = [planned.of_pair(self.chain, one) for one in self.attacks]
        wanted: set[int] = set()
        for one in opened:
            for index, name in enumerate(names):
                if one.target.what == "worst":
                    if planned.is_adversarial(self.attacks[index]):
                        wanted.add(index)
                elif name.key == replace(one.target, model=0, knowledge="adaptive").key:
                    wanted |= {index, *_smaller(names, index)}
        return [self.attacks[index] for index in sorted(wanted)]

    def oblivious_needed(self, opened: Sequence[_Open]) -> bool:
        """Whether an open threshold is also about examples made on the undefended model."""
        asked = [one.target for one in opened]
        return any(t.knowledge == "oblivious" or (t.what == "worst" and self.oblivious) for t in asked)


def _smaller(names: Sequence[Target], index: int) -> list[int]:
    """The smaller eps of the sweep that an attack belongs to: it inherits their examples."""
    mine = names[index]
    if mine.threat is None:
        return []
    sweep = cell_reference.sweep_of(mine).key
    return [
        i
        for i, other in enumerate(names)
        if other.threat is not None and other.threat[1] < mine.threat[1] and cell_reference.sweep_of(other).key == sweep
    ]
