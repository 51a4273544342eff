"""Showing the examples of the undefended model to the defended ones: the oblivious cells."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from freqrobust.core.errors import FreqRobustError, ImageFileError
from freqrobust.core.progress import fail, finish, skip
from freqrobust.core.text import one_line
from freqrobust.core.user_code import running_user_code
from freqrobust.harness.blocks import Block
from freqrobust.harness.cell import concluded, measure_transfer
from freqrobust.harness.outcome import Outcome
from freqrobust.harness.run import DefenseRun, Measured, Run
from freqrobust.harness.run_plan import transfer_label
from freqrobust.plugins.base import Attack
from freqrobust.plugins.specs import PluginSpec


def transfer(
    run: Run, plugin_spec: PluginSpec[Attack], source: DefenseRun, targets: Sequence[tuple[DefenseRun, Measured]]
) -> None:
    """Show examples made on the undefended model to the defended ones."""
    label = transfer_label(plugin_spec)
    able: list[tuple[DefenseRun, Measured]] = []
    for one, measured in targets:
        try:
            if not one.has_transferred(plugin_spec):
                with running_user_code(one.chain.name):
                    one.target_model()
            able.append((one, measured))
        except ImageFileError:
            raise
        except FreqRobustError as error:  # the other defenses' cells are kept
            measured.oblivious.append((plugin_spec, one_line(error)))
    try:
        parts = _transferred(run, plugin_spec, source, [(one, measured.clean) for one, measured in able])
    except ImageFileError:
        raise
    except FreqRobustError as error:  # the other cells are kept
        reason = one_line(error)
        fail(run.progress, f"{label}: failed: {reason}")
        for _, measured in able:
            measured.oblivious.append((plugin_spec, reason))
        return
    finally:
        finish(run.progress, label)
    shown = []
    for (one, measured), found in zip(able, parts, strict=True):
        outcome = concluded(Outcome.joined(found), plugin_spec, transferred=True)
        measured.oblivious.append((plugin_spec, outcome))
        shown.append(f"{one.chain.spec} {outcome.right.mean():.1%}")
    run.progress.end(f"{label}: {', '.join(shown)}")


def _transferred(
    run: Run, plugin_spec: PluginSpec[Attack], source: DefenseRun, targets: Sequence[tuple[DefenseRun, Outcome]]
) -> list[list[Outcome]]:
    """The outcomes of all blocks, for each of the models that examples are shown to."""
    every = run.blocks(plugin_spec)
    if any(not one.has_transferred(plugin_spec) for one, _ in targets):
        run.check_failure([one.key_of(plugin_spec, None, block, "oblivious") for one, _ in targets for block in every])
        source.target_model()
        run.progress.begin(transfer_label(plugin_spec), len(run.data))
    parts = [
        transfer_block(
            run, plugin_spec, source, [(one, clean.part(block.start, block.stop)) for one, clean in targets], block
        )
        for block in every
    ]
    return [list(found) for found in zip(*parts, strict=True)] if targets else []


def transfer_block(
    run: Run,
    plugin_spec: PluginSpec[Attack],
    source: DefenseRun,
    targets: Sequence[tuple[DefenseRun, Outcome]],
    block: Block,
) -> list[Outcome]:
    """Show the examples of one block to the defended models.

    Args:
        plugin_spec: the attack.
        source: the undefended model.
        targets: the defended models, each with its clean pass on the block.
        block: the samples.

    Raises:
        FreqRobustError: the attack or a model failed.
    """
    keys = [one.key_of(plugin_spec, None, block, "oblivious") for one, _ in targets]
    found = [run.stored(key) for key in keys]
    missing = [index for index, outcome in enumerate(found) if outcome is None]
    if not missing:
        skip(run.progress, len(block))
        return [outcome for outcome in found if outcome is not None]
    with running_user_code(plugin_spec.name):
        outcomes = measure_transfer(
            plugin_spec,
            source.target_model(),
            source.batches.part(block),
            [(targets[index][0].target_model(), targets[index][1]) for index in missing],
            run.seed,
            right=np.any([clean.right for _, clean in targets], axis=0),
        )
    for index, outcome in zip(missing, outcomes, strict=True):
        run.keep(run.journal, keys[index], outcome.to_piece())
        found[index] = outcome
    return [outcome for outcome in found if outcome is not None]
