"""The tasks of a run: pieces of it that any process may measure, in any order.

A task is one attack with all of its eps on one block of samples; or the examples of one attack for one block, shown to
all defended models; or one certificate on one block; or one check of a defense. Its results are put into the journal, and
the report is made from the journal: it does not depend on which process measured what.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from freqrobust.core.errors import FreqRobustError, ImageFileError, JournalError
from freqrobust.core.files import identity
from freqrobust.core.progress import Progress, fail, finish
from freqrobust.core.schedule import Piece
from freqrobust.core.text import one_line
from freqrobust.core.user_code import running_user_code
from freqrobust.harness.blocks import Block
from freqrobust.harness.cell import EOT
from freqrobust.harness.certify import certificate_key, certify_block
from freqrobust.harness.diagnosis.examine import SAMPLES, SAMPLES_STOCHASTIC, Depth, examine, units_of
from freqrobust.harness.diagnosis.full_check import FullCheck
from freqrobust.harness.journal import Journal, Pieces
from freqrobust.harness.outcome import Outcome
from freqrobust.harness.run import DefenseRun, Measured, Run
from freqrobust.harness.run_plan import (
    cell_label,
    certificate_label,
    checks_label,
    eps_of,
    pieces,
    sweeps,
    transfer_label,
)
from freqrobust.harness.sweep import beginning
from freqrobust.harness.transfer import transfer_block
from freqrobust.plugins.base import Attack
from freqrobust.plugins.certificate import Certificate
from freqrobust.plugins.specs import PluginSpec
from freqrobust.results.outcomes import pack


@dataclass(frozen=True)
class Task:
    """A piece of a run.

    Attributes:
        label: what it is.
        work: how much is expected to be done, in forward passes of one sample.
        keys: the identities of what it puts into the journal.
        run: measures it, and puts it there; returns why some of it failed, by identity.
    """

    label: str
    work: float
    keys: tuple[str, ...]
    run: Callable[[], Mapping[str, str]]

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
    n = len(run.data)
    planned = pieces([one.chain for one in runs], run.attacks, n, oblivious=oblivious, certificates=certificates)
    work = {piece.label: piece.work / n for piece in planned}
    found = [
        task for one in runs for task in (*_clean(one, work), *_sweeps(one, work), *_certified(one, certificates, work))
    ]
    defended = [one for one in runs if one.chain.parts]
    for plugin_spec in run.attacks if oblivious and defended else ():
        if plugin_spec.plugin.kind == "adversarial":
            found += _transferred(run, plugin_spec, source, defended, work)
    return sorted(found, key=lambda task: -task.work)


def _clean(one: DefenseRun, work: Mapping[str, float]) -> Iterator[Task]:
    for block in one.run.blocks(None):
        label = cell_label(one.chain, None)
        key = one.key_of(None, None, block)
        yield Task(f"{label}, {block}", len(block) * work[label], (key,), partial(_measure_clean, one, block))


def _measure_clean(one: DefenseRun, block: Block) -> Mapping[str, str]:
    with running_user_code(one.chain.name):
        one.clean_on(block)
    return {}


def _sweeps(one: DefenseRun, work: Mapping[str, float]) -> Iterator[Task]:
    run = one.run
    for group in sweeps(run.attacks, one.chain):
        chosen = [run.attacks[index] for index in group]
        for block in run.blocks(chosen[0]):
            keys, lower_eps = [], beginning(group).eps
            for plugin_spec in chosen:
                keys.append(one.key_of(plugin_spec, lower_eps, block))
                lower_eps = [*lower_eps, eps_of(plugin_spec)] if lower_eps is not None else None
            more = f" and {len(chosen) - 1} more eps" if len(chosen) > 1 else ""
            label = f"{cell_label(one.chain, chosen[0])}{more}, {block}"
            yield Task(
                label,
                len(block) * sum(work[cell_label(one.chain, plugin_spec)] for plugin_spec in chosen),
                tuple(keys),
                partial(_measure_sweep, one, group, block),
            )


def _measure_sweep(one: DefenseRun, group: Sequence[int], block: Block) -> Mapping[str, str]:
    """All eps of an attack on one block; the failure of one keeps the others."""
    run, smaller = one.run, beginning(group)
    with running_user_code(one.chain.name):
        clean = one.clean_on(block)
    failed = {}
    for index in group:
        plugin_spec = run.attacks[index]
        key = one.key_of(plugin_spec, smaller.eps, block)
        try:
            with running_user_code(plugin_spec.name):
                outcome: Outcome = run.stored(key) or one.block(plugin_spec, block, clean, smaller.outcome, smaller.eps)
        except ImageFileError:  # the data of all cells
            raise
        except FreqRobustError as error:
            failed[key] = one_line(error)
            continue
        smaller.add(plugin_spec, outcome)
    return failed


def _certified(
    one: DefenseRun, certificates: Sequence[PluginSpec[Certificate]], work: Mapping[str, float]
) -> Iterator[Task]:
    seen: set[str] = set()
    for plugin_spec in certificates:
        label = certificate_label(one.chain, plugin_spec)
        for block in one.run.blocks(plugin_spec) if label in work else ():  # it applies
            key = certificate_key(one, plugin_spec, block)
            if key not in seen:  # a sweep over eps may be one measurement
                seen.add(key)
                certify = partial(_certify, one, plugin_spec, block)
                yield Task(f"{label}, {block}", len(block) * work[label], (key,), certify)


def _certify(one: DefenseRun, plugin_spec: PluginSpec[Certificate], block: Block) -> Mapping[str, str]:
    with running_user_code(one.chain.name):
        clean = one.clean_on(block)
    certify_block(one, clean, plugin_spec, block)
    return {}


def _transferred(
    run: Run,
    plugin_spec: PluginSpec[Attack],
    source: DefenseRun,
    defended: Sequence[DefenseRun],
    work: Mapping[str, float],
) -> Iterator[Task]:
    label = transfer_label(plugin_spec)
    for block in run.blocks(plugin_spec):
        keys = tuple(one.key_of(plugin_spec, None, block, "oblivious") for one in defended)
        show = partial(_transfer, run, plugin_spec, source, defended, block)
        yield Task(f"{label}, {block}", len(block) * work[label], keys, show)


def _transfer(
    run: Run, plugin_spec: PluginSpec[Attack], source: DefenseRun, defended: Sequence[DefenseRun], block: Block
) -> Mapping[str, str]:
    able, failed = list[tuple[DefenseRun, Outcome]](), dict[str, str]()
    for one in defended:
        try:
            with running_user_code(one.chain.name):
                one.target_model()
                able.append((one, one.clean_on(block)))
        except ImageFileError:  # the data of all cells
            raise
        except FreqRobustError as error:  # the other defenses' cells are kept
            failed[one.key_of(plugin_spec, None, block, "oblivious")] = one_line(error)
    try:
        transfer_block(run, plugin_spec, source, able, block)
    except ImageFileError:  # the data of all cells
        raise
    except FreqRobustError as error:
        reason = one_line(error)
        failed |= {one.key_of(plugin_spec, None, block, "oblivious"): reason for one, _ in able}
    return failed


def check_tasks(
    run: Run, runs: Sequence[DefenseRun], measured: Sequence[Measured], source: DefenseRun, depth: Depth, first: bool
) -> list[Task]:
    """The tasks that check the robust accuracies, once all cells are in the journal; the longest first.

    Args:
        run: the run of one model.
        runs: its defenses.
        measured: their cells.
        source: the undefended model.
        depth: of the checks.
        first: the checks that measure what the others use, or those others, once the first ones are done.
    """
    found = []
    for one, cells in zip(runs, measured, strict=True):
        outcomes = [outcome for _, outcome in (*cells.cells, *cells.oblivious)]
        about = [outcome if isinstance(outcome, str) else pack(outcome.right) for outcome in outcomes]
        samples = min(len(run.data), SAMPLES_STOCHASTIC if one.chain.stochastic else SAMPLES)
        draws = EOT if one.chain.stochastic else 1
        for checks in units_of(depth, first) if cells.error is None else ():
            names = [check.name for check in checks]
            key = run.key(one.chain, None, None, f"checks {identity([names, about])}")
            work = samples * draws * max(check.passes(one.chain.stochastic) for check in checks)
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            make = partial(_check, one, cells, source, depth, checks, key)
            found.append(Task(f"{checks_label(one.chain)}, {names[0]}{more}", work, (key,), make))
    return sorted(found, key=lambda task: -task.work)


def _check(
    one: DefenseRun, cells: Measured, source: DefenseRun, depth: Depth, checks: Sequence[FullCheck], key: str
) -> Mapping[str, str]:
    origin = source if one.chain.parts else None
    with running_user_code(one.chain.name):
        examine(one, cells.clean, cells.cells, cells.oblivious, depth, origin, checks)
    one.run.keep(one.run.checked, key, {})
    return {}


def is_done(task: Task, journal: Pieces, failures: Pieces) -> bool:
    """Whether all that a task measures is in the journal, or it failed."""
    missing = [key for key in task.keys if not journal.has(key)]
    return not missing or any(failures.has(key) for key in missing)


def perform(task: Task, journal: Journal, failures: Journal) -> str | None:
    """Measure what is not in the journal yet. What failed before is tried again.

    Returns:
        Why it failed, or None.
    """
    if all(journal.has(key) for key in task.keys):
        return None
    try:
        failed = task.run()
    except ImageFileError:  # the data of all cells
        raise
    except FreqRobustError as error:
        failed = {key: one_line(error) for key in task.keys if not journal.has(key)}
    for key in task.keys:
        if key not in failed:
            failures.remove(key)
    for key, reason in failed.items():
        with suppress(JournalError):  # a full disk: the process that makes the report tries again
            failures.store(key, {"error": reason, "task": task.label})
    return next(iter(failed.values()), None)


def performed(task: Task, journal: Journal, failures: Journal, progress: Progress) -> str | None:
    """Perform a task, and tell ``progress``; why it failed, or None."""
    progress.begin(task.label, 0)
    reason = perform(task, journal, failures)
    if reason is None:
        progress.end(task.label)
    else:
        fail(progress, f"{task.label}: failed: {reason}")
    finish(progress, task.label)
    return reason
