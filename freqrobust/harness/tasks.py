"""The tasks of a run: pieces of it that any process may measure, in any order.

A task is one attack with all of its eps on one block of samples; or the examples of one attack for one block, shown to
all defended models; or one certificate on one block; or one check of a defense. Its results are put into the journal, and
the report is made from the journal: it does not depend on which process measured what.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from freqrobust.core.errors import FreqRobustError
from freqrobust.core.schedule import Piece
from freqrobust.core.text import one_line
from freqrobust.core.user_code import running_user_code
from freqrobust.harness.blocks import Block
from freqrobust.harness.certify import certificate_key, certify_block
from freqrobust.harness.diagnosis.examine import Depth, checks_of, examine
from freqrobust.harness.diagnosis.findings import RunnableCheck
from freqrobust.harness.journal import Journal
from freqrobust.harness.outcome import Outcome
from freqrobust.harness.passes import passes
from freqrobust.harness.run import DefenseRun, Measured, Run, first_eps
from freqrobust.harness.run_plan import (
    VOTES,
    cell_label,
    certificate_label,
    checks_label,
    eps_of,
    sweeps,
    transfer_label,
)
from freqrobust.harness.transfer import transfer_block
from freqrobust.plugins.base import Attack
from freqrobust.plugins.certificate import Certificate
from freqrobust.plugins.selection import refusal
from freqrobust.plugins.specs import PluginSpec


@dataclass(frozen=True)
class Task:
    """A piece of a run.

    Attributes:
        label: what it is.
        work: how much is expected to be done, in forward passes of one sample.
        keys: the identities of what it puts into the journal.
        run: measures it, and puts it there.
    """

    label: str
    work: float
    keys: tuple[str, ...]
    run: Callable[[], object]

    def piece(self) -> Piece:
        """It, as progress sees it; blocks of one cell are expected to take the same time for the same work."""
        return Piece(self.label, self.work, (self.label.rpartition(", ")[0],), self.work)


def cell_tasks(
    run: Run,
    runs: Sequence[DefenseRun],
    source: DefenseRun,
    certificates: Sequence[PluginSpec[Certificate]],
    oblivious: bool,
) -> list[Task]:
    """The tasks that measure cells and certificates, the longest first; every process has the same list.

    Args:
        run: the run of one model.
        runs: its defenses.
        source: the undefended model.
        certificates: the certificates.
        oblivious: whether the examples of the undefended model are shown to the defended ones.
    """
    found = [task for one in runs for task in (*_clean(one), *_sweeps(one), *_certified(one, certificates))]
    defended = [one for one in runs if one.chain.parts]
    for plugin_spec in run.attacks if oblivious and defended else ():
        if plugin_spec.plugin.kind == "adversarial":
            found += _transferred(run, plugin_spec, source, defended)
    return sorted(found, key=lambda task: -task.work)


def _clean(one: DefenseRun) -> Iterator[Task]:
    for block in one.run.blocks(None):
        label = f"{cell_label(one.chain, None)}, {block}"
        work = len(block) * (VOTES if one.chain.stochastic else 1.0)
        yield Task(label, work, (one.key_of(None, None, block),), partial(one.block, None, block, None, None, None))


def _sweeps(one: DefenseRun) -> Iterator[Task]:
    run = one.run
    for group in sweeps(run.attacks, one.chain):
        chosen = [run.attacks[index] for index in group]
        for block in run.blocks(chosen[0]):
            keys, lower_eps = [], first_eps(group)
            for plugin_spec in chosen:
                keys.append(one.key_of(plugin_spec, lower_eps, block))
                lower_eps = [*lower_eps, eps_of(plugin_spec)] if lower_eps is not None else None
            more = f" and {len(chosen) - 1} more eps" if len(chosen) > 1 else ""
            label = f"{cell_label(one.chain, chosen[0])}{more}, {block}"
            work = sum(len(block) * passes(spec.plugin, one.chain.stochastic).work for spec in chosen)
            yield Task(label, work, tuple(keys), partial(_measure_sweep, one, group, block))


def _measure_sweep(one: DefenseRun, group: Sequence[int], block: Block) -> None:
    """All eps of an attack on one block; the failure of one keeps the others."""
    run, lower, failed = one.run, None, list[FreqRobustError]()
    lower_eps = first_eps(group)
    clean = one.clean_on(block)
    for index in group:
        plugin_spec = run.attacks[index]
        try:
            with running_user_code(plugin_spec.name):
                known = run.stored(one.key_of(plugin_spec, lower_eps, block))
                outcome: Outcome = known or one.block(plugin_spec, block, clean, lower, lower_eps)
        except FreqRobustError as error:
            failed.append(error)
            continue
        if lower_eps is not None:
            lower, lower_eps = outcome, [*lower_eps, eps_of(plugin_spec)]
    if failed:
        raise failed[0]


def _certified(one: DefenseRun, certificates: Sequence[PluginSpec[Certificate]]) -> Iterator[Task]:
    seen: set[str] = set()
    for plugin_spec in certificates:
        try:
            applies, count = refusal(plugin_spec, one.chain) is None, plugin_spec.plugin.passes()
        except FreqRobustError:  # its record says what is wrong
            continue
        for block in one.run.blocks(plugin_spec) if applies else ():
            key = certificate_key(one, plugin_spec, block)
            if key not in seen:  # a sweep over eps may be one measurement
                seen.add(key)
                label = f"{certificate_label(one.chain, plugin_spec)}, {block}"
                yield Task(label, len(block) * float(max(1, count)), (key,), partial(_certify, one, plugin_spec, block))


def _certify(one: DefenseRun, plugin_spec: PluginSpec[Certificate], block: Block) -> None:
    certify_block(one, one.clean_on(block), plugin_spec, block)


def _transferred(
    run: Run, plugin_spec: PluginSpec[Attack], source: DefenseRun, defended: Sequence[DefenseRun]
) -> Iterator[Task]:
    for block in run.blocks(plugin_spec):
        keys = tuple(one.key_of(plugin_spec, None, block, "oblivious") for one in defended)
        work = len(block) * (passes(plugin_spec.plugin, maximize=True).work + len(defended))
        label = f"{transfer_label(plugin_spec)}, {block}"
        yield Task(label, work, keys, partial(_transfer, run, plugin_spec, source, defended, block))


def _transfer(
    run: Run, plugin_spec: PluginSpec[Attack], source: DefenseRun, defended: Sequence[DefenseRun], block: Block
) -> None:
    able, failed = list[tuple[DefenseRun, Outcome]](), list[FreqRobustError]()
    for one in defended:
        try:
            with running_user_code(one.chain.name):
                one.target_model()
                able.append((one, one.clean_on(block)))
        except FreqRobustError as error:  # the other defenses' cells are kept
            failed.append(error)
    transfer_block(run, plugin_spec, source, able, block)
    if failed:
        raise failed[0]


def check_tasks(
    run: Run, runs: Sequence[DefenseRun], measured: Sequence[Measured], source: DefenseRun, depth: Depth
) -> list[Task]:
    """The tasks that check the robust accuracies, once all cells are in the journal.

    Args:
        run: the run of one model.
        runs: its defenses.
        measured: their cells.
        source: the undefended model.
        depth: of the checks.
    """
    found = []
    for one, cells in zip(runs, measured, strict=True):
        for check in checks_of(depth) if cells.error is None else ():
            about = f"check {check.name} {[plugin_spec.spec for plugin_spec, _ in cells.cells]}"
            key = run.key(one.chain, None, None, about)
            label = f"{checks_label(one.chain)}, {check.name}"
            found.append(Task(label, 1.0, (key,), partial(_check, one, cells, source, depth, check, key)))
    return found


def _check(one: DefenseRun, cells: Measured, source: DefenseRun, depth: Depth, check: RunnableCheck, key: str) -> None:
    origin = source if one.chain.parts else None
    with running_user_code(one.chain.name):
        examine(one, cells.clean, cells.cells, cells.oblivious, depth, origin, check)
    one.run.keep(one.run.checked, key, {})


def is_done(task: Task, journal: Journal, failures: Journal) -> bool:
    """Whether all that a task measures is in the journal, or it failed."""
    missing = [key for key in task.keys if not journal.has(key)]
    return not missing or any(failures.has(key) for key in task.keys)


def perform(task: Task, journal: Journal, failures: Journal) -> str | None:
    """Measure what is not in the journal yet. What failed before is tried again.

    Returns:
        Why it failed, or None.
    """
    if all(journal.has(key) for key in task.keys):
        return None
    try:
        task.run()
    except FreqRobustError as error:
        reason = one_line(error)
        for key in task.keys:
            if not journal.has(key):
                failures.store(key, {"error": reason, "task": task.label})
        return reason
    for key in task.keys:
        failures.remove(key)
    return None
