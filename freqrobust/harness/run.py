"""Measuring all cells of one run, defense by defense, through the journal."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from freqrobust.core.errors import FreqRobustError, ImageFileError, JournalError, PluginError, SharingError
from freqrobust.core.files import alone, identity
from freqrobust.core.progress import Progress, fail, finish, skip
from freqrobust.core.source_hash import code_hash
from freqrobust.core.text import one_line
from freqrobust.core.user_code import running_user_code
from freqrobust.core.version import __version__
from freqrobust.data.dataset import ImageData
from freqrobust.harness.batches import Batches
from freqrobust.harness.blocks import Block, blocks
from freqrobust.harness.cell import concluded, keeps_signs, measure, measure_clean
from freqrobust.harness.compilation import Compilation
from freqrobust.harness.defend import defend_copy
from freqrobust.harness.journal import Journal
from freqrobust.harness.outcome import Outcome
from freqrobust.harness.run_plan import CLEAN, VOTES, cell_label, sweeps
from freqrobust.harness.sweep import Smaller, beginning
from freqrobust.harness.target_model import TargetModel
from freqrobust.models.class_subset import restricted
from freqrobust.models.classifier import set_eval
from freqrobust.models.fingerprint import fingerprint
from freqrobust.plugins.base import Attack
from freqrobust.plugins.context import DefenseContext
from freqrobust.plugins.criterion import Criterion
from freqrobust.plugins.specs import DefenseChain, PluginSpec
from freqrobust.results.records import Precision, Warned

#: The code that every number of a cell depends on, whatever the plugin; what it imports counts as well.
ENGINE = ("freqrobust.harness.run", "freqrobust.harness.transfer", "freqrobust.harness.diagnosis.examine")


@cache
def engine_hash() -> str:
    """Hash of the code that measures, a part of the identity of every cell; in one process it does not change."""
    return code_hash(ENGINE)


@dataclass
class Measured:
    """The cells of one defense."""

    chain: DefenseChain
    clean: Outcome
    cells: list[tuple[PluginSpec[Attack], Outcome | str]] = field(default_factory=list)  # a string says why it failed
    error: str | None = None
    oblivious: list[tuple[PluginSpec[Attack], Outcome | str]] = field(default_factory=list)


@dataclass
class Run:
    """Everything that stays the same from one defense to the next."""

    network: nn.Module
    data: ImageData
    training: ImageData | None
    attacks: list[PluginSpec[Attack]]
    device: torch.device
    precision: Precision
    seed: int
    batch_size: int
    adaptive: bool
    journal: Journal
    checked: Journal  # what a diagnosis found
    failures: Journal  # why the tasks of several processes failed
    cache_dir: Path | None
    progress: Progress
    criterion: PluginSpec[Criterion]
    warnings: list[Warned] = field(default_factory=list)  # about the model
    shared: bool = False  # several processes measure it: a task that failed is not tried again by another one
    kind: str = ""  # of the device that its results were measured on, where that is another one
    compilation: Compilation = field(default_factory=Compilation)

    def __post_init__(self) -> None:
        self.kind = self.kind or self.device.type
        self.model_print = fingerprint(self.network)
        self.engine = engine_hash()

    def key(
        self,
        chain: DefenseChain,
        plugin_spec: PluginSpec[Attack] | None,
        lower: list[float] | None,
        purpose: str = "adaptive",
        block: Block | None = None,
    ) -> str:
        """The identity of a cell, or of one of its blocks: all that its numbers depend on; ``lower`` is its place in a
        sweep."""
        needs_training = any(defense.needs_train_data for defense in chain.defenses)
        attack = plugin_spec.plugin if plugin_spec is not None else None
        fixed_batch = isinstance(attack, Attack) and not attack.batch_invariant
        checks = attack is None and purpose not in ("adaptive", "certificate")
        differentiates = checks or getattr(attack, "kind", "") == "adversarial"
        return identity(
            {
                "version": [__version__, self.engine, torch.__version__],
                "model": self.model_print,
                "defense": [[part.name, part.params, part.code] for part in chain.parts],
                "train_data": self.training.sha256 if needs_training and self.training is not None else None,
                "data": self.data.sha256,
                "attack": [plugin_spec.name, plugin_spec.params, plugin_spec.code]
                if plugin_spec is not None
                else CLEAN,
                "criterion": [self.criterion.name, self.criterion.params, self.criterion.code],
                "lower_eps": lower,
                "purpose": purpose,
                "block": [block.start, block.stop] if block is not None else None,
                "seed": self.seed,
                "precision": self.precision,
                "compiled": differentiates and self.compiled() and self.compilation.mode,
                "device": self.kind,
                "batch_size": self.batch_size if fixed_batch else None,
                "votes": VOTES if chain.stochastic else 1,
            }
        )

    def compiled(self) -> bool:
        """Whether attacks differentiate compiled copies of the models, as far as they can be compiled."""
        return self.compilation.decided(self.network, self.model_print, self.data, self.batch_size)

    def keep(self, journal: Journal, key: str, piece: dict[str, Any]) -> None:
        """Put a piece on disk; a full disk takes nothing from what was measured."""
        try:
            journal.store(key, piece)
        except JournalError as error:
            self.progress.say(f"warning: {error}")

    def blocks(self, plugin_spec: PluginSpec[Any] | None) -> list[Block]:
        """The blocks of samples in which an attack, a certificate or the clean pass is measured."""
        plugin = plugin_spec.plugin if plugin_spec is not None else None
        return blocks(len(self.data), self.kind, plugin, self.batch_size)

    def stored(self, key: str) -> Outcome | None:
        """A block from the journal."""
        piece = self.journal.load(key)
        return Outcome.from_piece(piece) if piece is not None else None

    def failure(self, key: str) -> str | None:
        """Why a piece failed in another one of several processes, which is not repeated; None where it did not."""
        known = self.failures.load(key) if self.shared else None
        return str(known["error"]) if known is not None else None

    def check_failure(self, keys: Sequence[str]) -> None:
        """Where several processes measure, refuse to repeat what failed in one of them.

        Raises:
            PluginError: it failed; with its reason.
        """
        for key in keys:
            reason = self.failure(key)
            if reason is not None:
                raise PluginError(reason)


class DefenseRun:
    """One defense: made when the first cell needs it, as finished cells come from the journal."""

    def __init__(self, run: Run, chain: DefenseChain) -> None:
        self.run = run
        self.chain = chain
        self._target_model: TargetModel | None = None
        self.batches = Batches(run.data, run.device, run.batch_size, run.adaptive, run.progress)
        self._expanded: dict[int, Batches] = {}

    def expanded(self, expansion: int) -> Batches:
        """The samples in batches for what passes so many images for each; when out of memory, smaller for all blocks."""
        if expansion not in self._expanded:
            run, size = self.run, max(1, self.batches.batch_size // expansion)
            self._expanded[expansion] = Batches(run.data, run.device, size, run.adaptive, run.progress)
        return self._expanded[expansion]

    def measure(self) -> Measured:
        run = self.run
        n = len(run.data)
        try:
            with running_user_code(self.chain.name):
                clean = self.cell(None)
        except ImageFileError:
            raise
        except FreqRobustError as error:  # whatever a defense does, the other cells are kept
            nothing = Outcome(np.zeros(n, dtype=bool), np.zeros(n, dtype=np.int32))
            reason = one_line(error)
            fail(run.progress, f"{self.chain.spec}: failed: {reason}")
            for plugin_spec in [None, *run.attacks]:
                finish(run.progress, cell_label(self.chain, plugin_spec))
            return Measured(self.chain, nothing, [(s, reason) for s in run.attacks], reason)
        finish(run.progress, cell_label(self.chain, None))
        found: dict[int, Outcome | str] = {}
        for group in sweeps(run.attacks, self.chain):
            smaller = [beginning(group) for _ in run.blocks(run.attacks[group[0]])]
            for index in group:
                found[index] = self.attacked(run.attacks[index], clean, smaller)
            for one in smaller:
                one.forget_signs()
        return Measured(self.chain, clean, [(s, found[i]) for i, s in enumerate(run.attacks)])

    def forget(self) -> None:
        """Release the model."""
        self._target_model = None

    def attacked(self, plugin_spec: PluginSpec[Attack], clean: Outcome, smaller: Sequence[Smaller]) -> Outcome | str:
        try:
            with running_user_code(plugin_spec.name):
                return self.cell(plugin_spec, clean, smaller)
        except ImageFileError:
            raise
        except FreqRobustError as error:  # whatever a plugin does, the other cells are kept
            reason = one_line(error)
            fail(self.run.progress, f"{cell_label(self.chain, plugin_spec)}: failed: {reason}")
            return reason
        finally:
            finish(self.run.progress, cell_label(self.chain, plugin_spec))

    def cell(
        self,
        plugin_spec: PluginSpec[Attack] | None,
        clean: Outcome | None = None,
        smaller: Sequence[Smaller] | None = None,
    ) -> Outcome:
        """The blocks of a cell, from the journal, or measured and put there; joined.

        A block that fails ends the cell, but inside of a sweep the others are measured all the same: larger eps begin from
        them, whichever process measures these.

        Args:
            plugin_spec: the attack or shift; None stands for the clean pass.
            clean: the clean pass; the clean pass itself does without it.
            smaller: of each block, the smaller eps of the sweep, to which this one is added.
        """
        run, label = self.run, cell_label(self.chain, plugin_spec)
        every = run.blocks(plugin_spec)
        smaller = [Smaller() for _ in every] if smaller is None else smaller
        keys = [self.key_of(plugin_spec, below.eps, block) for block, below in zip(every, smaller, strict=True)]
        known = [run.stored(key) for key in keys]
        failed = [None if outcome is not None else run.failure(key) for key, outcome in zip(keys, known, strict=True)]
        reasons = [reason for reason in failed if reason is not None]
        sweeping = any(below.eps is not None for below in smaller)
        if reasons and not sweeping:
            raise PluginError(reasons[0])
        if any(outcome is None and reason is None for outcome, reason in zip(known, failed, strict=True)):
            self.target_model()  # made before the clock of the cell starts
            run.progress.begin(label, len(run.data))
        found: list[Outcome] = []
        first: FreqRobustError | None = None
        for block, below, outcome, reason in zip(every, smaller, known, failed, strict=True):
            if (outcome is not None or reason is not None) and None in known:
                skip(run.progress, len(block))
            if outcome is None:
                try:
                    if reason is not None:
                        raise PluginError(reason)
                    own = clean.part(block.start, block.stop) if clean is not None else None
                    with running_user_code(plugin_spec.name if plugin_spec is not None else self.chain.name):
                        outcome = self.block(plugin_spec, block, own, below.outcome, below.eps)
                except ImageFileError:
                    raise
                except FreqRobustError as error:
                    if not sweeping:
                        raise
                    first = first or error
                    continue
            if plugin_spec is not None:
                below.add(plugin_spec, outcome)
            found.append(outcome)
        if first is not None:
            raise first
        outcome = concluded(Outcome.joined(found), plugin_spec)
        outcome.signs = None  # those of the blocks are for the next eps
        outcome.numbers.seconds = round(outcome.numbers.seconds, 4)
        old = len(known) - known.count(None)
        note = (
            ""
            if not old
            else " (from the journal)"
            if old == len(known)
            else f" ({old} of {len(known)} blocks from the journal)"
        )
        run.progress.end(f"{label}: {_percent(outcome)}{note}")
        return outcome

    def block(
        self,
        plugin_spec: PluginSpec[Attack] | None,
        block: Block,
        clean: Outcome | None,
        lower: Outcome | None,
        lower_eps: list[float] | None,
    ) -> Outcome:
        """Measure one block of a cell, and put it into the journal.

        Args:
            plugin_spec: the attack or shift; None stands for the clean pass.
            block: the samples.
            clean: the clean pass on them; the clean pass itself does without it.
            lower: the same attack at the next smaller eps of its sweep, on them.
            lower_eps: the smaller eps of the sweep; None outside of a sweep.
        """
        run = self.run
        if run.kind != run.device.type:
            raise SharingError(
                f"it is not measured yet, and only a merge on a device of the kind {run.kind} can measure it"
            )
        target_model, batches = self.target_model(), self.batches.part(block)
        if plugin_spec is None:
            outcome = measure_clean(target_model, batches)
        else:
            keep = lower_eps is not None and keeps_signs(plugin_spec.plugin, run.data)
            outcome = measure(plugin_spec, target_model, batches, clean, lower, run.seed, keep)
        run.keep(run.journal, self.key_of(plugin_spec, lower_eps, block), outcome.to_piece())
        return outcome

    def clean_on(self, block: Block) -> Outcome:
        """The clean pass on a block of samples, from the blocks of the clean pass that contain them."""
        run = self.run
        every = [one for one in run.blocks(None) if one.start < block.stop and block.start < one.stop]
        parts = [run.stored(self.key_of(None, None, one)) or self.block(None, one, None, None, None) for one in every]
        return Outcome.joined(parts).part(block.start - every[0].start, block.stop - every[0].start)

    def key_of(
        self,
        plugin_spec: PluginSpec[Attack] | None,
        lower_eps: list[float] | None,
        block: Block,
        purpose: str = "adaptive",
    ) -> str:
        """The identity of one block of a cell of this defense."""
        return self.run.key(self.chain, plugin_spec, lower_eps, purpose, block)

    def has_transferred(self, plugin_spec: PluginSpec[Attack]) -> bool:
        """Whether all oblivious blocks of an attack are in the journal."""
        run = self.run
        return all(run.journal.has(self.key_of(plugin_spec, None, b, "oblivious")) for b in run.blocks(plugin_spec))

    def target_model(self) -> TargetModel:
        """The defended model; made once."""
        if self._target_model is not None:
            return self._target_model
        run = self.run
        context = DefenseContext(
            device=run.device,
            seed=run.seed,
            batch_size=run.batch_size,
            train_data=run.training,
            cache_dir=run.cache_dir,
            progress=run.progress,
        )
        trains = any(part.plugin.trains for part in self.chain.parts)
        # of several processes one trains, and the others take what it has trained
        with alone(run.cache_dir) if run.shared and trains else nullcontext():
            exact, attackable = (
                restricted(module, run.data.class_subset, run.device)
                for module in defend_copy(run.network, self.chain, context)
            )
        for module in (exact, attackable):
            set_eval(module)
            for parameter in module.parameters():
                parameter.requires_grad_(False)
        probe, _, ids = run.data.batch(torch.arange(min(4, len(run.data))), run.device)
        self._target_model = TargetModel(
            exact,
            attackable,
            probe,
            device=run.device,
            precision=run.precision,
            votes=VOTES if self.chain.stochastic else 1,
            seed=run.seed,
            criterion=run.criterion.plugin,
        )
        run.compiled()
        run.compilation.apply(self._target_model, self.chain, run.data, run.batch_size)
        if not self.chain.parts:  # tried when the run was opened
            return self._target_model
        with running_user_code(f"{self.chain.spec}: the defended model fails"):
            self._target_model.predict(probe, ids)
        return self._target_model


def _percent(outcome: Outcome) -> str:
    return f"{outcome.right.mean():.1%} in {outcome.numbers.seconds:.1f} s"
